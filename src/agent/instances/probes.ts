/**
 * Looks whether the services of running guests accept connections: fast at first, slower later, until all do. Then it
 * rests until someone has a reason to doubt (`doubt`). Results live in memory; the plan turns them into the condition
 * `Ready`.
 */
import type { Clock } from "../../core/clock.ts";
import type { InstanceAction, ProbeState } from "./world.ts";

export interface ConnectTarget {
  address: string;
  port: number;
  /** The host's own address to connect from: it decides which of several networks with that address is meant. */
  from: string;
}

/** True when something accepted a TCP connection there within `timeoutMs`. Rejects only when aborted. */
export type Connect = (target: ConnectTarget, timeoutMs: number, signal: AbortSignal) => Promise<boolean>;

const firstDelayMs = 50;
const lastDelayMs = 1_000;
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

  async #run(probe: Probe, signal: AbortSignal): Promise<void> {
    const { request } = probe;
    const begun = this.#clock.monotonicMs();
    let missing = [...request.services];
    for (let delayMs = firstDelayMs; ; delayMs = Math.min(lastDelayMs, delayMs * 1.5)) {
      const answers = await Promise.all(missing.map(({ port }) => this.#answers(request, port, signal)));
      signal.throwIfAborted();
      missing = missing.filter((_, index) => !answers[index]);
      if (missing.length === 0) return this.#tell(probe, "ready", []);
      const waitingFor = missing.map(({ name, port }) => `${name} (port ${port})`);
      if (this.#clock.monotonicMs() - begun >= patienceMs) this.#tell(probe, "waiting", waitingFor);
      await this.#clock.sleep(delayMs, signal);
    }
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
