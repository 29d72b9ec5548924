/**
 * Balancers as HAProxy processes in master-worker mode: the master keeps the sockets and is root, the worker that meets
 * clients is chrooted and nobody. Each pair is in a control group of its own, which tells whose processes are ours after
 * a restart of the daemon, and when they end.
 */
import { X509Certificate } from "node:crypto";
import {
  chmod,
  mkdir,
  mkdtempDisposable,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import type { LoadBalancerSpec } from "../../kinds/load-balancer.ts";
import type { Cgroups } from "../cgroups.ts";
import type { HostConfig } from "../host-config.ts";
import { runWithUs } from "../networks/run-with-us.ts";
import { run } from "../run.ts";
import type {
  BalancerRequest,
  BalancerStatistics,
  Balancers,
  SeenBalancer,
  ServerRequest,
} from "./balancers.ts";
import {
  type BalancerPaths,
  backendName,
  balancerPaths,
  type ConfigOptions,
  certificateFile,
  isLarge,
  largeCertificates,
  logDescriptor,
  renderConfig,
  serverName,
  serverParameters,
  structureDigest,
} from "./haproxy-config.ts";
import { ensureLogPipe } from "./log-pipe.ts";
import { RuntimeApi } from "./runtime-api.ts";
import {
  parseConnections,
  parseDescription,
  parseFingerprint,
  parseMap,
  parseServers,
  parseStatistics,
} from "./runtime-texts.ts";

export interface HaproxyOptions {
  config: Pick<HostConfig, "namespace" | "runDir" | "stateDir">;
  cgroups: Cgroups;
  clock: Clock;
}

/** Enters the control groups, then becomes the program with the log's pipe; as for the DNS processes of networks. */
const enterGroups = `
n=$1; shift
while [ "$n" -gt 0 ]; do echo 0 >"$1" || exit 71; shift; n=$((n - 1)); done
log=$1; shift
exec "$@" ${logDescriptor}<>"$log"`;

const startTimeoutMs = 20_000;
const lookEveryMs = 5;
const processes = 256;
const groupPrefix = "lb-";

/** With and without TLS buffers, and twice during a reload. */
function memoryMib(spec: LoadBalancerSpec): number {
  return 256 + Math.ceil(spec.maxConnections * 0.15);
}

export function createBalancers(options: HaproxyOptions): Balancers {
  return new HaproxyBalancers(options);
}

class HaproxyBalancers implements Balancers {
  readonly #namespace: string;
  readonly #root: string;
  readonly #logs: string;
  readonly #cgroups: Cgroups;
  readonly #clock: Clock;
  readonly #apis = new Map<string, RuntimeApi>();
  readonly #watches = new Map<string, () => void>();
  readonly #ended = new Hints();
  readonly #locks = new KeyedLock();
  #ipv6: Promise<boolean> | undefined;
  #isIpv6 = false;

  constructor({ config, cgroups, clock }: HaproxyOptions) {
    this.#namespace = config.namespace;
    this.#root = join(config.runDir, "balancers");
    this.#logs = join(config.stateDir, "balancer-logs");
    this.#cgroups = cgroups;
    this.#clock = clock;
  }

  structureOf(request: BalancerRequest): string {
    return structureDigest(request.spec, this.#configOptions(request));
  }

  serverName(server: ServerRequest): string {
    return serverName(server);
  }

  async observe(uid: string): Promise<SeenBalancer | undefined> {
    await this.#knowIpv6();
    const pids = await this.#cgroups.pids(this.#group(uid));
    if (pids.length === 0) return undefined;
    this.#watch(uid);
    try {
      return await this.#ask(uid, pids.length);
    } catch (error) {
      if (hasCode(error, "Unavailable") || hasCode(error, "Timeout")) return undefined;
      throw error;
    }
  }

  async #ask(uid: string, processes: number): Promise<SeenBalancer> {
    const api = this.#api(uid);
    const paths = this.#paths(uid);
    const structure = parseDescription(await api.ask("show info"));
    const states = await api.ask(`show servers state ${backendName}`);
    const stats = await api.ask(`show stat ${backendName} 4 -1`);
    const connections = await api.ask(`show servers conn ${backendName}`);
    // A worker from before a reload does not answer here, but the kernel knows its connections.
    const others = processes > 2 ? parseConnections(await readFile("/proc/net/tcp", "utf8")) : undefined;
    const certificates = new Map<string, string>();
    for (const file of await readdir(paths.certificates).catch(() => [])) {
      if (!file.endsWith(".pem")) continue;
      const path = join(paths.certificates, file);
      const pem = await readFile(path, "utf8");
      // That it has this content, and not an older one, is told by the structure.
      const print = isLarge(pem)
        ? new X509Certificate(pem).fingerprint.replaceAll(":", "")
        : parseFingerprint(await api.ask(`show ssl cert ${path}`));
      if (print !== "") certificates.set(file.slice(0, -4), print);
    }
    return {
      structure,
      servers: parseServers(states, stats, connections, others),
      certificates,
      challenges: parseMap(await api.ask(`show map ${paths.challenges}`)),
    };
  }

  async ensure(request: BalancerRequest, signal: AbortSignal): Promise<void> {
    await this.#locks.run(request.uid, () => this.#ensure(request, signal));
  }

  async #ensure(request: BalancerRequest, signal: AbortSignal): Promise<void> {
    const { uid, spec } = request;
    await this.#knowIpv6();
    const paths = this.#paths(uid);
    const digest = this.structureOf(request);
    const master = await this.#masterOf(uid);
    await this.#checkPorts(
      spec,
      master === undefined ? "" : await readFile(paths.config, "utf8").catch(() => ""),
    );
    await this.#writeFiles(paths, request);
    const next = `${paths.config}.next`;
    await writeFile(next, renderConfig(spec, request.servers, this.#configOptions(request)), { mode: 0o600 });
    await checkConfig(next, signal);
    await rename(next, paths.config);
    await this.#cgroups.ensure(this.#group(uid), { memoryMib: memoryMib(spec), processes });
    if (master === undefined) {
      await this.#cgroups.kill(this.#group(uid)); // what is left of an earlier one
      await this.#start(uid, paths, [], signal);
    } else if (await hasLog(master, paths)) process.kill(master, "SIGUSR2");
    else await this.#start(uid, paths, ["-x", paths.admin, "-sf", String(master)], signal);
    this.#api(uid).close();
    await this.#awaitStructure(uid, digest, signal);
    this.#watch(uid);
  }

  async #start(
    uid: string,
    paths: BalancerPaths,
    more: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const procs = this.#cgroups.procsFiles(this.#group(uid));
    await runWithUs(
      "sh",
      [
        ...["-c", enterGroups, "sh", String(procs.length), ...procs, paths.log],
        ...["haproxy", "-W", "-D", "-p", paths.pid, "-f", paths.config, ...more],
      ],
      { signal, timeoutMs: startTimeoutMs },
    );
  }

  async #awaitStructure(uid: string, digest: string, signal: AbortSignal): Promise<void> {
    const end = this.#clock.monotonicMs() + startTimeoutMs;
    for (;;) {
      signal.throwIfAborted();
      const api = this.#api(uid);
      const info = await api.ask("show info").catch(() => "");
      if (parseDescription(info) === digest) return;
      api.close();
      if (this.#clock.monotonicMs() > end) {
        throw new StrataError(
          "Timeout",
          `HAProxy did not take its configuration over within ${startTimeoutMs} ms`,
        );
      }
      await this.#clock.sleep(lookEveryMs, signal);
    }
  }

  async #writeFiles(paths: BalancerPaths, { certificates, challenges }: BalancerRequest): Promise<void> {
    await mkdir(paths.directory, { recursive: true, mode: 0o700 });
    // Whoever listens for it was here first. No program of the host's other users may reach what is in it.
    await chmod(paths.directory, 0o700);
    await ensureLogPipe(paths.log);
    await mkdir(paths.certificates, { recursive: true, mode: 0o700 });
    await mkdir(paths.jail, { recursive: true, mode: 0o755 });
    await chmod(paths.jail, 0o755);
    const wanted = new Set([...certificates.keys()].map((name) => certificateFile(paths, name)));
    for (const file of await readdir(paths.certificates)) {
      const path = join(paths.certificates, file);
      if (!wanted.has(path)) await rm(path);
    }
    for (const [name, pem] of certificates) await replaceFile(certificateFile(paths, name), pem);
    await replaceFile(paths.challenges, mapText(challenges));
  }

  /** HAProxy would only say so in its own log. @throws Conflict */
  async #checkPorts(spec: LoadBalancerSpec, current: string): Promise<void> {
    for (const { port } of spec.listeners) {
      if (new RegExp(`^  bind \\*:${port}\\b`, "m").test(current)) continue;
      if (await isFree(port)) continue;
      throw new StrataError(
        "Conflict",
        `port ${port} of the host is in use by another program; end that program, or choose another port`,
      );
    }
  }

  async addServer({ uid, spec }: BalancerRequest, server: ServerRequest): Promise<void> {
    const api = this.#api(uid);
    const name = `${backendName}/${serverName(server)}`;
    const answer = await api.ask(`add server ${name} ${serverParameters(spec, server)}`);
    if (!/registered|already exists/i.test(answer)) throw refused(`add server ${name}`, answer);
    await api.ask(`enable health ${name}`);
    await this.#setState(uid, serverName(server), "ready");
  }

  drainServer(uid: string, name: string): Promise<void> {
    return this.#setState(uid, name, "maint");
  }

  resumeServer(uid: string, name: string): Promise<void> {
    return this.#setState(uid, name, "ready");
  }

  async removeServer(uid: string, name: string): Promise<boolean> {
    const answer = await this.#api(uid).ask(`del server ${backendName}/${name}`);
    return /deleted|no such server/i.test(answer);
  }

  async #setState(uid: string, name: string, state: "ready" | "maint"): Promise<void> {
    const command = `set server ${backendName}/${name} state ${state}`;
    const answer = await this.#api(uid).ask(command);
    if (answer !== "") throw refused(command, answer);
  }

  async setCertificate(uid: string, name: string, pem: string): Promise<void> {
    const file = certificateFile(this.#paths(uid), name);
    const api = this.#api(uid);
    // The file first: a reload or a restart reads it.
    await replaceFile(file, pem);
    const text = pem.replaceAll(/\r?\n(?:\s*\n)*/g, "\n").trim();
    const set = await api.ask(`set ssl cert ${file} <<\n${text}\n`);
    if (!/transaction (?:created|updated)/i.test(set)) throw refused(`take over certificate "${name}"`, set);
    const commit = await api.ask(`commit ssl cert ${file}`);
    if (!/success/i.test(commit)) {
      await api.ask(`abort ssl cert ${file}`);
      throw refused(`take over certificate "${name}"`, commit);
    }
  }

  async setChallenges(uid: string, challenges: ReadonlyMap<string, string>): Promise<void> {
    const file = this.#paths(uid).challenges;
    const api = this.#api(uid);
    await replaceFile(file, mapText(challenges));
    const present = parseMap(await api.ask(`show map ${file}`));
    for (const [token] of present) {
      if (!challenges.has(token)) await api.ask(`del map ${file} ${token}`);
    }
    for (const [token, answer] of challenges) {
      if (present.get(token) === answer) continue;
      await api.ask(`${present.has(token) ? "set" : "add"} map ${file} ${token} ${answer}`);
    }
  }

  async statistics(uid: string): Promise<BalancerStatistics[]> {
    return parseStatistics(await this.#api(uid).ask("show stat -1 6 -1"));
  }

  async remove(uid: string): Promise<void> {
    await this.#locks.run(uid, async () => {
      this.#watches.get(uid)?.();
      this.#watches.delete(uid);
      this.#apis.get(uid)?.close();
      this.#apis.delete(uid);
      await this.#cgroups.kill(this.#group(uid));
      await this.#cgroups.remove(this.#group(uid));
      await rm(this.#paths(uid).directory, { recursive: true, force: true });
      for (const file of [this.logPath(uid), `${this.logPath(uid)}.1`]) await rm(file, { force: true });
    });
  }

  async list(): Promise<string[]> {
    const groups = await this.#cgroups.list(this.#namespace);
    const found = new Set(
      groups.filter((name) => name.startsWith(groupPrefix)).map((name) => name.slice(groupPrefix.length)),
    );
    for (const name of await readdir(this.#root).catch(() => [])) if (!name.startsWith(".")) found.add(name);
    return [...found];
  }

  events(signal: AbortSignal): AsyncIterable<string> {
    return this.#ended.keys(signal);
  }

  channels(uid: string): { holder: string; log: string } {
    const { holder, log } = this.#paths(uid);
    return { holder, log };
  }

  logPath(uid: string): string {
    return join(this.#logs, `${uid}.log`);
  }

  async placeholder(): Promise<string> {
    await mkdir(this.#root, { recursive: true, mode: 0o700 });
    await using directory = await mkdtempDisposable(join(this.#root, ".placeholder-"));
    const file = join(directory.path, "pem");
    const algorithm = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    const subject = ["-subj", "/CN=no certificate yet", "-days", "3650"];
    await run("openssl", ["req", "-x509", ...algorithm, ...subject, "-keyout", file, "-out", `${file}.crt`]);
    return (await readFile(`${file}.crt`, "utf8")) + (await readFile(file, "utf8"));
  }

  close(): void {
    for (const end of this.#watches.values()) end();
    for (const api of this.#apis.values()) api.close();
  }

  #watch(uid: string): void {
    if (this.#watches.has(uid)) return;
    const end = this.#cgroups.watch(this.#group(uid), (populated) => {
      if (!populated) this.#ended.hint(uid);
    });
    this.#watches.set(uid, end);
  }

  async #masterOf(uid: string): Promise<number | undefined> {
    const pids = await this.#cgroups.pids(this.#group(uid));
    const pid = Number((await readFile(this.#paths(uid).pid, "utf8").catch(() => "")).trim());
    return pids.includes(pid) ? pid : undefined;
  }

  async #knowIpv6(): Promise<void> {
    // Empty where it is switched off.
    this.#ipv6 ??= readFile("/proc/net/if_inet6", "utf8").then(
      (text) => text.trim() !== "",
      () => false,
    );
    this.#isIpv6 = await this.#ipv6;
  }

  #configOptions({ uid, certificates }: BalancerRequest): ConfigOptions {
    const large = largeCertificates(certificates);
    return { paths: this.#paths(uid), user: "haproxy", group: "haproxy", ipv6: this.#isIpv6, large };
  }

  #api(uid: string): RuntimeApi {
    const known = this.#apis.get(uid);
    if (known) return known;
    const api = new RuntimeApi(this.#paths(uid).admin, this.#clock);
    this.#apis.set(uid, api);
    return api;
  }

  #paths(uid: string): BalancerPaths {
    return balancerPaths(this.#root, uid);
  }

  #group(uid: string): string {
    return `${this.#namespace}/${groupPrefix}${uid}`;
  }
}

function mapText(entries: ReadonlyMap<string, string>): string {
  return [...entries].map(([key, value]) => `${key} ${value}\n`).join("");
}

async function replaceFile(path: string, text: string): Promise<void> {
  await writeFile(`${path}.next`, text, { mode: 0o600 });
  await rename(`${path}.next`, path);
}

/**
 * False of one that an earlier version started, or whose pipe was taken away: a reload would log to whatever else has that
 * number. Another one takes its sockets over instead, and it ends once its connections have.
 */
async function hasLog(master: number, { log }: BalancerPaths): Promise<boolean> {
  return (await readlink(`/proc/${master}/fd/${logDescriptor}`).catch(() => "")) === log;
}

/** A reload with an error would go unnoticed. @throws Invalid with HAProxy's words. */
async function checkConfig(path: string, signal: AbortSignal): Promise<void> {
  const result = await runWithUs("haproxy", ["-c", "-q", "-f", path], {
    signal,
    timeoutMs: startTimeoutMs,
    expected: [0, 1],
  });
  if (result.status === 0) return;
  const detail = result.stderr.trim();
  const why = /\[ALERT\].*? : (.*)/.exec(detail)?.[1] ?? "no reason given";
  throw new StrataError("Invalid", `HAProxy refuses its configuration: ${why}`.slice(0, 500), { detail });
}

/** On all addresses. Nothing listens there afterwards. */
function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.on("error", () => resolve(false));
    server.listen({ port, host: "0.0.0.0", exclusive: true }, () => server.close(() => resolve(true)));
  });
}

function refused(what: string, answer: string): StrataError {
  return new StrataError("Internal", `HAProxy did not ${what}`, { detail: answer });
}
