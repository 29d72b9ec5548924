/**
 * What a daemon costs that has nothing to do: one with 1,000 pretended instances in 50 groups, measured every 10 s as real ones
 * are, and one without any. Resident memory as `ps` shows it, and CPU time of the process.
 *
 *   node bench/idle.ts [--groups 50] [--members 20] [--settle 60] [--seconds 60]
 *
 * Both run at the same time, in real time. Needs no root.
 */
import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { findDaemon } from "../src/bin/daemon-process.ts";
import { readSettings, type Settings } from "../src/bin/settings.ts";
import type { Client } from "../src/client/client.ts";
import { createHttpClient } from "../src/client/http-client.ts";
import { systemClock } from "../src/core/clock.ts";
import { groupKind } from "../src/kinds/group.ts";
import { hostKind } from "../src/kinds/host.ts";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { networkKind } from "../src/kinds/network.ts";

const { values } = parseArgs({
  options: {
    groups: { type: "string", default: "50" },
    members: { type: "string", default: "20" },
    settle: { type: "string", default: "60" },
    seconds: { type: "string", default: "60" },
  },
});
const project = "default";
/** For each thing that is waited for; a busy machine needs minutes for 1,000 instances. */
const untilMs = 300_000;
const members = Number(values.members);
const main = fileURLToPath(new URL("../src/bin/strata.ts", import.meta.url));

interface Memory {
  rss: number;
  anonymous: number;
  file: number;
  proportional: number;
}

/** MiB and the share of one core, of a daemon with so many groups. */
async function measure(groups: number): Promise<Memory & { share: number }> {
  const directory = await mkdtemp(join(tmpdir(), "strata-bench-idle-"));
  const environment = { STRATA_DIR: directory, STRATA_HTTPS_PORT: "0", STRATA_LOG_LEVEL: "warn" };
  const settings = readSettings(environment, undefined, true);
  const command = spawn(process.execPath, [main, "daemon", "run", "--fake"], {
    stdio: "inherit",
    env: { ...process.env, ...environment },
  });
  const ended = new Promise((resolve) => command.on("close", resolve));
  // What starts it hands over to another process, perhaps twice.
  await until("the daemon runs", async () => findDaemon(settings) !== undefined);
  const client = createHttpClient({ socketPath: settings.socketPath, retryForMs: 30_000 });
  try {
    await until("it knows its host", async () => (await client.list(hostKind, {})).items.length > 0);
    if (groups > 0) await populate(client, groups);
    await systemClock.sleep(Number(values.settle) * 1_000);
    const { pid } = findDaemon(settings) ?? { pid: 0 };
    const [before, began] = [await cpuMs(pid), systemClock.monotonicMs()];
    await systemClock.sleep(Number(values.seconds) * 1_000);
    const share = ((await cpuMs(pid)) - before) / (systemClock.monotonicMs() - began);
    return { ...(await memoryOf(pid)), share };
  } finally {
    client.close();
    await stop(settings);
    await ended;
    await rm(directory, { recursive: true, force: true });
  }
}

/** Waits until all members run and have been measured. */
async function populate(client: Client, groups: number): Promise<void> {
  const source = { type: "debian" as const, suite: "bookworm" as const };
  await client.create(imageKind, { project, name: "debian", spec: { source } });
  const [host] = (await client.list(hostKind, {})).items;
  await client.patch(hostKind, { name: host?.metadata.name ?? "" }, { spec: { cpuOvercommit: 100 } });
  await client.create(networkKind, { project, name: "wide", spec: { cidr: "10.200.0.0/20" } });
  const template = {
    type: "container" as const,
    image: "debian",
    memoryMib: 16,
    diskMib: 64,
    network: "wide",
  };
  for (let index = 0; index < groups; index++) {
    await client.create(groupKind, {
      project,
      name: `group-${index}`,
      spec: { template, min: members, max: members },
    });
  }
  const wanted = groups * members;
  await until(
    "all instances run",
    async () => (await client.list(instanceKind, { state: "running" })).items.length === wanted,
  );
  await until(
    "all instances are measured",
    async () => (await client.currentMetrics("instances", {})).length === wanted,
  );
}

async function stop(settings: Settings): Promise<void> {
  const daemon = findDaemon(settings);
  if (daemon) process.kill(daemon.pid, "SIGTERM");
  await until("the daemon has ended", async () => findDaemon(settings) === undefined);
}

async function until(what: string, condition: () => Promise<boolean>): Promise<void> {
  const deadline = systemClock.monotonicMs() + untilMs;
  while (!(await condition())) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`not within ${untilMs / 1_000} s: ${what}`);
    await systemClock.sleep(500);
  }
}

async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function memoryOf(pid: number): Promise<Memory> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const rollup = await readFile(`/proc/${pid}/smaps_rollup`, "utf8");
  const mib = (text: string, name: string) =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1]) / 1024;
  return {
    rss: mib(status, "VmRSS"),
    anonymous: mib(status, "RssAnon"),
    file: mib(status, "RssFile"),
    proportional: mib(rollup, "Pss"),
  };
}

const groups = Number(values.groups);
const daemons = [
  [`${groups * members} instances in ${groups} groups`, measure(groups)],
  ["no instances", measure(0)],
] as const;
console.log(
  "| MiB | resident | anonymous | of files | proportional | % of a core |\n|---|---|---|---|---|---|",
);
for (const [title, measured] of daemons) {
  const { rss, anonymous, file, proportional, share } = await measured;
  const sizes = [rss, anonymous, file, proportional].map((size) => size.toFixed(0)).join(" | ");
  console.log(`| ${title} | ${sizes} | ${(share * 100).toFixed(2)} |`);
}
console.log(`\nLoad average ${loadavg()[0]?.toFixed(1)}.`);
