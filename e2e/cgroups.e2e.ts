/** Cgroups on this machine's kernel: the limits hold, changes are told, groups are emptied and removed. */
import { type ChildProcess, spawn } from "node:child_process";
import { appendFile, mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import type { Cgroups } from "../src/host/cgroups.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";

const parent = "e2e-cgroups";
const group = `${parent}/0123456789abcdef`;
let cgroups: Cgroups;
const children: ChildProcess[] = [];

beforeEach(async () => {
  cgroups = await openCgroups({ clock: systemClock });
});
afterEach(async () => {
  for (const child of children.splice(0)) child.kill("SIGKILL");
  await cgroups.kill(parent);
  await cgroups.remove(parent);
});

interface End {
  code: number | null;
  signal: string | null;
}

/** Runs a shell script inside the group from its first instruction on. */
function inside(script: string): ChildProcess & { ended: Promise<End> } {
  const enter = cgroups.procsFiles(group).map((file) => `echo $$ > ${file}`);
  const child = spawn("/bin/sh", ["-c", [...enter, script].join("\n")], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  children.push(child);
  const ended = new Promise<End>((resolve) => {
    child.once("exit", (code, signal) => resolve({ code, signal }));
  });
  return Object.assign(child, { ended });
}

test("a populated and an emptied group are told at once", async () => {
  await cgroups.ensure(group, {});
  const seen: boolean[] = [];
  const end = cgroups.watch(group, (populated) => seen.push(populated));
  const child = inside("sleep 1000 & wait");
  await until(() => seen.includes(true), 1_000, "the news that it is populated");
  expect(await cgroups.isPopulated(group)).toBe(true);
  await until(async () => (await cgroups.pids(group)).length === 2, 1_000, "both processes");
  await cgroups.kill(group);
  await child.ended;
  await until(() => seen.at(-1) === false, 1_000, "the news that it is empty");
  end();
});

test("CPU time is limited", async () => {
  await cgroups.ensure(group, { cpus: 0.25 });
  inside("while :; do :; done & while :; do :; done");
  await until(() => cgroups.isPopulated(group), 1_000, "the loops");
  const start = { at: systemClock.monotonicMs(), ...(await cgroups.usage(group)) };
  await systemClock.sleep(1_000);
  const end = { at: systemClock.monotonicMs(), ...(await cgroups.usage(group)) };
  const share = (end.cpuMicros - start.cpuMicros) / 1_000 / (end.at - start.at);
  expect(share).toBeGreaterThan(0.05);
  expect(share).toBeLessThan(0.32);
});

test("memory is limited, and a changed limit holds for what runs", async () => {
  await cgroups.ensure(group, { memoryMib: 32 });
  const hungry = "head -c 64M /dev/zero | tail -c 64M";
  expect(await inside(`${hungry} > /dev/null`).ended).toEqual({ code: 137, signal: null });
  const child = inside(`sleep 0.2; ${hungry} | wc -c`);
  await cgroups.ensure(group, { memoryMib: 16 });
  await cgroups.ensure(group, { memoryMib: 256 });
  let output = "";
  child.stdout?.on("data", (text) => {
    output += text;
  });
  expect(await child.ended).toEqual({ code: 0, signal: null });
  expect(output.trim()).toBe(String(64 * 1024 ** 2));
});

test("processes are limited", async () => {
  await cgroups.ensure(group, { processes: 10 });
  const child = inside("i=0; while [ $i -lt 50 ]; do sleep 1000 & i=$((i+1)); done; wait");
  await child.ended; // a shell that cannot fork gives up
  expect((await cgroups.usage(group)).processes).toBe(9);
});

test("a fork bomb is killed", async () => {
  await cgroups.ensure(group, { processes: 500, cpus: 0.5 });
  inside("bomb() { bomb | bomb & }; while :; do bomb; done 2>/dev/null");
  await until(async () => (await cgroups.usage(group)).processes > 100, 10_000, "the bomb going off");
  await cgroups.kill(group);
  expect(await cgroups.pids(group)).toEqual([]);
});

test("frozen processes are killed", async () => {
  await cgroups.ensure(group, {});
  const child = inside("sleep 1000");
  const pid = child.pid ?? 0;
  await until(async () => (await cgroups.pids(group)).includes(pid), 1_000, "the process");
  if (cgroups.layout === "v2") {
    await writeFile(join("/sys/fs/cgroup", group, "cgroup.freeze"), "1");
  } else {
    const freezer = join("/sys/fs/cgroup/freezer", group, "inner");
    await mkdir(freezer, { recursive: true });
    await appendFile(join(freezer, "cgroup.procs"), String(pid));
    await writeFile(join(freezer, "freezer.state"), "FROZEN");
    expect((await readFile(join(freezer, "freezer.state"), "utf8")).trim()).not.toBe("THAWED");
  }
  await cgroups.kill(group);
  expect(await cgroups.pids(group)).toEqual([]);
});

test("a group with processes is not removed, and an empty one is, in every hierarchy", async () => {
  await cgroups.ensure(group, {});
  inside("sleep 1000");
  await until(() => cgroups.isPopulated(group), 1_000, "the process");
  await expect(cgroups.remove(group)).rejects.toMatchObject({ code: "Conflict" });
  await cgroups.kill(group);
  await cgroups.remove(group);
  await cgroups.remove(group);
  expect(await cgroups.list(parent)).toEqual([]);
});
