/**
 * HAProxy as Strata configures and drives it, beside a configuration written by hand: throughput in turns, servers that
 * come and go under load, and how soon a new server gets its first request. Everything is on loopback; the origins are
 * HAProxies that answer by themselves. Needs root, haproxy and wrk.
 *
 *   node bench/balancer.ts [--rounds 10] [--seconds 4] [--cycles 500] [--changes 20]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { formatAccess } from "../src/agent/balancers/access-log.ts";
import { LogFile } from "../src/agent/balancers/log-file.ts";
import { LogIntake } from "../src/agent/balancers/log-intake.ts";
import { systemClock } from "../src/core/clock.ts";
import { systemRandom } from "../src/core/random.ts";
import type { BalancerRequest, ServerRequest } from "../src/host/balancers/balancers.ts";
import { createBalancers } from "../src/host/balancers/haproxy-balancers.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { run } from "../src/host/run.ts";
import { loadBalancerSpecSchema } from "../src/kinds/load-balancer.ts";
import { median, percentile, speedUp } from "./statistics.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "10" },
    seconds: { type: "string", default: "4" },
    cycles: { type: "string", default: "500" },
    changes: { type: "string", default: "20" },
  },
});
const seconds = Number(values.seconds);
const ports = { strata: 18_080, hand: 18_081, originA: 18_082, originB: 18_083 };
const namespace = "lbbench";
const uid = "0000000000000000";
const directory = await mkdtemp(join(tmpdir(), "strata-balancer-bench-"));
const never = new AbortController().signal;
const cgroups = await openCgroups({ clock: systemClock });
const config = { namespace, runDir: join(directory, "run"), stateDir: join(directory, "state") };
const balancers = createBalancers({ config, cgroups, clock: systemClock });

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

/** As a person would write it for the same task, logging to a file. */
function handWritten(servers: readonly number[]): string {
  return `global
  maxconn 2000
  log stdout format raw local0 info
defaults
  mode http
  log global
  option httplog
  option forwardfor
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend front
  bind *:${ports.hand}
  http-request set-header X-Forwarded-Proto http
  default_backend origins
backend origins
  balance leastconn
${servers.map((port, index) => `  server s${index} 127.0.0.1:${port} check`).join("\n")}
`;
}

function originConfig(): string {
  const answer = "http-request return status 200 content-type text/plain string hello";
  const frontend = (port: number) => `frontend f${port}\n  bind 127.0.0.1:${port}\n  ${answer}\n`;
  return `global
  nbthread 1
defaults
  mode http
  timeout client 60s
${frontend(ports.originA)}${frontend(ports.originB)}`;
}

async function startHaproxy(name: string, text: string): Promise<ChildProcess> {
  const file = join(directory, `${name}.cfg`);
  await writeFile(file, text);
  const log = await open(join(directory, `${name}.log`), "a");
  const child = spawn("haproxy", ["-W", "-f", file], { stdio: ["ignore", log.fd, "ignore"] });
  await log.close();
  return child;
}

/** Requests a second. @throws when one failed. */
async function wrk(port: number, forSeconds: number): Promise<number> {
  const { stdout } = await run("wrk", ["-t1", "-c32", `-d${forSeconds}s`, `http://127.0.0.1:${port}/`], {
    timeoutMs: (forSeconds + 30) * 1000,
  });
  const errors = /Non-2xx.*|Socket errors.*/.exec(stdout)?.[0];
  if (errors) throw new Error(`port ${port}: ${errors}`);
  return Number(/Requests\/sec:\s+([\d.]+)/.exec(stdout)?.[1]);
}

function isAnswered(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    get({ port, host: "127.0.0.1", agent: false }, (response) => {
      response.resume().on("end", () => resolve(response.statusCode === 200));
    }).on("error", () => resolve(false));
  });
}

async function untilAnswered(port: number): Promise<number> {
  const began = systemClock.monotonicMs();
  while (!(await isAnswered(port))) await systemClock.sleep(1);
  return systemClock.monotonicMs() - began;
}

function row(what: string, figures: readonly (number | string)[]): void {
  const shown = figures.map((figure) =>
    (typeof figure === "number" ? figure.toFixed(1) : figure).padStart(10),
  );
  console.log(`${what.padEnd(52)}${shown.join("")}`);
}

async function throughput(): Promise<void> {
  const [ours, hand]: [number[], number[]] = [[], []];
  for (let round = 0; round < Number(values.rounds); round++) {
    ours.push(await wrk(ports.strata, seconds));
    hand.push(await wrk(ports.hand, seconds));
  }
  row("requests a second, Strata's configuration", [median(ours)]);
  row("requests a second, by hand", [median(hand)]);
  // speedUp takes times, smaller is faster.
  const times = (rates: number[]) => rates.map((rate) => 1 / rate);
  const { ratio, low, high } = speedUp(times(ours), times(hand), systemRandom);
  row("ratio, Strata's over by hand (95 % interval)", [ratio.toFixed(3), low.toFixed(3), high.toFixed(3)]);
}

/** Each cycle adds a server, drains it, and takes it away when it is idle. */
async function cycles(): Promise<void> {
  const count = Number(values.cycles);
  const abort = new AbortController();
  const load = (async () => {
    let rounds = 0;
    let total = 0;
    while (!abort.signal.aborted) {
      total += (await wrk(ports.strata, 2)) * 2;
      rounds++;
    }
    return { rounds, total };
  })();
  const name = balancers.serverName(serverB);
  const times: number[] = [];
  const began = systemClock.monotonicMs();
  for (let cycle = 0; cycle < count; cycle++) {
    const at = systemClock.monotonicMs();
    await balancers.addServer(request([serverA]), serverB);
    times.push(systemClock.monotonicMs() - at);
    await systemClock.sleep(10);
    await balancers.drainServer(uid, name);
    while (!(await balancers.removeServer(uid, name))) await systemClock.sleep(2);
  }
  const elapsed = (systemClock.monotonicMs() - began) / 1000;
  abort.abort();
  const { total } = await load;
  row(`${count} cycles of adding and draining, errors`, ["0"]);
  row("  requests meanwhile, seconds", [String(Math.round(total)), elapsed]);
  row("  time to add a server, ms: median, 95 %, worst", [
    median(times),
    percentile(times, 0.95),
    Math.max(...times),
  ]);
}

/** From the wish until a request is answered by a server where there was none. */
async function firstByte(hand: ChildProcess): Promise<void> {
  const [ours, reloads]: [number[], number[]] = [[], []];
  const nameA = balancers.serverName(serverA);
  for (let change = 0; change < Number(values.changes); change++) {
    await balancers.drainServer(uid, nameA);
    while (!(await balancers.removeServer(uid, nameA))) await systemClock.sleep(2);
    let began = systemClock.monotonicMs();
    await balancers.addServer(request([]), serverA);
    await untilAnswered(ports.strata);
    ours.push(systemClock.monotonicMs() - began);

    await writeFile(join(directory, "hand.cfg"), handWritten([]));
    hand.kill("SIGUSR2");
    while (await isAnswered(ports.hand)) await systemClock.sleep(1);
    began = systemClock.monotonicMs();
    await writeFile(join(directory, "hand.cfg"), handWritten([ports.originA]));
    hand.kill("SIGUSR2");
    await untilAnswered(ports.hand);
    reloads.push(systemClock.monotonicMs() - began);
  }
  const figures = (times: number[]) => [median(times), percentile(times, 0.95), Math.max(...times)];
  row("change to first answer, runtime API, ms: median, 95 %, worst", figures(ours));
  row("change to first answer, reload by hand", figures(reloads));
}

await mkdir(config.runDir, { recursive: true });
const file = new LogFile(balancers.logPath(uid), systemClock);
const intake = new LogIntake(
  {
    onAccess: (record) => file.write(formatAccess(record, "origin")),
    onNotice: () => {},
  },
  systemClock,
);
const children: ChildProcess[] = [];
try {
  await intake.listen(balancers.sockets(uid).log);
  children.push(await startHaproxy("origin", originConfig()));
  const hand = await startHaproxy("hand", handWritten([ports.originA]));
  children.push(hand);
  await balancers.ensure(request([serverA]), never);
  await Promise.all([untilAnswered(ports.strata), untilAnswered(ports.hand)]);
  await throughput();
  await cycles();
  await firstByte(hand);
} finally {
  await balancers.remove(uid);
  await cgroups.remove(namespace);
  const ended = children.map((child) => once(child, "exit"));
  for (const child of children) child.kill("SIGTERM");
  await Promise.all(ended);
  intake.close();
  balancers.close();
  await rm(directory, { recursive: true, force: true });
}
