/**
 * Looks whether the services of running guests accept connections: fast at first, slower later, until all do. Then it
 * rests until someone has a reason to doubt (`doubt`). Results live in memory; the plan turns them into the condition
 * `Ready`.
 */
import type { Clock } from "../../core/clock.ts";
import { startPaceMs } from "../start-pace.ts";
import type { InstanceAction, ProbeState } from "./world.ts";

export interface ConnectTarget {
  address: string;
  port: number;
  /** The host's own address to connect from: it decides which of several networks with that address is meant. */
  from: string;
}

/** True when something accepted a TCP connection there within `timeoutMs`. Rejects only when aborted. */
export type Connect = (target: ConnectTarget, timeoutMs: number, signal: AbortSignal) => Promise<boolean>;

const connectTimeoutMs = 1_000;
/** Services that answer sooner than this are never reported as missing. */
const patienceMs = 2_000;

type ProbeRequest = Extract<InstanceAction, { type: "probe" }>;

interface Probe {
  request: ProbeRequest;
  state: ProbeState;
  abort: AbortController;
}

export class ServiceProbes {
  readonly #connect: Connect;
  readonly #clock: Clock;
  readonly #hint: (key: string) => void;
  readonly #hostAddress: (network: string) => string | undefined;
  readonly #probes = new Map<string, Probe>();

  /** `hostAddress`: of a network, by uid; undefined while it is not there. */
  constructor(options: {
    connect: Connect;
    clock: Clock;
    hint: (key: string) => void;
    hostAddress: (network: string) => string | undefined;
  }) {
    this.#hostAddress = options.hostAddress;
    this.#connect = options.connect;
    this.#clock = options.clock;
    this.#hint = options.hint;
  }

  state(uid: string): ProbeState | undefined {
    return this.#probes.get(uid)?.state;
  }

  /** Replaces what is under way for the guest. Returns at once; each news is a hint for the instance's key. */
  begin(request: ProbeRequest): void {
    const before = this.#probes.get(request.uid);
    before?.abort.abort();
    const abort = new AbortController();
    const state: ProbeState = { target: request.target, result: "unknown", waitingFor: [] };
    const probe = { request, state, abort };
    this.#probes.set(request.uid, probe);
    void this.#run(probe, abort.signal).catch(() => {});
  }

  /** Something happened to the guest: its services are looked at again. True when there is something to look at. */
  doubt(uid: string): boolean {
    const probe = this.#probes.get(uid);
    if (probe?.state.result !== "ready") return false;
    this.forget(uid);
    return true;
  }

  forget(uid: string): void {
    this.#probes.get(uid)?.abort.abort();
    this.#probes.delete(uid);
  }

  stop(): void {
    for (const uid of [...this.#probes.keys()]) this.forget(uid);
  }

  /**
   * Asks again before the last answer is there: a packet to a guest without a card yet is lost, and the kernel sends it again
   * only after a second.
   */
  async #run(probe: Probe, signal: AbortSignal): Promise<void> {
    const { request } = probe;
    const begun = this.#clock.monotonicMs();
    const missing = new Set(request.services);
    const all = new AbortController();
    const over = AbortSignal.any([signal, all.signal]);
    const ask = async (service: (typeof request.services)[number]) => {
      if (!(await this.#answers(request, service.port, over))) return;
      missing.delete(service);
      if (missing.size === 0) all.abort();
    };
    while (!over.aborted) {
      for (const service of missing) void ask(service).catch(() => {});
      const ageMs = this.#clock.monotonicMs() - begun;
      const waitingFor = [...missing].map(({ name, port }) => `${name} (port ${port})`);
      if (ageMs >= patienceMs) this.#tell(probe, "waiting", waitingFor);
      await this.#clock.sleep(startPaceMs(ageMs), over).catch(() => {});
    }
    signal.throwIfAborted();
    this.#tell(probe, "ready", []);
  }

  async #answers({ network, address }: ProbeRequest, port: number, signal: AbortSignal): Promise<boolean> {
    const from = this.#hostAddress(network);
    if (from === undefined) return false;
    return this.#connect({ address, port, from }, connectTimeoutMs, signal);
  }

  #tell(probe: Probe, result: ProbeState["result"], waitingFor: readonly string[]): void {
    const { state, request } = probe;
    if (state.result === result && state.waitingFor.length === waitingFor.length) return;
    probe.state = { ...state, result, waitingFor };
    this.#hint(request.key);
  }
}
