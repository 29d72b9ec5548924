/**
 * Load on one URL, open-loop: requests are sent when they are due, whether or not earlier ones were answered, as people
 * do. What a server fails to answer in time is counted and not sent again.
 */

import type { Clock } from "../../core/clock.ts";
import { Agent, request } from "../../core/node-http.ts";

export interface LoadOptions {
  /** http:// with an address, a port and a path. */
  url: string;
  clock: Clock;
  /** Requests per second at a moment of the run. Asked every `tickMs`. */
  rate: (elapsedMs: number) => number;
  timeoutMs?: number;
  /** The name of who answered, from the body; for `answers`. */
  identify?: (body: string) => string | undefined;
}

/** One request, once it is over. */
export interface Answer {
  /** When it was sent, in ms of the clock's monotonic time. */
  sentMs: number;
  tookMs: number;
  /** 0: no answer (refused, broken off, too late). */
  status: number;
  /** Undefined where `identify` did not find it. */
  by?: string;
}

const tickMs = 10;
const defaultTimeoutMs = 30_000;
/** Of one body; what is beyond is not looked at. */
const bodyBytes = 4_096;

export class LoadGenerator {
  readonly #options: LoadOptions;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 2_000 });
  #underWay = 0;
  #sent = 0;
  #failed = 0;

  /** Called for each request that is over. */
  onAnswer: (answer: Answer) => void = () => {};

  constructor(options: LoadOptions) {
    this.#options = options;
  }

  get sent(): number {
    return this.#sent;
  }

  /** Without an answer, or with a status of 500 and above. */
  get failed(): number {
    return this.#failed;
  }

  /** Sends until the signal aborts, then waits for the answers under way. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, rate } = this.#options;
    const begun = clock.monotonicMs();
    let before = begun;
    let due = 0;
    while (!signal.aborted) {
      const now = clock.monotonicMs();
      due += (Math.max(0, rate(now - begun)) * (now - before)) / 1_000;
      before = now;
      for (; due >= 1; due--) this.#send();
      await clock.sleep(tickMs, signal).catch(() => {});
    }
    while (this.#underWay > 0) await clock.sleep(tickMs);
    this.#agent.destroy();
  }

  #send(): void {
    const { clock, url, timeoutMs = defaultTimeoutMs } = this.#options;
    const sentMs = clock.monotonicMs();
    this.#sent++;
    this.#underWay++;
    let over = false;
    const end = (status: number, body = "") => {
      if (over) return;
      over = true;
      this.#underWay--;
      if (status === 0 || status >= 500) this.#failed++;
      const by = this.#options.identify?.(body);
      this.onAnswer({
        sentMs,
        tookMs: clock.monotonicMs() - sentMs,
        status,
        ...(by === undefined ? {} : { by }),
      });
    };
    const asked = request(url, { agent: this.#agent, signal: AbortSignal.timeout(timeoutMs) }, (response) => {
      let body = "";
      response.setEncoding("utf8");
      response.on("data", (chunk: string) => {
        if (body.length < bodyBytes) body += chunk;
      });
      response.on("end", () => end(response.complete ? (response.statusCode ?? 0) : 0, body));
      response.on("error", () => end(0));
      response.on("close", () => end(0));
    });
    asked.on("error", () => end(0));
    asked.end();
  }
}
