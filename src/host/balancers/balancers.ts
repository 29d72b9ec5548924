/**
 * Load balancers of a host: one HAProxy each, which outlives the daemon and is found again by the next one.
 *
 * Structure (listeners, timeouts, names of certificates, and those of more than 12 KiB themselves) is its configuration file,
 * and changing it reloads HAProxy with the sockets handed over. Servers, the content of certificates and answers to ACME challenges are changed while it runs.
 * What there is, is always read back from HAProxy, never remembered.
 */
import type { LoadBalancerSpec } from "../../kinds/load-balancer.ts";

/** What a balancer is to be. */
export interface BalancerRequest {
  uid: string;
  spec: LoadBalancerSpec;
  /** Content of those that the listeners name, by name: the chain and its private key, PEM. */
  certificates: ReadonlyMap<string, string>;
  /** Answers to ACME challenges, by token. */
  challenges: ReadonlyMap<string, string>;
  servers: readonly ServerRequest[];
}

export interface ServerRequest {
  /** Uid of the instance. */
  uid: string;
  address: string;
  port: number;
  /** The host's address in the network in which `address` is meant. */
  source: string;
  /** True: no new requests. */
  draining: boolean;
}

/** What HAProxy says of itself. */
export interface SeenBalancer {
  /** Digest of the structure that it runs with. */
  structure: string;
  servers: readonly SeenServer[];
  /** By name: SHA-1 of the first certificate, hexadecimal in capitals. */
  certificates: ReadonlyMap<string, string>;
  challenges: ReadonlyMap<string, string>;
}

export interface SeenServer {
  /** HAProxy's name of it, unique in the balancer. */
  name: string;
  uid: string;
  /** `maintenance`: gets no new requests. */
  state: "up" | "down" | "maintenance";
  /** Requests or connections that it has now. */
  sessions: number;
  /** Connections to it that are in use, those of a worker included that finishes what it had before a reload. */
  connections: number;
}

/** Counters and gauges of the whole balancer (`uid` undefined) or of one server. */
export interface BalancerStatistics {
  uid: string | undefined;
  /** Since HAProxy started or was reloaded: they may begin anew. Of the whole, those that came in; of a server, those answered. */
  requests: number;
  errors: number;
  sessions: number;
  queue: number;
}

export interface Balancers {
  /** Of the structure, for comparison with what is seen. Pure. */
  structureOf(request: BalancerRequest): string;
  /** Name that HAProxy will have for the server. Pure. */
  serverName(server: ServerRequest): string;
  /** Undefined: none runs that answers. */
  observe(uid: string, signal: AbortSignal): Promise<SeenBalancer | undefined>;
  /**
   * Starts it, or reloads it with the sockets handed over; it has the servers asked for from its first moment. Returns
   * once it serves. Idempotent. @throws Conflict when a port is taken by somebody else; Invalid with HAProxy's words.
   */
  ensure(request: BalancerRequest, signal: AbortSignal): Promise<void>;
  /** Each is success when it is so already. */
  addServer(request: BalancerRequest, server: ServerRequest): Promise<void>;
  drainServer(uid: string, name: string): Promise<void>;
  resumeServer(uid: string, name: string): Promise<void>;
  /** Returns false, and leaves it, while it has connections. */
  removeServer(uid: string, name: string): Promise<boolean>;
  /** Exchanges the content of a certificate; connections that are open stay. */
  setCertificate(uid: string, name: string, pem: string): Promise<void>;
  setChallenges(uid: string, challenges: ReadonlyMap<string, string>): Promise<void>;
  statistics(uid: string): Promise<BalancerStatistics[]>;
  /** Ends it at once and takes away all of it. Absent is success. */
  remove(uid: string): Promise<void>;
  /** Uids of those that there is anything of. */
  list(): Promise<string[]>;
  /** One ended by itself. A hint. */
  events(signal: AbortSignal): AsyncIterable<string>;
  /** Unix socket at which the balancer looks for whoever holds its requests, and the named pipe that its log goes to. */
  channels(uid: string): { holder: string; log: string };
  /** Where the agent keeps the balancer's access log; `remove` takes it away. */
  logPath(uid: string): string;
  /** A certificate with its key, PEM, for what has none yet: signed by itself, for no name. */
  placeholder(): Promise<string>;
  /** Closes connections; balancers go on. */
  close(): void;
}
