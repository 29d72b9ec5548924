/**
 * The guest's serial console: a socket that one may attach to, and QEMU's log of everything that was printed, whether
 * or not somebody was attached.
 */
import type { Duplex } from "node:stream";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Console } from "../driver.ts";
import { readConsoleLog } from "./console-log.ts";
import type { GuestFiles } from "./guest-files.ts";
import { openSocket } from "./open-socket.ts";

export interface SerialConsoleOptions {
  clock: Clock;
  filesOf(handle: JsonObject): GuestFiles;
  isRunning(files: GuestFiles): Promise<boolean>;
}

const attachTimeoutMs = 5_000;

/** Sockets with somebody attached. QEMU serves one at a time and lets the next wait without a word. */
const attached = new Set<string>();

export class SerialConsole implements Console<JsonObject> {
  readonly #options: SerialConsoleOptions;

  constructor(options: SerialConsoleOptions) {
    this.#options = options;
  }

  async attach(handle: JsonObject, signal: AbortSignal): Promise<Duplex> {
    signal.throwIfAborted();
    const files = this.#options.filesOf(handle);
    if (!(await this.#options.isRunning(files))) {
      throw new StrataError("Unavailable", "the guest is not running, so its console cannot be attached");
    }
    const path = files.socket("console");
    if (attached.has(path)) throw new StrataError("Conflict", "somebody else is attached to this console");
    attached.add(path);
    const limits = { clock: this.#options.clock, timeoutMs: attachTimeoutMs };
    const socket = await openSocket(path, limits, signal).catch((error) => {
      attached.delete(path);
      throw error;
    });
    const onAbort = () => socket.destroy();
    signal.addEventListener("abort", onAbort, { once: true });
    socket.once("close", () => {
      attached.delete(path);
      signal.removeEventListener("abort", onAbort);
    });
    // A guest that ends while somebody is attached is the end of the stream, not an error.
    socket.on("error", () => {});
    return socket;
  }

  log(
    handle: JsonObject,
    options: { tailBytes: number; follow: boolean },
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array> {
    const { consoleLog } = this.#options.filesOf(handle);
    return readConsoleLog(consoleLog, { ...options, clock: this.#options.clock }, signal);
  }
}
