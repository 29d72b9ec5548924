import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { run } from "../../host/run.ts";
import { execCommand, gateEntrypoint, openGate } from "./gate.ts";

const signal = new AbortController().signal;
let directory: string;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-gate-"));
});
afterEach(() => rmSync(directory, { recursive: true, force: true }));

/** The gate's script in the host's own shell, at a pipe of the test's. */
function atGate(...command: string[]) {
  const script = (gateEntrypoint[3] ?? "").replaceAll("/.strata/gate", join(directory, "gate"));
  return spawn("/bin/sh", ["-c", script, "strata-gate", ...command], {
    env: { PATH: `${directory}/empty:${directory}/bin:/usr/bin:/bin` },
    stdio: ["ignore", "pipe", "pipe"],
  });
}

/** A shell that is not the container's busybox is told by its arguments. */
async function open(process: ChildProcess): Promise<void> {
  const isWaiting = async (pid: number) =>
    (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).includes("\0strata-gate\0");
  await openGate(join(directory, "gate"), { pid: process.pid ?? 0, clock: systemClock, signal, isWaiting });
}

test("waits for the word, also when a writer came and went, and becomes the command", async () => {
  await run("mkfifo", [join(directory, "gate")]);
  const process = atGate("echo", "a  b", "$HOME");
  const output = text(process.stdout);
  // A writer without a word.
  await run("dd", ["if=/dev/null", `of=${join(directory, "gate")}`]);
  await open(process);
  expect(await output).toBe("a  b $HOME\n");
});

test("a command that is not there ends with 127 and a word", async () => {
  await run("mkfifo", [join(directory, "gate")]);
  const process = atGate("no-such-program");
  const complaint = text(process.stderr);
  const exit = once(process, "exit");
  await open(process);
  const [code] = await exit;
  expect(code).toBe(127);
  expect(await complaint).toContain("no-such-program is not in this image");
});

test("programs are looked up in PATH, where only what can be executed counts", async () => {
  await run("mkfifo", [join(directory, "gate")]);
  mkdirSync(join(directory, "empty"));
  mkdirSync(join(directory, "empty/tool")); // a directory is no program
  mkdirSync(join(directory, "bin"));
  writeFileSync(join(directory, "bin/tool"), '#!/bin/sh\necho "tool $*"\n');
  chmodSync(join(directory, "bin/tool"), 0o755);
  const process = atGate("tool", "1", "2");
  const output = text(process.stdout);
  await open(process);
  expect(await output).toBe("tool 1 2\n");
});

test("a process that went on already, and is asked again, is left alone", async () => {
  await run("mkfifo", [join(directory, "gate")]);
  const process = spawn("sleep", ["1000"]);
  await once(process, "spawn");
  const key = { pid: process.pid ?? 0, clock: systemClock, signal, isWaiting: async () => false };
  await openGate(join(directory, "gate"), { ...key, resumed: true });
  process.kill("SIGKILL");
});

test("a gate whose process has ended is told", async () => {
  await run("mkfifo", [join(directory, "gate")]);
  const process = spawn("/bin/true");
  await once(process, "close");
  const options = { pid: process.pid ?? 0, clock: systemClock, signal };
  await expect(openGate(join(directory, "gate"), options)).rejects.toMatchObject({ code: "Unavailable" });
});

test("commands are arguments, never text of a script", () => {
  const command = execCommand(["sh", "-c", "$(reboot)"], { columns: 80, rows: 24 });
  expect(command.slice(4)).toEqual(["strata-exec", "80", "24", "sh", "-c", "$(reboot)"]);
  expect(command[3]).not.toContain("reboot");
  expect(execCommand(["x"]).slice(4)).toEqual(["strata-exec", "0", "0", "x"]);
});
