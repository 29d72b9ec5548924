/**
 * HAProxy as Strata drives it: servers that come and go under load, and how soon a new server gets its first request,
 * beside a reload of a configuration written by hand. Everything is on loopback; the origins are HAProxies that answer
 * by themselves. Needs root, haproxy and wrk. What it carries: bench/balancer-throughput.ts.
 *
 *   node bench/balancer.ts [--cycles 500] [--changes 20]
 */
import type { ChildProcess } from "node:child_process";
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatAccess } from "../src/agent/balancers/access-log.ts";
import { Holder } from "../src/agent/balancers/holder.ts";
import { LogFile } from "../src/agent/balancers/log-file.ts";
import { LogIntake } from "../src/agent/balancers/log-intake.ts";
import { systemClock } from "../src/core/clock.ts";
import type { BalancerRequest, Balancers, ServerRequest } from "../src/host/balancers/balancers.ts";
import { createBalancers } from "../src/host/balancers/haproxy-balancers.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { loadBalancerSpecSchema } from "../src/kinds/load-balancer.ts";
import {
  configFile,
  handWritten,
  isAnswered,
  onLoopback,
  originConfig,
  row,
  until,
  wrk,
} from "./balancer-programs.ts";
import { median, percentile } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    cycles: { type: "string", default: "500" },
    changes: { type: "string", default: "20" },
  },
});
const ports = { strata: 27_180, hand: 27_181, originA: 27_182, originB: 27_183 };
const namespace = "lbbench";
const removalMs = 60_000;
const uid = "0000000000000000";
const never = new AbortController().signal;

const spec = loadBalancerSpecSchema.parse({
  listeners: [{ port: ports.strata }],
  group: "web",
  targetPort: 80,
});
const serverOf = (name: string, port: number): ServerRequest => {
  return { uid: name, address: "127.0.0.1", port, source: "127.0.0.1", draining: false };
};
const serverA = serverOf("origin-a", ports.originA);
const serverB = serverOf("origin-b", ports.originB);
const request = (servers: ServerRequest[]): BalancerRequest => {
  return { uid, spec, certificates: new Map(), challenges: new Map(), servers };
};

const handConfig = (origins: readonly number[]) =>
  handWritten({ port: ports.hand, origins, log: "every request" });

const threeFigures = (times: number[]) => [median(times), percentile(times, 0.95), Math.max(...times)];

async function removeServer(balancers: Balancers, name: string): Promise<void> {
  await balancers.drainServer(uid, name);
  // Connections to it that are kept open and idle hold it back: HAProxy closes half of them every 5 s.
  await until(`server ${name} is removed`, () => balancers.removeServer(uid, name), removalMs);
}

/** Each cycle adds a server, drains it, and takes it away when it is idle. @throws when a request failed. */
async function cycles(balancers: Balancers): Promise<void> {
  const count = Number(values.cycles);
  const abort = new AbortController();
  const load = (async () => {
    let total = 0;
    while (!abort.signal.aborted) total += (await wrk(ports.strata, 32, 2)).requests;
    return total;
  })();
  // Told at the end.
  load.catch(() => {});
  const name = balancers.serverName(serverB);
  const times: number[] = [];
  const began = systemClock.monotonicMs();
  try {
    for (let cycle = 0; cycle < count; cycle++) {
      const at = systemClock.monotonicMs();
      await balancers.addServer(request([serverA]), serverB);
      times.push(systemClock.monotonicMs() - at);
      await systemClock.sleep(10);
      await removeServer(balancers, name);
    }
  } finally {
    abort.abort();
  }
  const elapsed = (systemClock.monotonicMs() - began) / 1000;
  row(`${count} cycles of adding and draining, errors`, ["0"]);
  row("  requests meanwhile, seconds", [String(await load), elapsed]);
  row("  time to add a server, ms: median, 95 %, worst", threeFigures(times));
}

async function workersOf(master: number): Promise<string[]> {
  return (await readFile(`/proc/${master}/task/${master}/children`, "utf8")).trim().split(" ");
}

/**
 * Reloads as a person would. Returns once the former worker is gone: until then sockets of both may take a connection,
 * and a signal for the next reload can get lost.
 */
async function reload(
  directory: string,
  hand: ChildProcess,
  origins: readonly number[],
  whenSent?: () => Promise<void>,
) {
  const { pid = 0 } = hand;
  const before = await workersOf(pid);
  await writeFile(configFile(directory, "hand"), handConfig(origins));
  hand.kill("SIGUSR2");
  await whenSent?.();
  await until("the reload has ended", async () => {
    const now = await workersOf(pid);
    return now.length === 1 && now[0] !== "" && !before.includes(now[0] ?? "");
  });
}

/** From the wish until a request is answered by a server where there was none. */
async function firstAnswer(balancers: Balancers, directory: string, hand: ChildProcess): Promise<void> {
  const [ours, reloads]: [number[], number[]] = [[], []];
  const nameA = balancers.serverName(serverA);
  for (let change = 0; change < Number(values.changes); change++) {
    await removeServer(balancers, nameA);
    let began = systemClock.monotonicMs();
    await balancers.addServer(request([]), serverA);
    await until("a server that was added answers", () => isAnswered(ports.strata));
    ours.push(systemClock.monotonicMs() - began);

    await reload(directory, hand, []);
    began = systemClock.monotonicMs();
    await reload(directory, hand, [ports.originA], async () => {
      await until("a server answers after a reload", () => isAnswered(ports.hand));
      reloads.push(systemClock.monotonicMs() - began);
    });
  }
  row("change to first answer, runtime API, ms: median, 95 %, worst", threeFigures(ours));
  row("change to first answer, reload by hand", threeFigures(reloads));
}

await onLoopback(async ({ directory, start }) => {
  const config = { namespace, runDir: join(directory, "run"), stateDir: join(directory, "state") };
  await mkdir(config.runDir, { recursive: true });
  const cgroups = await openCgroups({ clock: systemClock });
  const balancers = createBalancers({ config, cgroups, clock: systemClock });
  const file = new LogFile(balancers.logPath(uid), systemClock);
  const intake = new LogIntake(
    {
      onAccess: (record) => file.write(formatAccess(record, "origin")),
      onLatency: () => {},
      onNotice: () => {},
    },
    systemClock,
  );
  const holder = new Holder(systemClock, () => {});
  try {
    const channels = balancers.channels(uid);
    await Promise.all([intake.listen(channels.log), holder.listen(channels.holder)]);
    await start("origin", originConfig([ports.originA, ports.originB]));
    const hand = await start("hand", handConfig([ports.originA]), { mode: "-W" });
    await balancers.ensure(request([serverA]), never);
    for (const port of Object.values(ports)) await until(`port ${port} answers`, () => isAnswered(port));
    await cycles(balancers);
    await firstAnswer(balancers, directory, hand);
  } finally {
    await balancers.remove(uid);
    await cgroups.remove(namespace);
    holder.close();
    intake.close();
    balancers.close();
  }
});
