/**
 * All packet rules inside of networks, and the host's part of published ports and floating addresses.
 */
import type { Clock } from "../../../core/clock.ts";
import type { Logger } from "../../../core/logger.ts";
import type { NetworkPolicy } from "../networks.ts";

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
