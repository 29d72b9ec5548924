/** A balancer's access log on disk: bounded, the older half in a second file. */
import { appendFile, mkdir, rename, stat } from "node:fs/promises";
import { dirname } from "node:path";
import type { Clock } from "../../core/clock.ts";

/** Of the file in use and of the one before it, each. */
const maxFileBytes = 8 * 1024 * 1024;
/** Lines are written together. */
const writeAfterMs = 100;
/** What cannot be written fast enough is dropped. */
const maxPendingBytes = 4 * 1024 * 1024;

export class LogFile {
  readonly #path: string;
  readonly #clock: Clock;
  #pending = "";
  #writing: Promise<void> | undefined;
  #sizeBytes: number | undefined;

  constructor(path: string, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
  }

  write(line: string): void {
    if (this.#pending.length > maxPendingBytes) return;
    this.#pending += `${line}\n`;
    if (this.#writing) return;
    this.#writing = this.#clock
      .sleep(writeAfterMs)
      .then(() => this.#flush())
      .catch(() => {}) // a full disk costs the log and nothing else
      .finally(() => {
        this.#writing = undefined;
      });
  }

  async #flush(): Promise<void> {
    while (this.#pending !== "") {
      const text = this.#pending;
      this.#pending = "";
      this.#sizeBytes ??= await stat(this.#path).then(
        ({ size }) => size,
        () => 0,
      );
      if (this.#sizeBytes > maxFileBytes) {
        await rename(this.#path, `${this.#path}.1`).catch(() => {});
        this.#sizeBytes = 0;
      }
      await mkdir(dirname(this.#path), { recursive: true, mode: 0o700 });
      await appendFile(this.#path, text, { mode: 0o600 });
      this.#sizeBytes += Buffer.byteLength(text);
    }
  }
}
