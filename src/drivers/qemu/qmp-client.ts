/**
 * QEMU Machine Protocol: one connection to one QEMU. Lines of JSON; the server greets, capabilities are negotiated,
 * then commands are answered by id, in any order, with events in between.
 *
 * The other side is not trusted: a guest may have taken QEMU over. Lines, outstanding commands and times are bounded,
 * and whatever breaks the protocol ends the connection.
 *
 * @see https://www.qemu.org/docs/master/interop/qmp-spec.html
 */
import type { Socket } from "node:net";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../../core/json.ts";
import { LineReader } from "./line-reader.ts";
import { openSocket } from "./open-socket.ts";

export interface QmpEvent {
  event: string;
  data: JsonObject;
}

export interface QmpOptions {
  clock: Clock;
  /** For the greeting and capabilities. QEMU answers once its machine is made. */
  connectTimeoutMs: number;
  /** Also told of events that arrive right behind the greeting. */
  onEvent?: (event: QmpEvent) => void;
}

const maxLineBytes = 4 * 1024 * 1024; // query-qmp-schema answers with 200 KiB
const maxOutstanding = 64;
export const defaultCommandTimeoutMs = 10_000;

interface Pending {
  command: string;
  resolve(value: Json): void;
  reject(error: unknown): void;
}

export class QmpClient {
  /** QEMU's version as `major.minor.micro`. */
  version = "";
  /** What its maker says of it beyond that. */
  package = "";
  /** Resolves when the connection has ended, for whatever reason. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #options: QmpOptions;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #end: StrataError | undefined;
  #greeted: (() => void) | undefined;

  private constructor(socket: Socket, options: QmpOptions) {
    this.#socket = socket;
    this.#options = options;
    const lines = new LineReader(maxLineBytes, (line) => this.#onLine(line));
    socket.on("data", (chunk: Buffer) => {
      if (!lines.push(chunk)) this.#fail("QEMU sent a line that is too long");
    });
    socket.on("error", (cause) => this.#fail("the connection to QEMU broke", cause));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    socket.on("close", () => {
      this.#fail("QEMU ended or closed the connection");
      resolve();
    });
  }

  /**
   * Connects to a listening socket and negotiates. QEMU serves one connection at a time: while another is open, this
   * one waits.
   * @throws Unavailable when nobody listens or QEMU ends meanwhile; Timeout; the signal's reason.
   */
  static async connect(path: string, options: QmpOptions, signal?: AbortSignal): Promise<QmpClient> {
    const { clock, connectTimeoutMs: timeoutMs } = options;
    const client = new QmpClient(await openSocket(path, { clock, timeoutMs }, signal), options);
    const onAbort = () => client.close();
    signal?.addEventListener("abort", onAbort, { once: true });
    const cancel = options.clock.after(options.connectTimeoutMs, () => {
      client.#fail(`QEMU did not answer within ${options.connectTimeoutMs} ms`, undefined, "Timeout");
    });
    try {
      await client.#greeting();
      await client.execute("qmp_capabilities", {}, { timeoutMs: options.connectTimeoutMs });
      return client;
    } catch (error) {
      client.close();
      signal?.throwIfAborted();
      throw error;
    } finally {
      cancel();
      signal?.removeEventListener("abort", onAbort);
    }
  }

  /**
   * Runs one command and returns its result.
   * @throws Unavailable when the connection is closed; Timeout; Unsupported for a command this QEMU does not have;
   * Internal, with QEMU's own words as detail, when it failed.
   */
  execute(command: string, args: JsonObject = {}, options: { timeoutMs?: number } = {}): Promise<Json> {
    const { promise, resolve, reject } = Promise.withResolvers<Json>();
    if (this.#end) return Promise.reject(this.#end);
    if (this.#pending.size >= maxOutstanding) {
      return Promise.reject(
        new StrataError(
          "Unavailable",
          `QEMU has not answered ${maxOutstanding} commands; ${command} was not sent`,
        ),
      );
    }
    const id = this.#nextId++;
    const timeoutMs = options.timeoutMs ?? defaultCommandTimeoutMs;
    const cancel = this.#options.clock.after(timeoutMs, () => {
      this.#pending.delete(id);
      reject(new StrataError("Timeout", `QEMU did not answer ${command} within ${timeoutMs} ms`));
    });
    this.#pending.set(id, { command, resolve, reject });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    return promise.finally(cancel);
  }

  /** Ends the connection; what is outstanding fails. QEMU goes on. */
  close(): void {
    this.#fail("the connection to QEMU was closed");
  }

  async #greeting(): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#greeted = resolve;
    await Promise.race([promise, this.closed]);
    if (this.#end) throw this.#end;
  }

  #onLine(line: string): void {
    if (this.#end || line.trim() === "") return;
    let message: unknown;
    try {
      message = JSON.parse(line);
    } catch (cause) {
      this.#fail("QEMU sent a line that is not JSON", cause);
      return;
    }
    if (!isJsonObject(message)) this.#fail("QEMU sent JSON that is no object");
    else if (isJsonObject(message.QMP)) this.#onGreeting(message.QMP);
    else if (typeof message.event === "string") {
      const data = isJsonObject(message.data) ? message.data : {};
      this.#options.onEvent?.({ event: message.event, data });
    } else this.#onAnswer(message);
  }

  #onGreeting(greeting: JsonObject): void {
    const version = isJsonObject(greeting.version) ? greeting.version.qemu : undefined;
    if (isJsonObject(version)) this.version = `${version.major}.${version.minor}.${version.micro}`;
    if (isJsonObject(greeting.version)) this.package = String(greeting.version.package ?? "");
    this.#greeted?.();
  }

  #onAnswer(message: JsonObject): void {
    const pending = typeof message.id === "number" ? this.#pending.get(message.id) : undefined;
    // An answer that came after its time limit, or that QEMU could not attribute: nobody waits for it.
    if (pending === undefined) return;
    this.#pending.delete(message.id as number);
    if (!isJsonObject(message.error)) {
      pending.resolve(message.return ?? {});
      return;
    }
    const unknown = message.error.class === "CommandNotFound";
    pending.reject(
      new StrataError(
        unknown ? "Unsupported" : "Internal",
        unknown
          ? `this version of QEMU (${this.version}) has no ${pending.command}`
          : `QEMU could not do ${pending.command}`,
        { detail: String(message.error.desc).slice(0, 1000) },
      ),
    );
  }

  #fail(message: string, cause?: unknown, code: "Unavailable" | "Timeout" = "Unavailable"): void {
    if (this.#end) return;
    this.#end = new StrataError(code, message, cause === undefined ? {} : { cause });
    for (const pending of this.#pending.values()) pending.reject(this.#end);
    this.#pending.clear();
    this.#socket.destroy();
  }
}
