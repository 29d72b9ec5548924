import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { until } from "../conformance-bench.ts";
import { parseExit, parseInit, startRecorder } from "./recorder.ts";

let dir: string;
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "strata-recorder-"));
  writeFileSync(join(dir, "run"), "r1\n");
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Runs a recorder over a shell script that stands for LXC's monitor. */
async function record(script: string): Promise<void> {
  await startRecorder({
    bash: "/bin/bash",
    runId: "r1",
    dir,
    path: "/usr/bin:/bin",
    procsFiles: [join(dir, "procs-a"), join(dir, "procs-b")],
    command: ["/bin/sh", "-c", script],
  });
}

const exitOf = () => parseExit(existsSync(join(dir, "exit")) ? readFileSync(join(dir, "exit"), "utf8") : "");
const ended = () => until(() => exitOf() !== undefined, 5_000, "the recorder's exit file");

test("writes down the init's pid and how it ended", async () => {
  await record(`
    echo 'lxc-start x 1 NOTICE   start - start.c:post_start:2205 - Started "/sbin/init" with pid "4711"'
    echo 'lxc-start x 1 INFO     error - error.c:34 - Child <4711> ended on signal Killed(9)'`);
  await ended();
  expect(parseInit(readFileSync(join(dir, "init"), "utf8"))).toEqual({ runId: "r1", pid: 4711 });
  expect(exitOf()).toEqual({ runId: "r1", monitorStatus: 0, init: { signal: 9 }, errors: [] });
});

test("after a reboot from inside, only the last end counts", async () => {
  await record(`
    echo ' - Started "/sbin/init" with pid "1"'
    echo ' - Child <1> ended on signal Hangup(1)'
    echo ' - Started "/sbin/init" with pid "2"'`);
  await ended();
  expect(parseInit(readFileSync(join(dir, "init"), "utf8"))?.pid).toBe(2);
  expect(exitOf()).toEqual({ runId: "r1", monitorStatus: 0, errors: [] });
});

test("keeps the first errors, and the status of a monitor that was killed", async () => {
  await record(`
    for i in 1 2 3 4 5 6 7 8 9; do echo "x ERROR conf - conf.c:f:1 - No such file - error $i"; done
    kill -9 $$`);
  await ended();
  expect(exitOf()).toEqual({
    runId: "r1",
    monitorStatus: 137,
    errors: [1, 2, 3, 4, 5, 6].map((number) => `error ${number}`),
  });
});

test("enters its cgroup before it does anything else, and takes nothing along", async () => {
  await record("ls /proc/self/fd | wc -l > $0/count".replace("$0", dir));
  await ended();
  const pid = readFileSync(join(dir, "procs-a"), "utf8");
  expect(readFileSync(join(dir, "procs-b"), "utf8")).toBe(pid);
  expect(Number(pid)).toBeGreaterThan(1);
  expect(Number(readFileSync(join(dir, "count"), "utf8"))).toBeLessThanOrEqual(4);
});

test("does nothing when a newer run has begun", async () => {
  writeFileSync(join(dir, "run"), "r2\n");
  await record(`touch ${join(dir, "ran")}`);
  await until(() => existsSync(join(dir, "procs-b")), 5_000, "the recorder in its cgroup");
  const pid = readFileSync(join(dir, "procs-b"), "utf8").trim();
  await until(() => !existsSync(`/proc/${pid}`), 5_000, "the end of the recorder");
  expect(existsSync(join(dir, "ran"))).toBe(false);
  expect(existsSync(join(dir, "exit"))).toBe(false);
});
