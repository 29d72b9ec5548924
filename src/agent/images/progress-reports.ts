import type { Clock } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import type { Logger } from "../../core/logger.ts";
import type { Progress } from "../../kinds/kind.ts";

/** Between two reports of one operation. */
const intervalMs = 500;

/** Tells the latest progress, not each; one report at a time. A report that fails is not repeated. */
export class ProgressReports {
  readonly #options: { clock: Clock; logger: Logger; send: (progress: Progress) => Promise<void> };
  #latest: Progress | undefined;
  #sending: Promise<void> | undefined;
  readonly #ended = new AbortController();

  constructor(options: { clock: Clock; logger: Logger; send: (progress: Progress) => Promise<void> }) {
    this.#options = options;
  }

  add(progress: Progress): void {
    if (this.#ended.signal.aborted) return;
    this.#latest = { ...progress, step: progress.step.slice(0, 200) };
    this.#sending ??= this.#send();
  }

  /** Nothing is sent after it resolves; what was not sent yet is dropped. */
  async end(): Promise<void> {
    this.#ended.abort();
    await this.#sending;
  }

  async #send(): Promise<void> {
    const { clock, logger, send } = this.#options;
    while (this.#latest && !this.#ended.signal.aborted) {
      const progress = this.#latest;
      this.#latest = undefined;
      try {
        await send(progress);
      } catch (error) {
        logger.debug({ error: describeError(error) }, "a report of progress is lost");
      }
      await clock.sleep(intervalMs, this.#ended.signal).catch(() => {});
    }
    this.#sending = undefined;
  }
}
