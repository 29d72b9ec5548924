/**
 * Networks out of the kernel's parts: a namespace each, with a bridge, rules, and DHCP and DNS by dnsmasq.
 *
 * The world is the only record. Names and files follow from a network's uid, so after a crash at any line the next
 * `ensure` finds what is there and makes the rest, and the next `remove` takes away what is left. A healthy network is
 * recognised with one process (two, when the host's rules were not looked at for a while).
 *
 * Verbs on one network run one after the other, verbs on different networks side by side; the host's rules are shared
 * and changed by one at a time.
 */
import { chmod, chown, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { describeError, StrataError } from "../../core/errors.ts";
import { isUid } from "../../core/ids.ts";
import type { Logger } from "../../core/logger.ts";
import type { Cgroups } from "../cgroups.ts";
import type { HostConfig } from "../host-config.ts";
import { run } from "../run.ts";
import {
  chooseResolvFile,
  chooseServiceUser,
  renderDhcpConfig,
  renderDnsConfig,
  resolvFiles,
  type ServiceUser,
} from "./dnsmasq-config.ts";
import { HostRules } from "./host-rules.ts";
import { HostSysctls } from "./host-sysctls.ts";
import { formatRange } from "./ipv4.ts";
import { findConflict } from "./kernel-tables.ts";
import { KeyedLock } from "./keyed-lock.ts";
import { renderBridge, renderHostLinks, renderInnerLinks } from "./links.ts";
import { type Mending, planMending, type SeenNetwork, type ServiceRole, serviceRoles } from "./mending.ts";
import { NetworkEvents } from "./network-events.ts";
import {
  bridgeName,
  innerUplinkName,
  type NetworkNames,
  type NetworkPlan,
  netnsDirectory,
  networkNames,
  planNetwork,
  requireNamespace,
  uidOfNetns,
} from "./network-plan.ts";
import type { NetworkAttachment, NetworkRequest, Networks, Reservation } from "./networks.ts";
import {
  linkExists,
  mendInsideOf,
  observeNetns,
  observeUplink,
  outsideMtu,
  readHostRoutes,
} from "./observe.ts";
import { Reservations } from "./reservations.ts";
import { renderNetworkRules } from "./rules.ts";
import { runWithUs } from "./run-with-us.ts";
import { NetworkServices, type ServiceConfig } from "./services.ts";

export interface NetworksOptions {
  config: Pick<HostConfig, "namespace" | "runDir">;
  cgroups: Cgroups;
  clock: Clock;
  logger: Logger;
  /** The host's address on every uplink; guests see the host as this. Default 100.64.0.1. */
  hostAddress?: string;
  /** How long the host's rules are believed to be in order once looked at. Default 5,000. */
  hostRecheckMs?: number;
  /** How long releases are collected before the DHCP process is restarted. Default 200. */
  forgetAfterMs?: number;
}

export interface KernelNetworks extends Networks {
  /** Takes away all networks and whatever an interrupted removal left on the host. For uninstalling. */
  removeEverything(signal: AbortSignal): Promise<void>;
  /** Stops watching; the networks stay. */
  close(): void;
}

const defaultHostAddress = "100.64.0.1";
const maxRounds = 3;
const hostKey = "host";

/** @throws Invalid when the namespace of `config` cannot be part of names on the host. */
export function createNetworks(options: NetworksOptions): KernelNetworks {
  requireNamespace(options.config.namespace);
  return new LinuxNetworks(options);
}

class LinuxNetworks implements KernelNetworks {
  readonly #options: NetworksOptions;
  readonly #directory: string;
  readonly #locks = new KeyedLock();
  readonly #rules: HostRules;
  readonly #sysctls: HostSysctls;
  readonly #services: NetworkServices;
  readonly #events: NetworkEvents;
  /** Networks made or mended by this process, as they were wanted last. */
  readonly #plans = new Map<string, NetworkPlan>();
  readonly #rulesAsMade = new Map<string, string>();
  /** Networks whose DHCP process is to be restarted soon; each with what calls that off. */
  readonly #forgetting = new Map<string, () => void>();
  #user: ServiceUser | undefined;

  constructor(options: NetworksOptions) {
    const { config, cgroups, clock, logger } = options;
    this.#options = options;
    this.#directory = join(config.runDir, "networks");
    const recheckMs = options.hostRecheckMs ?? 5_000;
    this.#rules = new HostRules({ namespace: config.namespace, clock, logger, recheckMs });
    this.#sysctls = new HostSysctls(this.#directory);
    this.#services = new NetworkServices(cgroups);
    this.#events = new NetworkEvents(cgroups, clock);
  }

  async ensure(request: NetworkRequest, signal: AbortSignal): Promise<NetworkAttachment> {
    return await this.#locks.run(request.uid, async () => {
      const hostRoutes = await readHostRoutes();
      const plan = planNetwork(this.#options.config, request, {
        hostAddress: this.#options.hostAddress ?? defaultHostAddress,
        mtu: await outsideMtu(hostRoutes),
      });
      const conflict = findConflict(hostRoutes, plan.range, plan.uplink);
      if (conflict) throw conflictError(plan, conflict.device, formatRange(conflict.range));
      this.#plans.set(plan.uid, plan);
      await this.#ensureHost(signal);
      await this.#makeDirectory(plan);
      await this.#mendUntilHealthy(plan, signal);
      return {
        netns: plan.netnsPath,
        bridge: bridgeName,
        mtu: plan.mtu,
        prefixLength: plan.range.prefixLength,
        gateway: plan.gateway,
      };
    });
  }

  async reserve(network: string, reservation: Reservation): Promise<void> {
    const names = this.#names(network);
    await this.#locks.run(network, async () => {
      await this.#makeDirectory(names);
      if (await new Reservations(names.directory).put(reservation)) await this.#restartDhcp(network);
    });
  }

  async release(network: string, guestUid: string): Promise<void> {
    const names = this.#names(network);
    await this.#locks.run(network, async () => {
      const reservations = new Reservations(names.directory);
      await reservations.remove(guestUid);
      if ((await reservations.forgotten()).length > 0) this.#forgetSoon(network);
    });
  }

  async remove(uid: string, signal: AbortSignal): Promise<void> {
    const names = this.#names(uid);
    await this.#locks.run(uid, async () => {
      this.#events.unwatch(uid);
      this.#rulesAsMade.delete(uid);
      await this.#services.remove(names);
      await removeLinks(names, signal);
      await rm(names.directory, { recursive: true, force: true });
      this.#plans.delete(uid);
      await this.#locks.run(hostKey, async () => {
        if (this.#plans.size > 0 || (await this.list()).length > 0) return;
        await this.#rules.remove(signal);
        await this.#sysctls.restore();
      });
    });
  }

  async list(): Promise<string[]> {
    const { namespace } = this.#options.config;
    const found = new Set<string>();
    for (const file of await readDirectory(netnsDirectory)) {
      const uid = uidOfNetns(namespace, file);
      if (uid !== undefined) found.add(uid);
    }
    for (const name of await readDirectory(this.#directory)) if (isUid(name)) found.add(name);
    return [...found].sort();
  }

  events(signal: AbortSignal): AsyncIterable<{ uid: string }> {
    return this.#events.read(signal);
  }

  async removeEverything(signal: AbortSignal): Promise<void> {
    for (const uid of await this.list()) await this.remove(uid, signal);
    await this.#locks.run(hostKey, async () => {
      await this.#rules.remove(signal);
      await this.#sysctls.restore();
    });
    await rm(this.#directory, { recursive: true, force: true });
  }

  close(): void {
    for (const cancel of this.#forgetting.values()) cancel();
    this.#forgetting.clear();
    this.#events.close();
  }

  #names(uid: string): NetworkNames {
    return networkNames(this.#options.config, uid);
  }

  async #ensureHost(signal: AbortSignal): Promise<void> {
    await this.#locks.run(hostKey, async () => {
      await this.#sysctls.ensure();
      await this.#rules.ensure(signal);
    });
  }

  /** dnsmasq reads it as an unprivileged user; nobody else needs to. */
  async #makeDirectory(names: NetworkNames): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o711 });
    for (const path of [dirname(this.#directory), this.#directory]) {
      const { mode } = await stat(path);
      if ((mode & 0o001) === 0) await chmod(path, (mode & 0o7777) | 0o011);
    }
    await mkdir(names.directory, { recursive: true, mode: 0o750 });
    await chown(names.directory, 0, (await this.#serviceUser()).gid);
    await new Reservations(names.directory).makeDirectories();
  }

  async #serviceUser(): Promise<ServiceUser> {
    if (this.#user) return this.#user;
    const [passwd, group] = await Promise.all([
      readFile("/etc/passwd", "utf8"),
      readFile("/etc/group", "utf8"),
    ]);
    this.#user = chooseServiceUser(passwd, group);
    if (this.#user) return this.#user;
    throw new StrataError(
      "Unavailable",
      "networks need the user dnsmasq or nobody on the host; /etc/passwd has neither",
    );
  }

  async #mendUntilHealthy(plan: NetworkPlan, signal: AbortSignal): Promise<void> {
    const configs = await this.#serviceConfigs(plan);
    let wrong: string[] = [];
    for (let round = 0; round < maxRounds; round++) {
      const seen = await this.#observe(plan, configs, signal);
      const mending = planMending(plan, seen, this.#rulesAsMade.get(plan.uid));
      if (mending.wrong.length === 0) return await this.#watch(plan);
      wrong = mending.wrong;
      this.#options.logger.debug({ network: plan.uid, wrong }, "mending a network");
      this.#events.unwatch(plan.uid);
      await this.#mend(plan, configs, mending, signal);
    }
    throw new StrataError(
      "Unavailable",
      `network ${plan.uid} (${plan.cidr}) could not be made: ${wrong.join(", ")}; something on the host may be taking its parts away`,
    );
  }

  /** A process that died before it was watched is noticed here. */
  async #watch(plan: NetworkPlan): Promise<void> {
    this.#events.watch(plan);
    for (const role of serviceRoles) {
      if (await this.#services.isRunning(plan, role)) continue;
      this.#events.unwatch(plan.uid);
      this.#events.hint(plan.uid);
    }
  }

  async #serviceConfigs(plan: NetworkPlan): Promise<Record<ServiceRole, ServiceConfig>> {
    const user = await this.#serviceUser();
    const files = resolvFiles.map(async (path) => ({
      path,
      text: await readFile(path, "utf8").catch(() => ""),
    }));
    const resolvFile = chooseResolvFile(await Promise.all(files));
    if (resolvFile === undefined) {
      this.#options.logger.warn(
        { network: plan.uid },
        `guests cannot resolve names of the outside: none of ${resolvFiles.join(", ")} names a DNS server that is not on the host's loopback`,
      );
    }
    return {
      dns: { role: "dns", text: renderDnsConfig(plan, user, resolvFile) },
      dhcp: { role: "dhcp", text: renderDhcpConfig(plan, user) },
    };
  }

  async #observe(
    plan: NetworkPlan,
    configs: Record<ServiceRole, ServiceConfig>,
    signal: AbortSignal,
  ): Promise<SeenNetwork> {
    const [netns, uplink, hostRoutes, dns, dhcp, forgotten] = await Promise.all([
      observeNetns(plan, signal),
      observeUplink(plan),
      readHostRoutes(),
      this.#services.find(plan, configs.dns),
      this.#services.find(plan, configs.dhcp),
      new Reservations(plan.directory).forgotten(),
    ]);
    return {
      netns,
      uplink,
      hostRoutes,
      services: { ...(dns && { dns }), ...(dhcp && { dhcp }) },
      forgotten: forgotten.length > 0,
    };
  }

  async #mend(
    plan: NetworkPlan,
    configs: Record<ServiceRole, ServiceConfig>,
    mending: Mending,
    signal: AbortSignal,
  ): Promise<void> {
    if (mending.dropInnerUplink) {
      await run("ip", ["-n", plan.netns, "link", "del", "dev", innerUplinkName], { signal });
    }
    if (mending.hostLinks) {
      if (mending.hostLinks.netns !== "there") await rm(plan.netnsPath, { force: true });
      await runWithUs("ip", ["-batch", "-"], { input: renderHostLinks(plan, mending.hostLinks), signal });
      await disableIpv6(plan.uplink);
    }
    if (mending.inside) {
      await writeFile(join(plan.directory, "bridge.ip"), renderBridge(plan));
      await writeFile(join(plan.directory, "links.ip"), renderInnerLinks(plan, mending.inside.ports));
      await writeFile(join(plan.directory, "rules.nft"), renderNetworkRules(plan));
      this.#rulesAsMade.set(plan.uid, (await mendInsideOf(plan, signal)).rules);
    }
    const reservations = new Reservations(plan.directory);
    const forgotten = await reservations.forgotten();
    await Promise.all(mending.restart.map((role) => this.#services.restart(plan, configs[role], signal)));
    if (mending.restart.includes("dhcp")) await reservations.clearForgotten(forgotten);
  }

  #forgetSoon(network: string): void {
    if (this.#forgetting.has(network)) return;
    const delayMs = this.#options.forgetAfterMs ?? 200;
    const cancel = this.#options.clock.after(delayMs, () => {
      this.#forgetting.delete(network);
      void this.#forget(network);
    });
    this.#forgetting.set(network, cancel);
  }

  async #forget(network: string): Promise<void> {
    try {
      await this.#locks.run(network, async () => {
        const { directory } = this.#names(network);
        if ((await new Reservations(directory).forgotten()).length > 0) await this.#restartDhcp(network);
      });
    } catch (cause) {
      // The next `ensure` sees the same files and does the same.
      this.#options.logger.warn({ network, cause: describeError(cause) }, "cannot restart DHCP");
      this.#events.hint(network);
    }
  }

  /** A network that this process has not made or mended yet is left to `ensure`. */
  async #restartDhcp(network: string): Promise<void> {
    const plan = this.#plans.get(network);
    if (!plan || !(await this.#services.isRunning(plan, "dhcp"))) return;
    const { dhcp } = await this.#serviceConfigs(plan);
    const reservations = new Reservations(plan.directory);
    const forgotten = await reservations.forgotten();
    this.#events.unwatch(network);
    await this.#services.restart(plan, dhcp, AbortSignal.timeout(30_000));
    await reservations.clearForgotten(forgotten);
    await this.#watch(plan);
  }
}

/** Namespaces are taken apart later by the kernel, links at once: the host's end goes first, so that none is left. */
async function removeLinks(names: NetworkNames, signal: AbortSignal): Promise<void> {
  for (let round = 0; ; round++) {
    const lines: string[] = [];
    if (await linkExists(names.uplink)) lines.push(`link del dev ${names.uplink}`);
    const { state } = await observeName(names);
    if (state === "there") lines.push(`netns del ${names.netns}`);
    if (lines.length === 0) return;
    try {
      await run("ip", ["-batch", "-"], { input: `${lines.join("\n")}\n`, signal });
    } catch (cause) {
      // The link may be going away by itself, with a namespace whose name somebody removed.
      if (round === maxRounds) throw cause;
    }
  }
}

async function observeName(names: NetworkNames): Promise<{ state: "there" | "absent" }> {
  const found = await stat(names.netnsPath).catch(() => undefined);
  return { state: found ? "there" : "absent" };
}

async function disableIpv6(link: string): Promise<void> {
  await writeFile(`/proc/sys/net/ipv6/conf/${link}/disable_ipv6`, "1").catch(() => {}); // a kernel without IPv6
}

async function readDirectory(path: string): Promise<string[]> {
  return await readdir(path).catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === "ENOENT") return [];
    throw cause;
  });
}

function conflictError(plan: NetworkPlan, device: string, range: string): StrataError {
  const holder = device === "*" ? "a route that refuses" : `the interface ${device}`;
  return new StrataError(
    "Conflict",
    `network ${plan.uid} cannot use ${plan.cidr}: the host already routes ${range} to ${holder}; give the network another range`,
  );
}
