/** What the benches of balancers run: configurations as a person would write them, origins, wrk, and single requests. */
import { type ChildProcess, type StdioOptions, spawn } from "node:child_process";
import { once } from "node:events";
import { constants } from "node:fs";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { get } from "node:http";
import { loadavg, tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../src/core/clock.ts";
import { logDescriptor } from "../src/host/balancers/haproxy-config.ts";
import { run } from "../src/host/run.ts";

export interface HandWritten {
  port: number;
  origins: readonly number[];
  /** Where the log goes: to standard output, as a file; `one in 20` as Strata thins its own out. */
  log: "every request" | "one in 20" | "none";
}

/** For the same job as Strata's: the same headers, timeouts, retries, algorithm, checks and number of connections. */
export function handWritten({ port, origins, log }: HandWritten): string {
  const thinned = "http-request set-log-level silent if { fe_req_rate gt 2000 } { rand(20) gt 0 }";
  return `global
  maxconn 2000
  user haproxy
  group haproxy
${log === "none" ? "" : "  log stdout format raw local0 info"}
defaults
  mode http
${log === "none" ? "" : "  log global\n  option httplog\n  option dontlognull"}
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  timeout tunnel 1h
  timeout queue 30s
  timeout http-request 60s
  retries 3
  option redispatch 1
frontend front
  bind *:${port}
${log === "one in 20" ? `  ${thinned}` : ""}
  option forwardfor
  http-request set-header X-Forwarded-Proto http
  http-request set-header X-Forwarded-Port ${port}
  default_backend origins
backend origins
  balance leastconn
${origins.map((origin, index) => `  server s${index} 127.0.0.1:${origin} check inter 2s`).join("\n")}
`;
}

/** HAProxy that answers by itself. */
export function originConfig(ports: readonly number[]): string {
  const answer = "http-request return status 200 content-type text/plain string hello";
  const frontends = ports.map((port) => `frontend f${port}\n  bind 127.0.0.1:${port}\n  ${answer}\n`);
  return `global
  nbthread 1
defaults
  mode http
  timeout client 60s
${frontends.join("")}`;
}

export function configFile(directory: string, name: string): string {
  return join(directory, `${name}.cfg`);
}

/** Standard output, so a log written by hand, goes to a file beside the configuration; Strata's goes to `logPipe`. */
async function startHaproxy(
  directory: string,
  name: string,
  text: string,
  { mode = "-db", logPipe }: { mode?: "-db" | "-W"; logPipe?: string } = {},
): Promise<ChildProcess> {
  const file = configFile(directory, name);
  await writeFile(file, text);
  const log = await open(`${file}.log`, "a");
  const pipe =
    logPipe === undefined ? undefined : await open(logPipe, constants.O_RDWR | constants.O_NONBLOCK);
  const stdio: StdioOptions = ["ignore", log.fd, "ignore"];
  if (pipe) stdio[logDescriptor] = pipe.fd;
  const child = spawn("haproxy", [mode, "-f", file], { stdio: Array.from(stdio, (one) => one ?? "ignore") });
  await log.close();
  await pipe?.close();
  return child;
}

export interface Loopback {
  /** For files; gone at the end. */
  directory: string;
  /** HAProxy that ends at the end. Whether it answers is not waited for. */
  start: (
    name: string,
    text: string,
    options?: { mode?: "-db" | "-W"; logPipe?: string },
  ) => Promise<ChildProcess>;
}

/** Everything that a bench starts is ended after it; it begins and ends with the machine's load average. */
export async function onLoopback(measure: (loopback: Loopback) => Promise<void>): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "strata-balancer-bench-"));
  const children: ChildProcess[] = [];
  const load = () => loadavg()[0]?.toFixed(1) ?? "";
  const began = load();
  try {
    await measure({
      directory,
      start: async (name, text, options) => {
        const child = await startHaproxy(directory, name, text, options);
        children.push(child);
        return child;
      },
    });
    row("load average before and after", [began, load()]);
  } finally {
    await endAll(children);
    await rm(directory, { recursive: true, force: true });
  }
}

async function endAll(children: readonly ChildProcess[]): Promise<void> {
  const running = children.filter(({ exitCode, signalCode }) => exitCode === null && signalCode === null);
  const ended = running.map((child) => once(child, "exit"));
  for (const child of running) child.kill("SIGTERM");
  await Promise.all(ended);
}

export interface Load {
  requests: number;
  perSecond: number;
}

/** @throws when a request failed. */
export async function wrk(port: number, connections: number, forSeconds: number): Promise<Load> {
  const { stdout } = await run(
    "wrk",
    ["-t1", `-c${connections}`, `-d${forSeconds}s`, `http://127.0.0.1:${port}/`],
    { timeoutMs: (forSeconds + 30) * 1000 },
  );
  const errors = /Non-2xx.*|Socket errors.*/.exec(stdout)?.[0];
  if (errors) throw new Error(`port ${port}: ${errors}`);
  const number = (pattern: RegExp) => Number(pattern.exec(stdout)?.[1]);
  return {
    requests: number(/(\d+) requests in/),
    perSecond: number(/Requests\/sec:\s+([\d.]+)/),
  };
}

const answerTimeoutMs = 2_000;

/** Over a connection of its own. False: refused, broken, no 200, or no answer in time. */
export function isAnswered(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const signal = AbortSignal.timeout(answerTimeoutMs);
    get({ port, host: "127.0.0.1", agent: false, signal }, (response) => {
      const { statusCode } = response.resume();
      response.on("end", () => resolve(statusCode === 200)).on("error", () => resolve(false));
    }).on("error", () => resolve(false));
  });
}

/** @throws when it is not so within `boundMs`, with `what`. */
export async function until(what: string, isSo: () => Promise<boolean>, boundMs = 20_000): Promise<void> {
  const end = systemClock.monotonicMs() + boundMs;
  while (!(await isSo())) {
    if (systemClock.monotonicMs() > end) throw new Error(`${what}: not within ${boundMs} ms`);
    await systemClock.sleep(1);
  }
}

/** Of one line of a table. */
export function row(what: string, figures: readonly (number | string)[]): void {
  const shown = figures.map((figure) =>
    (typeof figure === "number" ? figure.toFixed(1) : figure).padStart(10),
  );
  console.log(`${what.padEnd(62)}${shown.join("")}`);
}
