/**
 * Networks out of the kernel's parts: a namespace each, with a bridge a subnet, rules, and DHCP and DNS by dnsmasq.
 *
 * The world is the only record. Names and files follow from a network's uid, so after a crash at any line the next
 * `ensure` finds what is there and makes the rest, and the next `remove` takes away what is left. A healthy network is
 * recognised by looking at it, with a handful of processes and without changing anything.
 *
 * Verbs on one network run one after the other, verbs on different networks side by side; the host's rules are shared
 * and changed by one at a time.
 */
import { chmod, chown, mkdir, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { describeError, StrataError } from "../../core/errors.ts";
import { isUid } from "../../core/ids.ts";
import { formatRange } from "../../core/ip-range.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import type { Logger } from "../../core/logger.ts";
import type { Cgroups } from "../cgroups.ts";
import type { HostConfig } from "../host-config.ts";
import { run } from "../run.ts";
import { NetworkCards } from "./cards.ts";
import {
  chooseResolvFile,
  chooseServiceUser,
  renderDhcpConfig,
  renderDnsConfig,
  resolvFiles,
  type ServiceUser,
  upstreamServers,
} from "./dnsmasq-config.ts";
import { HostRules } from "./host-rules.ts";
import { choosePair, hostFiles, makeHostSide, readPair, removeHostSide, sweepRules } from "./host-side.ts";
import { HostSysctls } from "./host-sysctls.ts";
import { findConflict } from "./kernel-tables.ts";
import { renderHostLinks, renderHostRoutes } from "./links.ts";
import { makePeeringLink, mendInside } from "./mend-inside.ts";
import { type Mending, planMending, type SeenNetwork, type ServiceRole, serviceRoles } from "./mending.ts";
import { NetworkEvents } from "./network-events.ts";
import {
  innerUplinkName,
  type NetworkNames,
  type NetworkPlan,
  netnsDirectory,
  networkNames,
  planNetwork,
  requireNamespace,
  uidOfNetns,
} from "./network-plan.ts";
import type { NetworkAttachment, NetworkPolicy, NetworkRequest, Networks } from "./networks.ts";
import { linkExists, netnsState, observeNetns, observeUplink, readHost, seenPair } from "./observe.ts";
import { attachmentOf, firewallNetwork, joinedPeerings } from "./placing.ts";
import { createNetworkFirewall, type NetworkFirewall } from "./policy/firewall.ts";
import { Reservations } from "./reservations.ts";
import type { PlacedNetwork } from "./routing.ts";
import { NetworkServices, type ServiceConfig } from "./services.ts";
import { pairOf, type UplinkPair } from "./uplink-pair.ts";

export interface NetworksOptions {
  config: Pick<HostConfig, "namespace" | "runDir">;
  cgroups: Cgroups;
  clock: Clock;
  logger: Logger;
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

/** A pair of addresses can be taken by another daemon, and a peer can go away, between looking and doing. */
const maxRounds = 5;
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
  readonly #cards = new NetworkCards();
  readonly #firewall: NetworkFirewall;
  /** Networks made or mended by this process, as they were wanted last. */
  readonly #plans = new Map<string, NetworkPlan>();
  readonly #pairs = new Map<string, UplinkPair>();
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
    const directory = join(config.runDir, "firewall");
    this.#firewall = createNetworkFirewall({ namespace: config.namespace, directory, clock, logger });
  }

  async ensure(request: NetworkRequest, signal: AbortSignal): Promise<NetworkAttachment> {
    const before = this.#plans.get(request.uid);
    const { network, changed } = await this.#locks.run(request.uid, async () => {
      const host = await readHost();
      const plan = planNetwork(this.#options.config, request, host);
      const conflict = plan.hostRoute ? findConflict(host.routes, plan.range, plan.uplink) : undefined;
      if (conflict) throw conflictError(plan, conflict.device, formatRange(conflict.range));
      this.#plans.set(plan.uid, plan);
      await this.#ensureHost(host.outsideDevices6, signal);
      await this.#makeDirectory(plan);
      return await this.#mendUntilHealthy(plan, signal);
    });
    if (changed) await this.#mendPeers([...(before?.peerings ?? []), ...network.peerings], signal);
    return attachmentOf(network);
  }

  async apply(uid: string, policy: NetworkPolicy, signal: AbortSignal): Promise<void> {
    await this.#locks.run(uid, async () => {
      const plan = this.#plans.get(uid);
      if (!plan) {
        throw new StrataError("NotFound", `network ${uid} is not on this host yet; nothing can join it`);
      }
      const { restart, forget } = await this.#cards.apply(plan, policy.cards, signal);
      if (restart) await this.#restartDhcp(uid);
      else if (forget) this.#forgetSoon(uid);
      await this.#firewall.apply(uid, policy, signal);
    });
  }

  async remove(uid: string, signal: AbortSignal): Promise<void> {
    const names = this.#names(uid);
    await this.#locks.run(uid, async () => {
      this.#events.unwatch(uid);
      this.#plans.delete(uid);
      await this.#firewall.remove(uid, signal);
      await this.#services.remove(names);
      await removeHostSide(names, signal);
      await rm(names.directory, { recursive: true, force: true });
      this.#cards.drop(uid);
      this.#pairs.delete(uid);
      await this.#locks.run(hostKey, async () => {
        if (this.#plans.size === 0 && (await this.list()).length === 0) await this.#leaveHost(signal);
      });
    });
    const peers = [...this.#plans.values()].filter(({ peerings }) =>
      peerings.some((one) => one.network === uid),
    );
    await this.#mendPeers(
      peers.map((peer) => ({ network: peer.uid })),
      signal,
    );
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
    void this.#passOn(this.#firewall.events(signal), signal);
    return this.#events.read(signal);
  }

  async removeEverything(signal: AbortSignal): Promise<void> {
    for (const uid of await this.list()) await this.remove(uid, signal);
    await this.#locks.run(hostKey, () => this.#leaveHost(signal));
    await rm(this.#directory, { recursive: true, force: true });
  }

  close(): void {
    for (const cancel of this.#forgetting.values()) cancel();
    this.#forgetting.clear();
    this.#events.close();
    this.#firewall.close();
  }

  #names(uid: string): NetworkNames {
    return networkNames(this.#options.config, uid);
  }

  async #passOn(events: AsyncIterable<{ uid: string }>, signal: AbortSignal): Promise<void> {
    try {
      for await (const { uid } of events) this.#events.hint(uid);
    } catch (cause) {
      if (signal.aborted) return;
      this.#options.logger.warn({ cause: describeError(cause) }, "changes of networks' rules go unnoticed");
    }
  }

  async #ensureHost(outsideDevices6: readonly string[], signal: AbortSignal): Promise<void> {
    await this.#locks.run(hostKey, async () => {
      await this.#sysctls.ensure(outsideDevices6);
      await this.#rules.ensure(signal);
    });
  }

  /** After the last network. */
  async #leaveHost(signal: AbortSignal): Promise<void> {
    await sweepRules(signal);
    await this.#firewall.removeHost(signal);
    await this.#rules.remove(signal);
    await this.#sysctls.restore();
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

  /** `changed`: interfaces or routes were, so that peers may have to look again. */
  async #mendUntilHealthy(
    plan: NetworkPlan,
    signal: AbortSignal,
  ): Promise<{ network: PlacedNetwork; changed: boolean }> {
    const configs = await this.#serviceConfigs(plan);
    let wrong: string[] = [];
    let changed = false;
    for (let round = 0; round < maxRounds; round++) {
      const { network, seen } = await this.#observe(plan, configs, signal);
      const mending = planMending(network, seen);
      if (mending.wrong.length === 0) {
        this.#pairs.set(plan.uid, network.pair);
        if (changed) await this.#cards.settle(plan, signal);
        await this.#firewall.ensure(firewallNetwork(network), signal);
        await this.#watch(plan);
        return { network, changed };
      }
      wrong = mending.wrong;
      changed ||= mending.inside !== undefined;
      this.#options.logger.debug({ network: plan.uid, wrong }, "mending a network");
      this.#events.unwatch(plan.uid);
      await this.#mend(network, configs, mending, signal);
    }
    throw new StrataError(
      "Unavailable",
      `network ${plan.uid} (${plan.cidr}) could not be made: ${wrong.join(", ")}; something on the host may be taking its parts away`,
    );
  }

  /** Their side of what has come or gone. A peer's failure is its own. */
  async #mendPeers(peers: readonly { network: string }[], signal: AbortSignal): Promise<void> {
    for (const uid of new Set(peers.map(({ network }) => network))) {
      try {
        await this.#locks.run(uid, async () => {
          const plan = this.#plans.get(uid);
          if (plan) await this.#mendUntilHealthy(plan, signal);
        });
      } catch (cause) {
        signal.throwIfAborted();
        this.#options.logger.warn(
          { network: uid, cause: describeError(cause) },
          "cannot mend a peered network",
        );
        this.#events.hint(uid);
      }
    }
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
    const files = await Promise.all(
      resolvFiles.map(async (path) => ({ path, text: await readFile(path, "utf8").catch(() => "") })),
    );
    const chosen = chooseResolvFile(files);
    if (chosen === undefined) {
      this.#options.logger.warn(
        { network: plan.uid },
        `guests cannot resolve names of the outside: none of ${resolvFiles.join(", ")} names a DNS server that is not on the host's loopback`,
      );
    }
    const text = files.find(({ path }) => path === chosen)?.text ?? "";
    const servers = upstreamServers(text, { ipv6: plan.outside6 });
    return {
      dns: { role: "dns", text: renderDnsConfig(plan, user, servers) },
      dhcp: { role: "dhcp", text: renderDhcpConfig(plan, user) },
    };
  }

  async #observe(
    plan: NetworkPlan,
    configs: Record<ServiceRole, ServiceConfig>,
    signal: AbortSignal,
  ): Promise<{ network: PlacedNetwork; seen: SeenNetwork }> {
    const [netns, pairSeen, dns, dhcp, forgotten] = await Promise.all([
      observeNetns(plan, signal),
      this.#readPair(plan, signal),
      this.#services.find(plan, configs.dns),
      this.#services.find(plan, configs.dhcp),
      new Reservations(plan.directory).forgotten(),
    ]);
    const inside = netns.state === "there" ? netns.inside : undefined;
    const innerAddresses = inside?.links.get(innerUplinkName)?.addresses ?? [];
    const innerPair = innerAddresses
      .map((address) => pairOf(address.replace(/\/.*$/, "")))
      .find((one) => one);
    const preferred = this.#pairs.get(plan.uid) ?? innerPair;
    const pair = pairSeen ?? (await choosePair(plan, (await readHost()).routes, preferred, signal));
    const others = new Map<string, NetworkPlan>();
    for (const { network } of plan.peerings) {
      const other = this.#plans.get(network);
      if (other && (await netnsState(other)) === "there") others.set(network, other);
    }
    const joined = joinedPeerings(plan, (uid) => others.get(uid), inside);
    return {
      network: { ...plan, pair, joined },
      seen: {
        netns,
        uplink: await observeUplink(plan, pair, signal),
        services: { ...(dns && { dns }), ...(dhcp && { dhcp }) },
        forgotten: forgotten.length > 0,
      },
    };
  }

  async #readPair(plan: NetworkPlan, signal: AbortSignal): Promise<UplinkPair | undefined> {
    if (!(await linkExists(plan.uplink))) return undefined;
    return seenPair(plan.uplink) ?? (await readPair(plan.uplink, signal));
  }

  async #mend(
    network: PlacedNetwork,
    configs: Record<ServiceRole, ServiceConfig>,
    mending: Mending,
    signal: AbortSignal,
  ): Promise<void> {
    if (mending.dropInnerUplink) {
      await run("ip", ["-n", network.netns, "link", "del", "dev", innerUplinkName], { signal });
    }
    if (mending.hostLinks) {
      if (mending.hostLinks.netns !== "there") await rm(network.netnsPath, { force: true });
      const files = hostFiles(network);
      await writeFile(files.links, renderHostLinks(network, mending.hostLinks));
      await writeFile(files.routes, renderHostRoutes(network, network.pair));
      if (!(await makeHostSide(network, network.pair, signal))) return;
    }
    if (mending.inside) {
      for (const peering of mending.inside.peerings) {
        const other = this.#plans.get(peering.network);
        if (!other || !(await makePeeringLink(network, other, peering, signal))) return;
      }
      await mendInside(network, mending.inside, signal);
    }
    const reservations = new Reservations(network.directory);
    const forgotten = await reservations.forgotten();
    await Promise.all(mending.restart.map((role) => this.#services.restart(network, configs[role], signal)));
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
