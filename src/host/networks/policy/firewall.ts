/**
 * All packet rules inside of networks, and the host's part of published ports and floating addresses.
 *
 * What is wanted is planned as a whole (network-rules.ts) and compared with what was last brought into force, so that the
 * kernel gets one transaction with the difference. Whenever what is in force is not known for sure (a new process, a
 * change by somebody else, an nft that did not answer), the next transaction replaces the tables as a whole. That is
 * atomic as well: every packet meets the old rules or the new ones, and connections are the kernel's, not the tables'.
 *
 * When nothing has changed for half a second, another transaction lets connections that are allowed pass without further
 * looking up, until the next change (forward-rules.ts). Should it never come, packets pass all the same, only slower.
 */
import { randomUUID } from "node:crypto";
import { stat } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../../core/clock.ts";
import { describeError, hasCode, StrataError } from "../../../core/errors.ts";
import { Hints } from "../../../core/hints.ts";
import { KeyedLock } from "../../../core/keyed-lock.ts";
import type { Logger } from "../../../core/logger.ts";
import { run } from "../../run.ts";
import type { NetworkPolicy } from "../networks.ts";
import { forgetKnown, networkTable, renderLearning } from "./forward-rules.ts";
import { Generations } from "./generations.ts";
import { HostPublications } from "./host-publications.ts";
import { emptyPolicy, networkTables, ProfileNumbers, planNetworkRules } from "./network-rules.ts";
import { NftMonitor } from "./nft-monitor.ts";
import { NftSession } from "./nft-session.ts";
import { requireNetwork, requirePolicy } from "./policy-values.ts";
import { type Ruleset, renderDifference, renderWhole } from "./ruleset.ts";

/**
 * What the rules have to know of a network's structure. Two things the structure relies on: what leaves by the uplink for
 * the outside has the uplink's inner address, or is marked (see ../outside-mark.ts); and the gateway sends no ICMPv6
 * redirects to its guests (the kernel has no switch for them; ports are isolated, so a redirected guest reaches nobody).
 */
export interface FirewallNetwork {
  uid: string;
  /** Path of its namespace. It exists, and so do the interfaces named here. */
  netns: string;
  uplink: {
    /** Names: in the namespace, and the host's end. */
    inner: string;
    host: string;
    /** IPv4 addresses of the pair. */
    innerAddress: string;
    hostAddress: string;
    /** IPv6 addresses of the pair, where it has any. */
    innerAddress6?: string;
    hostAddress6?: string;
  };
  /** All of the network's own ranges, of both families. Nothing from there may come in by the uplink. */
  ranges: readonly string[];
  subnets: readonly FirewallSubnet[];
  /** The port at the host's end of the uplink where the metadata service answers. Left out: there is none. */
  metadata?: { port: number };
  peerings: readonly FirewallPeering[];
}

export interface FirewallSubnet {
  bridge: string;
  cidr: string;
  gateway: string;
  ipv6?: { cidr: string; gateway: string };
}

export interface FirewallPeering {
  /** Its interface in this network's namespace. */
  name: string;
  /** The other side's: nothing else may come from there. */
  ranges: readonly string[];
}

export interface NetworkFirewallOptions {
  /** The daemon's. */
  namespace: string;
  /** A directory on a tmpfs, of its own: changes are handed to nft in files there. Made when missing. */
  directory: string;
  clock: Clock;
  logger: Logger;
  /** How long an nft process stays without work. Default 60,000. */
  idleMs?: number;
}

export interface NetworkFirewall {
  /**
   * The base rules are there and as wanted; without a policy so far nothing passes between guests. A network that an
   * earlier process made keeps the rules in force until the first `apply`. `repaired`: something had to be made or
   * mended since the last call. Idempotent.
   */
  ensure(network: FirewallNetwork, signal: AbortSignal): Promise<{ repaired: boolean }>;
  /**
   * Brings the policy into force by one transaction that holds the difference. When it resolves, the kernel follows it.
   * @throws NotFound before the first `ensure`; Invalid for values that the control plane never sends; Internal when
   * the kernel refuses, and then nothing has changed.
   */
  apply(uid: string, policy: NetworkPolicy, signal: AbortSignal): Promise<void>;
  /** To be called before the namespace is removed: ends the processes in it, and takes the host's part away. Absent is success. */
  remove(uid: string, signal: AbortSignal): Promise<void>;
  /** With the last network: takes the host's table away. Absent is success. */
  removeHost(signal: AbortSignal): Promise<void>;
  /** Somebody else changed the rules of a network. They are mended already, or `ensure` has to. */
  events(signal: AbortSignal): AsyncIterable<{ uid: string }>;
  /** Ends the processes; the rules stay. */
  close(): void;
}

const hostKey = "host";
/**
 * Where br_netfilter is on, a frame whose target is translated to a card on the same bridge goes there as a frame, past the
 * forward hook, and ends at the isolated port.
 */
const routeBetweenPorts =
  'for setting in /proc/sys/net/bridge/bridge-nf-call-*; do [ ! -e "$setting" ] || echo 0 >"$setting"; done';
/** More than the time in which generations get different numbers. */
const learnAfterMs = 500;
const firstRepairDelayMs = 1_000;
const maxRepairDelayMs = 60_000;

export function createNetworkFirewall(options: NetworkFirewallOptions): NetworkFirewall {
  return new LinuxFirewall(options);
}

interface Guarded {
  network: FirewallNetwork;
  inode: number;
  session: NftSession;
  monitor: NftMonitor;
  numbers: ProfileNumbers;
  generations: Generations;
  /** Of the next `#learn`. */
  cancelLearning: () => void;
  /** Undefined before the first `apply` of this process. */
  policy: NetworkPolicy | undefined;
  /** All but who is known. Undefined: not known for sure. */
  inForce: Ruleset | undefined;
  /** Since the last `ensure`. */
  repaired: boolean;
  /**
   * Somebody changed the rules. Of many lines about it the first counts; what is heard until the kernel announces our
   * mending was there before it.
   */
  mending: "no" | "soon" | "sent";
  lastRepairMs: number | undefined;
  repairDelayMs: number;
}

class LinuxFirewall implements NetworkFirewall {
  readonly #options: NetworkFirewallOptions;
  readonly #locks = new KeyedLock();
  readonly #networks = new Map<string, Guarded>();
  readonly #hints = new Hints();
  readonly #host: HostPublications;
  readonly #idleMs: number;
  /** In marks of this process's changes. Another process's changes are others'. */
  readonly #token = randomUUID();
  #closed = false;

  constructor(options: NetworkFirewallOptions) {
    this.#options = options;
    this.#idleMs = options.idleMs ?? 60_000;
    const { namespace, directory, clock, logger } = options;
    this.#host = new HostPublications({
      namespace,
      directory,
      clock,
      idleMs: this.#idleMs,
      marks: { table: `inet ${namespace}-changes`, token: this.#token },
      onDamage: () => {
        logger.warn({}, "somebody changed the host's table of published ports; it will be made again");
        for (const uid of this.#networks.keys()) this.#hints.hint(uid);
      },
    });
  }

  async ensure(network: FirewallNetwork, signal: AbortSignal): Promise<{ repaired: boolean }> {
    requireNetwork(network);
    return await this.#locks.run(network.uid, async () => {
      signal.throwIfAborted();
      const host = await this.#locks.run(hostKey, () => this.#host.ensure(network, signal));
      const guarded = await this.#guard(network);
      const early = guarded.policy === undefined && guarded.inForce === undefined;
      const kept = early && (await this.#hasTables(guarded));
      const changed = !kept && (await this.#bringIntoForce(guarded, guarded.policy ?? emptyPolicy));
      const repaired = host || changed || guarded.repaired;
      guarded.repaired = false;
      return { repaired };
    });
  }

  async apply(uid: string, policy: NetworkPolicy, signal: AbortSignal): Promise<void> {
    requirePolicy(uid, policy);
    await this.#locks.run(uid, async () => {
      signal.throwIfAborted();
      const guarded = this.#networks.get(uid);
      if (!guarded) {
        throw new StrataError(
          "NotFound",
          `network ${uid} is not on this host, so it cannot have packet rules yet`,
        );
      }
      await this.#bringIntoForce(guarded, policy);
      guarded.policy = policy;
      await this.#locks.run(hostKey, () => this.#host.apply(guarded.network, policy, signal));
    });
  }

  async remove(uid: string, signal: AbortSignal): Promise<void> {
    await this.#locks.run(uid, async () => {
      const guarded = this.#networks.get(uid);
      this.#networks.delete(uid);
      guarded?.cancelLearning();
      if (guarded) await Promise.all([guarded.session.end(), guarded.monitor.end()]);
      await this.#locks.run(hostKey, () => this.#host.remove(uid, signal));
    });
  }

  async removeHost(signal: AbortSignal): Promise<void> {
    await this.#locks.run(hostKey, () => this.#host.removeTable(signal));
  }

  async *events(signal: AbortSignal): AsyncGenerator<{ uid: string }> {
    for await (const uid of this.#hints.keys(signal)) yield { uid };
  }

  close(): void {
    this.#closed = true;
    for (const { session, monitor, cancelLearning } of this.#networks.values()) {
      cancelLearning();
      session.kill();
      monitor.kill();
    }
    this.#networks.clear();
    this.#host.close();
  }

  /** Processes belong to a namespace, not to its name: where that has been made again, they are started again. */
  async #guard(network: FirewallNetwork): Promise<Guarded> {
    const { ino } = await stat(network.netns);
    const known = this.#networks.get(network.uid);
    if (known?.inode === ino) {
      known.network = network;
      return known;
    }
    known?.cancelLearning();
    if (known) await Promise.all([known.session.end(), known.monitor.end()]);
    const settle = [`--net=${network.netns}`, "sh", "-c", routeBetweenPorts];
    await run("nsenter", settle, { timeoutMs: 10_000 });
    const { clock, directory } = this.#options;
    const marks = { table: `inet ${networkTable}-changes`, token: this.#token };
    const session = new NftSession({
      owner: `network ${network.uid}`,
      netns: network.netns,
      marks,
      file: join(directory, `${network.uid}.nft`),
      clock,
      idleMs: this.#idleMs,
    });
    const monitor = new NftMonitor({
      netns: network.netns,
      tables: networkTables,
      clock,
      marks,
      onChange: (line) => this.#damaged(guarded, line),
      onOwn: () => {
        if (guarded.mending === "sent") guarded.mending = "no";
      },
      onGap: () => this.#damaged(guarded, "nft monitor ended"),
    });
    const guarded: Guarded = {
      network,
      inode: ino,
      session,
      monitor,
      numbers: new ProfileNumbers(),
      generations: new Generations(),
      cancelLearning: () => {},
      policy: known?.policy,
      inForce: undefined,
      repaired: false,
      mending: "no",
      lastRepairMs: undefined,
      repairDelayMs: 0,
    };
    this.#networks.set(network.uid, guarded);
    return guarded;
  }

  async #hasTables({ session }: Guarded): Promise<boolean> {
    for (const table of networkTables) {
      if (!(await session.succeeds(`list table ${table}`))) return false;
    }
    return true;
  }

  /** True: there was something to do. */
  async #bringIntoForce(guarded: Guarded, policy: NetworkPolicy): Promise<boolean> {
    const wanted = planNetworkRules(guarded.network, policy, guarded.numbers);
    const before = guarded.inForce;
    const change = before && renderDifference(before, wanted);
    if (change === "") return false;
    guarded.inForce = undefined;
    guarded.cancelLearning();
    try {
      await guarded.session.transact(change === undefined ? renderWhole(wanted) : forgetKnown + change);
      // A change by somebody else that came to notice meanwhile is mended after this (see #damaged).
      guarded.inForce = wanted;
    } catch (cause) {
      // A difference that does not fit may mean that the tables are not what they were; the next time is a whole one.
      if (!before || !hasCode(cause, "Internal", "Unavailable", "Timeout")) throw cause;
      this.#options.logger.warn(
        { network: guarded.network.uid, cause: describeError(cause) },
        "a change of packet rules did not fit what was believed to be in force; they are made anew",
      );
      await guarded.session.transact(renderWhole(wanted));
      guarded.inForce = wanted;
    }
    guarded.cancelLearning = this.#options.clock.after(learnAfterMs, () => void this.#learn(guarded, wanted));
    return true;
  }

  /** For the rules that have been in force for a moment, unless they changed meanwhile. */
  async #learn(guarded: Guarded, ruleset: Ruleset): Promise<void> {
    const { uid } = guarded.network;
    await this.#locks.run(uid, async () => {
      if (this.#closed || this.#networks.get(uid) !== guarded || guarded.inForce !== ruleset) return;
      // Until it has been carried out for sure, the next change is a whole one.
      guarded.inForce = undefined;
      try {
        await guarded.session.transact(renderLearning(guarded.generations.next()));
        guarded.inForce = ruleset;
      } catch (cause) {
        if (this.#closed) return;
        this.#options.logger.warn(
          { network: uid, cause: describeError(cause) },
          "connections of a network are looked up packet by packet until its rules change",
        );
      }
    });
  }

  /** Mends at once: until then guests are without rules. Somebody who does it again and again is answered more slowly. */
  #damaged(guarded: Guarded, seen: string): void {
    const { clock, logger } = this.#options;
    const { uid } = guarded.network;
    if (this.#closed || guarded.mending !== "no" || this.#networks.get(uid) !== guarded) return;
    guarded.mending = "soon";
    const now = clock.monotonicMs();
    const calm = guarded.lastRepairMs === undefined || now - guarded.lastRepairMs > maxRepairDelayMs;
    const delayMs = calm
      ? 0
      : Math.min(Math.max(2 * guarded.repairDelayMs, firstRepairDelayMs), maxRepairDelayMs);
    guarded.lastRepairMs = now;
    guarded.repairDelayMs = delayMs;
    logger.warn(
      { network: uid, seen, delayMs },
      "somebody changed the packet rules of a network; they are made again",
    );
    if (delayMs === 0) void this.#repair(guarded);
    else clock.after(delayMs, () => void this.#repair(guarded));
  }

  async #repair(guarded: Guarded): Promise<void> {
    const { uid } = guarded.network;
    try {
      await this.#locks.run(uid, async () => {
        if (this.#closed || this.#networks.get(uid) !== guarded) return;
        guarded.inForce = undefined;
        // Before the first policy it is for `ensure` to say whether what an earlier process made is still there.
        if (guarded.policy) {
          guarded.mending = "sent";
          await this.#bringIntoForce(guarded, guarded.policy);
        } else guarded.mending = "no";
        guarded.repaired = true;
      });
    } catch (cause) {
      guarded.mending = "no";
      this.#options.logger.error({ network: uid, cause: describeError(cause) }, "cannot mend packet rules");
    }
    this.#hints.hint(uid);
  }
}
