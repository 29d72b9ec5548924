/**
 * From a step of load to the first answer of an extra instance, through the balancer: a group of containers or virtual
 * machines, cold and from a warm pool; in the same run a 15 s polling loop over a Docker Engine and HAProxy. After each
 * step the load goes down again and the group with it. Requests are sent open-loop; a failed one is counted. Before each step
 * of the cold virtual machines, one of the same template is started by itself, under the load that one member carries: that is
 * the boot time which the step's is compared with.
 *
 *   node bench/load-step.ts [--rounds 20] [--only cold,warm,polling,vm,vm-warm]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { addressOf, TestDaemon, until } from "../e2e/test-daemon.ts";
import { tinyImage } from "../e2e/tiny-image.ts";
import { LoadGenerator } from "../src/cli/demo/load-generator.ts";
import { systemClock } from "../src/core/clock.ts";
import type { JsonObject } from "../src/core/json.ts";
import { groupKind } from "../src/kinds/group.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { loadBalancerKind } from "../src/kinds/load-balancer.ts";
import { firstReply } from "./peers/peer.ts";
import { PollingLoop } from "./peers/polling.ts";
import { median, percentile } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "20" },
    only: { type: "string", default: "cold,warm,polling,vm,vm-warm" },
  },
});
const rounds = Number(values.rounds);
const only = new Set(values.only.split(","));
const project = "default";

/** Requests per second: what the policy wants of one instance, the load before the step and after it. */
interface Rates {
  target: number;
  low: number;
  high: number;
}

/** One instance carries the step until its successor does: emulated processors carry less, and boot the successor meanwhile. */
const rates = {
  container: { target: 30, low: 20, high: 50 },
  vm: { target: 15, low: 10, high: 25 },
} satisfies Record<string, Rates>;

interface Contender {
  name: string;
  port: number;
  limitMs: number;
  rates: Rates;
  /** From the request for a single instance of the same template to its first answer. */
  bootMs?: () => Promise<number>;
  /** Back to one instance. */
  settled(): Promise<boolean>;
  /** One after another in their own time: the step of the polling loop falls anywhere between two polls. */
  beforeStepMs(): number;
  dispose(): Promise<void>;
}

interface Figures {
  times: number[];
  boots: number[];
  sent: number;
  failed: number;
}

async function group(
  daemon: TestDaemon,
  kind: { name: string; type: "container" | "vm"; warm: number; port: number },
): Promise<Contender> {
  const { name, type, warm, port } = kind;
  const template = {
    type,
    image: "tiny",
    memoryMib: 128,
    diskMib: 128,
    services: [{ name: "http", port: 80 }],
  };
  const spec = {
    template,
    min: 1,
    max: 2,
    warm,
    policies: [{ type: "target", name: "load", metric: "requests", target: rates[type].target }],
    behavior: { inStabilizationSeconds: 1, inCooldownSeconds: 0 },
    drainSeconds: 5,
  };
  await daemon.client.create(groupKind, { project, name, spec: spec as unknown as JsonObject });
  const balancer = { group: name, targetPort: 80, listeners: [{ port }], accessLog: false };
  await daemon.client.create(loadBalancerKind, { project, name, spec: balancer as unknown as JsonObject });
  const settled = async () => {
    const { status } = await daemon.client.require(groupKind, { project, name });
    return status.state === "steady" && status.desired === 1 && status.ready === 1 && status.warm === warm;
  };
  await until(`${name} has one member`, settled, 180_000, 100);
  return {
    name: `Strata, ${type}${warm > 0 ? " from a warm pool" : ""}`,
    port,
    limitMs: 120_000,
    rates: rates[type],
    ...(type === "vm" && warm === 0 ? { bootMs: () => bootMs(daemon, template) } : {}),
    settled,
    beforeStepMs: () => 1_000,
    async dispose() {
      await daemon.client.delete(loadBalancerKind, { project, name });
      await daemon.client.delete(groupKind, { project, name });
    },
  };
}

async function bootMs(daemon: TestDaemon, template: object): Promise<number> {
  const name = "lone";
  const begun = systemClock.monotonicMs();
  const instance = await daemon.client.create(instanceKind, { project, name, spec: template as JsonObject });
  await firstReply(addressOf(instance), 120_000);
  const took = systemClock.monotonicMs() - begun;
  await daemon.client.delete(instanceKind, { project, name });
  const gone = async () => (await daemon.client.get(instanceKind, { project, name })) === undefined;
  await until("the single instance is gone", gone, 60_000);
  return took;
}

async function polling(directory: string): Promise<Contender> {
  const port = 18_095;
  const loop = new PollingLoop({
    directory,
    tar: await tinyImage(),
    port,
    target: rates.container.target,
    max: 2,
  });
  await loop.start();
  let step = 0;
  return {
    name: "15 s polling loop, docker run and HAProxy",
    port,
    limitMs: 60_000,
    rates: rates.container,
    settled: async () => loop.size === 1,
    beforeStepMs: () => 1_000 + ((step++ * 7_919) % 15_000),
    dispose: () => loop.dispose(),
  };
}

async function measure(contender: Contender): Promise<Figures> {
  let rate = 0;
  let steppedMs = Number.POSITIVE_INFINITY;
  let known = new Set<string>();
  let arrived: number | undefined;
  const over = new AbortController();
  const generator = new LoadGenerator({
    url: `http://127.0.0.1:${contender.port}/`,
    clock: systemClock,
    rate: () => rate,
    identify: (body) => body.trim(),
  });
  const failures = new Map<number, number>();
  generator.onAnswer = ({ sentMs, tookMs, status, by }) => {
    if (status !== 200) failures.set(status, (failures.get(status) ?? 0) + 1);
    if (by === undefined || by === "" || known.has(by)) return;
    if (sentMs < steppedMs) known.add(by);
    else arrived ??= sentMs + tookMs;
  };
  const running = generator.run(over.signal);
  const { low: lowRate, high: highRate } = contender.rates;
  const times: number[] = [];
  const boots: number[] = [];
  for (let round = 0; round < rounds; round++) {
    rate = lowRate;
    await until("one instance is left", contender.settled, 120_000, 50);
    if (contender.bootMs) boots.push(await contender.bootMs());
    known = new Set();
    steppedMs = Number.POSITIVE_INFINITY;
    await systemClock.sleep(contender.beforeStepMs());
    arrived = undefined;
    steppedMs = systemClock.monotonicMs();
    rate = highRate;
    await until("another instance answers", () => arrived !== undefined, contender.limitMs, 2);
    times.push((arrived ?? Number.NaN) - steppedMs);
    await systemClock.sleep(500);
  }
  rate = lowRate;
  await until("one instance is left", contender.settled, 120_000, 50);
  over.abort();
  await running;
  if (failures.size > 0) console.error(contender.name, Object.fromEntries(failures));
  return { times, boots, sent: generator.sent, failed: generator.failed };
}

const daemon = await TestDaemon.create();
const directory = await mkdtemp("/var/tmp/strata-bench-");
const makers: [string, () => Promise<Contender>][] = [
  ["cold", () => group(daemon, { name: "cold", type: "container", warm: 0, port: 18_091 })],
  ["warm", () => group(daemon, { name: "warm", type: "container", warm: 1, port: 18_092 })],
  ["polling", () => polling(`${directory}/polling`)],
  ["vm", () => group(daemon, { name: "machines", type: "vm", warm: 0, port: 18_093 })],
  ["vm-warm", () => group(daemon, { name: "warm-machines", type: "vm", warm: 1, port: 18_094 })],
];
try {
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  console.log(
    "| | median ms | p95 ms | min ms | max ms | requests | failed |\n|---|---|---|---|---|---|---|",
  );
  const bootLines: string[] = [];
  for (const [key, make] of makers) {
    if (!only.has(key)) continue;
    const contender = await make();
    try {
      const { times, boots, sent, failed } = await measure(contender);
      const figures = [median(times), percentile(times, 0.95), Math.min(...times), Math.max(...times)];
      const cells = [...figures.map((value) => value.toFixed(0)), sent, failed];
      console.log(`| ${contender.name} | ${cells.join(" | ")} |`);
      if (boots.length > 0) {
        const over = times.map((time, index) => time - (boots[index] ?? Number.NaN));
        bootLines.push(
          `${contender.name}: boot of a single one ${median(boots).toFixed(0)} ms (median; ${Math.min(...boots).toFixed(0)} to ` +
            `${Math.max(...boots).toFixed(0)}), the step took ${median(over).toFixed(0)} ms more (median of pairs; ` +
            `${Math.min(...over).toFixed(0)} to ${Math.max(...over).toFixed(0)})`,
        );
      }
    } finally {
      await contender.dispose();
    }
  }
  for (const line of bootLines) console.log(`\n${line}`);
  console.log(`\n${rounds} steps each; load average ${loadavg()[0]?.toFixed(2)} at the end.`);
} finally {
  await daemon.dispose();
  await rm(directory, { recursive: true, force: true });
}
