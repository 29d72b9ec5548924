import type { Client } from "../client/client.ts";
import type { Clock } from "../core/clock.ts";
import { describeError } from "../core/errors.ts";
import { newUid, shortId } from "../core/ids.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import { eventKind } from "../kinds/event.ts";
import type { Resource } from "../kinds/kind.ts";

export interface NewEvent {
  severity: "normal" | "warning";
  reason: string;
  message: string;
}

/** Events that wait to be sent; when the API is away for long, the oldest go. */
const maxPending = 256;

/** What an event tells of is mostly under way still, and comes first. */
const delayMs = 500;

/** Sends events in the background, in order, one at a time. An event may be lost, and nothing waits for one. */
export class EventRecorder {
  readonly #options: { client: Client; clock: Clock; random: Random; logger: Logger };
  readonly #signal: AbortSignal;
  readonly #pending: { project: string; name: string; spec: object }[] = [];
  #sending = false;
  #lastAt = 0;

  constructor(
    options: { client: Client; clock: Clock; random: Random; logger: Logger },
    signal: AbortSignal,
  ) {
    this.#options = options;
    this.#signal = signal;
  }

  record(subject: Resource, event: NewEvent): void {
    const { name, project, uid } = subject.metadata;
    if (project === undefined || this.#signal.aborted) return;
    const spec = { subject: { kind: subject.kind, name, uid }, ...event };
    const { clock, random } = this.#options;
    // Names of one project sort by time.
    this.#lastAt = Math.max(clock.now(), this.#lastAt + 1);
    const eventName = `e${this.#lastAt.toString(36).padStart(9, "0")}-${shortId(newUid(random))}`;
    this.#pending.push({ project, name: eventName, spec });
    if (this.#pending.length > maxPending) this.#pending.shift();
    if (!this.#sending) void this.#send();
  }

  async #send(): Promise<void> {
    this.#sending = true;
    const { clock } = this.#options;
    await clock.sleep(delayMs, this.#signal).catch(() => {});
    for (let next = this.#pending.shift(); next && !this.#signal.aborted; next = this.#pending.shift()) {
      try {
        await this.#options.client.create(eventKind, next as never, { signal: this.#signal });
      } catch (error) {
        this.#options.logger.debug({ event: next.spec, error: describeError(error) }, "an event is lost");
      }
    }
    this.#sending = false;
  }
}
