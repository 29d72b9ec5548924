/**
 * What metrics cost: the store alone, fed as by a host with 1,000 instances (7 metrics each, every 10 s), and the whole of an
 * idle daemon with 1,000 pretended instances, agent included.
 *
 *   node --expose-gc bench/metrics.ts [--instances 1000] [--hours 6] [--seconds 120]
 *
 * The first part runs hours of rounds as fast as they go; the second one waits in real time. Neither needs root.
 */
import { spawn } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { createHttpClient } from "../src/client/http-client.ts";
import { systemClock } from "../src/core/clock.ts";
import { silentLogger } from "../src/core/logger.ts";
import { randomFraction, seededRandom } from "../src/core/random.ts";
import { VirtualClock } from "../src/core/virtual-clock.ts";
import { hostKind } from "../src/kinds/host.ts";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { metricsOfKinds } from "../src/kinds/metric-names.ts";
import { networkKind } from "../src/kinds/network.ts";
import type { Sample } from "../src/metrics/metric-store.ts";
import { openSqliteMetricStore } from "../src/metrics/sqlite/sqlite-metric-store.ts";
import { percentile } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    instances: { type: "string", default: "1000" },
    hours: { type: "string", default: "6" },
    seconds: { type: "string", default: "120" },
  },
});
const instances = Number(values.instances);
const names = Object.keys(metricsOfKinds.instances);
const roundMs = 10_000;

const directory = await mkdtemp(join(tmpdir(), "strata-bench-metrics-"));
try {
  await benchStore();
  await benchDaemon();
} finally {
  await rm(directory, { recursive: true, force: true });
}

async function benchStore(): Promise<void> {
  const clock = new VirtualClock(1_700_000_000_000);
  const random = seededRandom(1);
  const store = openSqliteMetricStore({ path: join(directory, "bench.db"), clock, logger: silentLogger });
  const rounds = (Number(values.hours) * 3_600_000) / roundMs;
  const subjects = Array.from({ length: instances }, (_, index) => ({
    subject: `/instances/default/i${index}`,
    uid: String(index).padStart(16, "0"),
  }));
  const memoryBefore = keptBytes();
  const times: number[] = [];
  let cpuMicros = 0;
  for (let round = 0; round < rounds; round++) {
    const at = clock.now();
    const samples: Sample[] = subjects.flatMap((subject) =>
      names.map((metric) => ({
        ...subject,
        metric,
        at,
        value: Math.round(randomFraction(random) * 1e6) / 100,
      })),
    );
    const [began, used] = [systemClock.monotonicMs(), process.cpuUsage()];
    store.record(samples);
    await clock.advance(roundMs);
    const { user, system } = process.cpuUsage(used);
    cpuMicros += user + system;
    times.push(systemClock.monotonicMs() - began);
    if (round % 30 === 29) store.prune(clock.now());
  }
  const first = subjects[0];
  const ask = (hours: number, stepMs: number) => {
    const began = systemClock.monotonicMs();
    const until = clock.now();
    const query = {
      subject: "",
      uid: "",
      ...first,
      metric: "cpu",
      from: until - hours * 3_600_000,
      until,
      stepMs,
    };
    const points = store.range(query).length;
    return `${(systemClock.monotonicMs() - began).toFixed(1)} ms for ${points} points`;
  };
  const [hour, day] = [ask(1, 15_000), ask(Number(values.hours), 60_000)];
  const memory = (keptBytes() - memoryBefore) / 1024 ** 2;
  store.close();
  const sizes = await Promise.all((await readdir(directory)).map((name) => stat(join(directory, name))));
  const diskMib = sizes.reduce((sum, { size }) => sum + size, 0) / 1024 ** 2;
  console.log(
    `| the store, ${instances} instances × ${names.length} metrics every 10 s, ${values.hours} h | |`,
  );
  console.log("|---|---|");
  console.log(`| share of one core | ${((cpuMicros / 1_000 / (rounds * roundMs)) * 100).toFixed(2)} % |`);
  console.log(
    `| a round: median, 99 % of them, longest | ${[0.5, 0.99, 1].map((part) => percentile(times, part).toFixed(1)).join(", ")} ms |`,
  );
  console.log(`| memory of it that is kept | ${memory.toFixed(0)} MiB |`);
  console.log(`| file | ${diskMib.toFixed(0)} MiB |`);
  console.log(`| the last hour, the last ${values.hours} h of one metric | ${hour}, ${day} |\n`);
}

/** Without garbage; needs --expose-gc. */
function keptBytes(): number {
  globalThis.gc?.();
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}

async function benchDaemon(): Promise<void> {
  const main = fileURLToPath(new URL("../src/bin/strata.ts", import.meta.url));
  const dir = join(directory, "daemon");
  const daemon = spawn(
    process.execPath,
    [main, "daemon", "run", "--fake", "--dir", dir, "--https-port", "0", "--log-level", "warn"],
    { stdio: "inherit" },
  );
  const ended = new Promise((resolve) => daemon.on("close", resolve));
  const client = createHttpClient({ socketPath: await socketIn(dir), retryForMs: 30_000 });
  try {
    const source = { type: "debian" as const, suite: "bookworm" as const };
    await client.create(imageKind, { project: "default", name: "debian", spec: { source } });
    await until(async () => (await client.list(hostKind, {})).items.length > 0);
    const [host] = (await client.list(hostKind, {})).items;
    if (!host) return;
    await client.patch(hostKind, { name: host.metadata.name }, { spec: { cpuOvercommit: 100 } });
    const network = "wide";
    await client.create(networkKind, { project: "default", name: network, spec: { cidr: "10.200.0.0/20" } });
    for (let index = 0; index < instances; index++) {
      const spec = { type: "container", image: "debian", memoryMib: 16, diskMib: 64, network };
      await client.create(instanceKind, { project: "default", name: `i${index}`, spec });
    }
    await until(
      async () => (await client.list(instanceKind, { state: "running" })).items.length === instances,
    );
    await until(async () => (await client.currentMetrics("instances", {})).length === instances);
    const pid = await daemonPid(dir);
    // What creating them took out of breath comes to rest first.
    await systemClock.sleep(60_000);
    const [before, began] = [await cpuMs(pid), systemClock.monotonicMs()];
    const memories: number[] = [];
    while (systemClock.monotonicMs() - began < Number(values.seconds) * 1_000) {
      await systemClock.sleep(5_000);
      memories.push(await residentMib(pid));
    }
    const share = ((await cpuMs(pid)) - before) / (systemClock.monotonicMs() - began);
    console.log(`| an idle daemon with ${instances} pretended instances, ${values.seconds} s | |\n|---|---|`);
    console.log(`| share of one core | ${(share * 100).toFixed(2)} % |`);
    console.log(`| resident memory, most | ${Math.max(...memories).toFixed(0)} MiB |`);
  } finally {
    client.close();
    // The process that was started has handed over to another one, which outlives it.
    process.kill(await daemonPid(dir), "SIGTERM");
    await ended;
    await until(
      async () => !(await readdir(join(dir, "run")).catch((): string[] => [])).includes("daemon.pid"),
    );
  }
}

async function daemonPid(dir: string): Promise<number> {
  return Number.parseInt(await readFile(join(dir, "run", "daemon.pid"), "utf8"), 10);
}

async function socketIn(dir: string): Promise<string> {
  let found: string | undefined;
  await until(async () => {
    const files = await readdir(dir, { recursive: true }).catch((): string[] => []);
    found = files.find((file) => file.endsWith(".sock"));
    return found !== undefined;
  });
  return join(dir, found ?? "");
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await systemClock.sleep(200);
}

async function cpuMs(pid: number): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

async function residentMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}
