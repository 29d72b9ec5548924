/**
 * What HAProxy carries as Strata configures it, beside configurations written by hand for the same job, with an access
 * log and without: in turns, with the same load, and what a request costs in CPU time of HAProxy, which other work on the
 * machine disturbs less. The agent's part (log, figures) is done meanwhile. All on loopback; the origin is an HAProxy
 * that answers by itself. Needs root, haproxy and wrk.
 *
 *   node bench/balancer-throughput.ts [--rounds 10] [--seconds 2] [--connections 8]
 */
import type { ChildProcess } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Traffic } from "../src/agent/balancers/traffic.ts";
import { systemClock } from "../src/core/clock.ts";
import { systemRandom } from "../src/core/random.ts";
import { balancerPaths, renderConfig } from "../src/host/balancers/haproxy-config.ts";
import { RuntimeApi } from "../src/host/balancers/runtime-api.ts";
import { parseStatistics } from "../src/host/balancers/runtime-texts.ts";
import { type LoadBalancer, loadBalancerSpecSchema } from "../src/kinds/load-balancer.ts";
import {
  handWritten,
  isAnswered,
  type Loopback,
  onLoopback,
  originConfig,
  row,
  until,
  wrk,
} from "./balancer-programs.ts";
import { median, speedUp } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "10" },
    seconds: { type: "string", default: "2" },
    connections: { type: "string", default: "8" },
  },
});
const originPort = 27_189;
/** As the agent looks for news. */
const lookEveryMs = 200;
const ticksPerSecond = 100;
const end = new AbortController();

interface Contender {
  name: string;
  port: number;
  child: ChildProcess;
  perSecond: number[];
  /** CPU time of a request in microseconds: HAProxy's, and this process's, which does the agent's part. */
  haproxyUs: number[];
  agentUs: number[];
}

function contender(name: string, port: number, child: ChildProcess): Contender {
  return { name, port, child, perSecond: [], haproxyUs: [], agentUs: [] };
}

async function strata(
  { directory, start }: Loopback,
  name: string,
  port: number,
  accessLog: boolean,
): Promise<Contender> {
  const paths = balancerPaths(directory, String(port));
  const spec = loadBalancerSpecSchema.parse({
    listeners: [{ port }],
    group: "web",
    targetPort: originPort,
    accessLog,
  });
  const server = { uid: "origin", address: "127.0.0.1", port: originPort, source: "127.0.0.1" };
  await mkdir(paths.jail, { recursive: true });
  await writeFile(paths.challenges, "");
  const api = new RuntimeApi(paths.admin, systemClock);
  const status = { targets: [{ uid: "origin", name: "origin" }] };
  const traffic = new Traffic({
    uid: name,
    balancers: {
      channels: () => paths,
      logPath: () => join(directory, `${port}.log`),
      statistics: async () => parseStatistics(await api.ask("show stat -1 6 -1")),
    },
    clock: systemClock,
    resource: () => ({ spec, status }) as unknown as LoadBalancer,
    onChange: () => {},
  });
  await traffic.listen();
  const text = renderConfig(spec, [{ ...server, draining: false }], {
    paths,
    user: "haproxy",
    group: "haproxy",
    ipv6: true,
    large: [],
  });
  const child = await start(String(port), text, { logPipe: paths.log });
  void follow(traffic).finally(() => {
    traffic.close();
    api.close();
  });
  return contender(name, port, child);
}

async function follow(traffic: Traffic): Promise<void> {
  while (!end.signal.aborted) {
    await systemClock.sleep(lookEveryMs, end.signal).catch(() => {});
    await traffic.news().catch(() => undefined);
  }
}

async function byHand(
  { start }: Loopback,
  name: string,
  port: number,
  log: "every request" | "one in 20" | "none",
) {
  const text = handWritten({ port, origins: [originPort], log });
  return contender(name, port, await start(String(port), text));
}

/** CPU time of all its threads, in seconds. */
async function cpuSeconds(pid: number | undefined): Promise<number> {
  const text = await readFile(`/proc/${pid}/stat`, "utf8");
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
}

async function measure(one: Contender): Promise<void> {
  const before = await cpuSeconds(one.child.pid);
  const agentBefore = process.cpuUsage();
  const { requests, perSecond } = await wrk(one.port, Number(values.connections), Number(values.seconds));
  const agent = process.cpuUsage(agentBefore);
  one.perSecond.push(perSecond);
  one.haproxyUs.push((((await cpuSeconds(one.child.pid)) - before) * 1e6) / requests);
  one.agentUs.push((agent.user + agent.system) / requests);
}

function compare(ours: Contender, hand: Contender): void {
  // speedUp takes times, smaller is faster.
  const times = (rates: number[]) => rates.map((rate) => 1 / rate);
  const figures = [
    speedUp(times(ours.perSecond), times(hand.perSecond), systemRandom),
    speedUp(ours.haproxyUs, hand.haproxyUs, systemRandom),
  ];
  row(
    `${ours.name} over ${hand.name}: requests a second, by CPU time`,
    figures.map(({ ratio, low, high }) => ` ${ratio.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`),
  );
}

await onLoopback(async (loopback) => {
  await loopback.start("origin", originConfig([originPort]));
  await until("the origin answers", () => isAnswered(originPort));
  const logged = await strata(loopback, "Strata, access log", 27_180, true);
  const handLogged = await byHand(loopback, "by hand, every request logged", 27_181, "every request");
  const handThinned = await byHand(loopback, "by hand, one in 20 logged", 27_182, "one in 20");
  const plain = await strata(loopback, "Strata, no access log", 27_183, false);
  const handPlain = await byHand(loopback, "by hand, no log", 27_184, "none");
  const contenders = [logged, handLogged, handThinned, plain, handPlain];
  for (const { name, port } of contenders) await until(`"${name}" answers`, () => isAnswered(port));
  for (let round = -1; round < Number(values.rounds); round++) {
    for (const one of round % 2 === 0 ? contenders : contenders.toReversed()) await measure(one);
    if (round >= 0) continue;
    // The first one is warm-up.
    for (const { perSecond, haproxyUs, agentUs } of contenders) {
      for (const figures of [perSecond, haproxyUs, agentUs]) figures.length = 0;
    }
  }
  row("median of:", ["requests/s", "HAProxy µs", "agent µs"]);
  for (const one of contenders) {
    row(one.name, [median(one.perSecond), median(one.haproxyUs), median(one.agentUs)]);
  }
  compare(logged, handLogged);
  compare(logged, handThinned);
  compare(plain, handPlain);
}).finally(() => end.abort());
