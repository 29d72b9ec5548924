/**
 * Performs the health checks that instances ask for, on and on while their guests run, alike for every driver. Results live
 * in memory; the plan turns them into the condition `Ready`.
 */
import type { Clock } from "../../core/clock.ts";
import type { CheckState, InstanceAction } from "../instances/world.ts";
import type { CommandCheck } from "./command-check.ts";
import type { NetworkChecks, Outcome } from "./network-checks.ts";
import { addOutcome, emptyTally, isNews, nextDelayMs } from "./tally.ts";

type CheckRequest = Extract<InstanceAction, { type: "check" }>;

export interface HealthCheckOptions {
  clock: Clock;
  network: NetworkChecks;
  /** Runs a command in a guest. */
  command(
    request: Pick<CheckRequest, "driver" | "handle"> & Pick<CommandCheck, "command">,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<Outcome>;
  /** Of a network, by uid; undefined while it is not there. */
  hostAddress(network: string): string | undefined;
  /** False once the instance is not to be checked any more: it does not run, or has no check. */
  wanted(uid: string): boolean;
  /** There is news of the instance of this key. */
  hint(key: string): void;
  /** A check failed for the first time in a row, for good, or in another way than before. */
  onFailure(uid: string): void;
}

interface Check {
  request: CheckRequest;
  state: CheckState;
  abort: AbortController;
}

export class HealthChecks {
  readonly #options: HealthCheckOptions;
  readonly #checks = new Map<string, Check>();

  constructor(options: HealthCheckOptions) {
    this.#options = options;
  }

  state(uid: string): CheckState | undefined {
    return this.#checks.get(uid)?.state;
  }

  /** Replaces what is under way for the instance. Returns at once. */
  begin(request: CheckRequest): void {
    this.#checks.get(request.uid)?.abort.abort();
    const abort = new AbortController();
    const check = { request, state: { target: request.target, ...emptyTally }, abort };
    this.#checks.set(request.uid, check);
    void this.#run(check, abort.signal).catch(() => {});
  }

  forget(uid: string): void {
    this.#checks.get(uid)?.abort.abort();
    this.#checks.delete(uid);
  }

  stop(): void {
    for (const uid of [...this.#checks.keys()]) this.forget(uid);
  }

  async #run(check: Check, signal: AbortSignal): Promise<void> {
    const { clock, wanted, hint } = this.#options;
    const { request } = check;
    const begun = clock.monotonicMs();
    for (;;) {
      const outcome = await this.#perform(request, signal);
      signal.throwIfAborted();
      if (!wanted(request.uid)) break;
      const ageMs = clock.monotonicMs() - begun;
      this.#take(check, outcome, ageMs);
      await clock.sleep(nextDelayMs(check.state, request.check, ageMs), signal);
      if (!wanted(request.uid)) break;
    }
    this.#checks.delete(request.uid);
    // Should it run again by now, it is begun anew.
    hint(request.key);
  }

  #take(check: Check, outcome: Outcome, ageMs: number): void {
    const { clock, hint, onFailure } = this.#options;
    const { request, state: before } = check;
    const tally = addOutcome(before, outcome, request.check, clock.now(), ageMs);
    check.state = { target: before.target, ...tally };
    const news = isNews(before, tally);
    const firstFailure = before.result === "healthy" && tally.failures === 1;
    if (firstFailure || (news && tally.failures > 0)) onFailure(request.uid);
    if (news) hint(request.key);
  }

  async #perform(request: CheckRequest, signal: AbortSignal): Promise<Outcome> {
    const { network, command, hostAddress } = this.#options;
    const { check, address, driver, handle } = request;
    const { port, timeoutMs } = check;
    if (check.type === "command") {
      return command({ driver, handle, command: check.command ?? [] }, timeoutMs, signal);
    }
    const from = hostAddress(request.network);
    if (from === undefined || port === undefined)
      return { healthy: false, saw: "its network is not there (yet)" };
    const target = { address, port, from };
    return check.type === "tcp"
      ? network.tcp(target, timeoutMs, signal)
      : network.http({ ...target, path: check.path }, timeoutMs, signal);
  }
}
