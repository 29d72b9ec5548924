import type { WebSocket } from "ws";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { encodeBase32 } from "../core/ids.ts";
import type { JsonObject } from "../core/json.ts";
import type { Random } from "../core/random.ts";

/**
 * Brings clients and agents together. Agents can be anywhere, so they are never dialled: each holds a stream of
 * requests open, and answers a request by dialling a WebSocket of that session's own. A session's id is 160 random
 * bits and is good for one answer.
 */

/** What a session is about. */
export interface SessionSubject {
  project: string;
  name: string;
  uid: string;
}

/** What an agent is asked for. */
export type SessionRequest = {
  id: string;
  parameters: JsonObject;
} /** For `access-log`, `instance` is the load balancer. */ & (
  | { verb: "exec" | "console" | "log" | "drift" | "access-log"; instance: SessionSubject }
  | { verb: "export" | "build-log"; image: SessionSubject }
  | { verb: "file"; backup: SessionSubject }
);

type WithoutId<T> = T extends unknown ? Omit<T, "id"> : never;
/** All but what the hub gives it. */
export type NewSessionRequest = WithoutId<SessionRequest>;

const limits = {
  /** For the agent to come back, as when it or the daemon restarts. */
  agentAwayMs: 3_000,
  /** For the agent to dial. */
  answerMs: 10_000,
  /** Asked for and not yet taken, per agent. */
  queued: 256,
  /** Waiting for an answer, in all. */
  waiting: 512,
} as const;

interface Waiting {
  host: string;
  answer: (agent: WebSocket) => void;
}

interface AgentStream {
  queue: SessionRequest[];
  wake: () => void;
}

export class SessionHub {
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #agents = new Map<string, AgentStream>();
  readonly #waiting = new Map<string, Waiting>();
  /** Called when an agent's stream opens. */
  readonly #arrivals = new Set<(host: string) => void>();

  constructor(clock: Clock, random: Random) {
    this.#clock = clock;
    this.#random = random;
  }

  /** The requests for one host's agent, until aborted. A newer stream of the same host takes over. */
  async *requests(host: string, signal: AbortSignal): AsyncGenerator<SessionRequest> {
    const stream: AgentStream = { queue: [], wake: () => {} };
    this.#agents.get(host)?.wake();
    this.#agents.set(host, stream);
    for (const arrival of this.#arrivals) arrival(host);
    const onAbort = () => stream.wake();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      while (!signal.aborted && this.#agents.get(host) === stream) {
        const request = stream.queue.shift();
        if (request) yield request;
        else {
          await new Promise<void>((resolve) => {
            stream.wake = resolve;
          });
        }
      }
    } finally {
      signal.removeEventListener("abort", onAbort);
      if (this.#agents.get(host) === stream) this.#agents.delete(host);
    }
  }

  /**
   * Asks the host's agent and waits until it has dialled. The socket is paused and is the caller's from then on.
   * @throws Unavailable when the agent is away or does not answer; the signal's reason.
   */
  async open(host: string, request: NewSessionRequest, signal: AbortSignal): Promise<WebSocket> {
    signal.throwIfAborted();
    if (this.#waiting.size >= limits.waiting) {
      throw new StrataError("Unavailable", "too many sessions are being opened at once; try again shortly");
    }
    const stream = this.#agents.get(host) ?? (await this.#arrival(host, signal));
    if (!stream || stream.queue.length >= limits.queued) throw agentAway(host);
    const id = encodeBase32(this.#random.bytes(20));
    const { promise, resolve, reject } = Promise.withResolvers<WebSocket>();
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    const cancel = this.#clock.after(limits.answerMs, () => {
      const seconds = limits.answerMs / 1000;
      reject(
        new StrataError("Unavailable", `the agent of host "${host}" did not answer within ${seconds} s`),
      );
    });
    this.#waiting.set(id, { host, answer: resolve });
    stream.queue.push({ id, ...request });
    stream.wake();
    try {
      return await promise;
    } finally {
      cancel();
      signal.removeEventListener("abort", onAbort);
      this.#waiting.delete(id);
    }
  }

  /** Is somebody waiting for this session's agent? */
  expects(id: string): boolean {
    return this.#waiting.has(id);
  }

  /** The agent has dialled; nobody may be waiting any more. */
  answer(id: string, agent: WebSocket): void {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (!waiting) {
      agent.close(1001, "nobody waits for this session any more");
      return;
    }
    agent.pause();
    waiting.answer(agent);
  }

  async #arrival(host: string, signal: AbortSignal): Promise<AgentStream | undefined> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const onArrival = (arrived: string) => {
      if (arrived === host) resolve();
    };
    this.#arrivals.add(onArrival);
    const cancel = this.#clock.after(limits.agentAwayMs, () => resolve());
    const onAbort = () => resolve();
    signal.addEventListener("abort", onAbort, { once: true });
    await promise;
    cancel();
    this.#arrivals.delete(onArrival);
    signal.removeEventListener("abort", onAbort);
    signal.throwIfAborted();
    return this.#agents.get(host);
  }
}

function agentAway(host: string): StrataError {
  return new StrataError("Unavailable", `the agent of host "${host}" is not connected; is it running?`);
}
