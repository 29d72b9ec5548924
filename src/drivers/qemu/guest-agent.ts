/**
 * QEMU's guest agent: JSON over a virtio-serial port, one command at a time, no ids and no events. The guest may have
 * restarted or hung in the middle of anything, so each connection first finds its place in the stream by a number of its
 * own (guest-sync-delimited: the answer follows a byte that no JSON contains).
 *
 * The guest is not trusted: answers and times are bounded.
 *
 * @see https://www.qemu.org/docs/master/interop/qemu-ga-ref.html
 */
import type { Socket } from "node:net";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../../core/json.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import { type Random, randomInt } from "../../core/random.ts";
import { LineReader } from "./line-reader.ts";
import { openSocket } from "./open-socket.ts";

export interface GuestAgentOptions {
  clock: Clock;
  random: Random;
  /** For each answer, the first one included. */
  timeoutMs: number;
}

const maxLineBytes = 1024 * 1024;
const delimiter = 0xff;

/** The agent talks to one at a time. */
const conversations = new KeyedLock();

/** Talks to the agent behind the socket at `path` over a connection of its own. @throws as GuestAgent does. */
export function withAgent<Result>(
  path: string,
  options: GuestAgentOptions,
  signal: AbortSignal,
  use: (agent: GuestAgent) => Promise<Result>,
): Promise<Result> {
  return conversations.run(path, async () => {
    const agent = await GuestAgent.connect(path, options, signal);
    try {
      return await use(agent);
    } finally {
      agent.close();
      await agent.closed;
    }
  });
}

export class GuestAgent {
  /** Resolves when the connection has ended: the agent's socket serves one at a time. */
  readonly closed: Promise<void>;
  readonly #socket: Socket;
  readonly #options: GuestAgentOptions;
  #waiting: { resolve(answer: JsonObject): void; reject(error: unknown): void } | undefined;
  #end: StrataError | undefined;

  private constructor(socket: Socket, options: GuestAgentOptions) {
    this.#socket = socket;
    this.#options = options;
    const lines = new LineReader(maxLineBytes, (line) => this.#onLine(line));
    socket.on("data", (chunk: Buffer) => {
      if (!lines.push(chunk)) this.#fail("the guest agent sent an answer that is too long");
    });
    socket.on("error", (cause) => this.#fail("the connection to the guest agent broke", cause));
    const { promise, resolve } = Promise.withResolvers<void>();
    this.closed = promise;
    socket.on("close", () => {
      this.#fail("the guest ended before its agent answered");
      resolve();
    });
  }

  /** @throws Unavailable when no agent answers; the signal's reason when aborted. */
  static async connect(path: string, options: GuestAgentOptions, signal: AbortSignal): Promise<GuestAgent> {
    const agent = new GuestAgent(await openSocket(path, options, signal), options);
    const onAbort = () => agent.close();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      await agent.#synchronize();
      return agent;
    } catch (error) {
      agent.close();
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener("abort", onAbort);
    }
  }

  /**
   * `timeoutMs`: for this answer, where it may take longer than others.
   * @throws Unavailable when the agent does not answer; Unsupported when it refuses or does not know the command.
   */
  async execute(command: string, args: JsonObject = {}, timeoutMs?: number): Promise<Json> {
    const request = `${JSON.stringify({ execute: command, arguments: args })}\n`;
    const answer = await this.#ask(request, () => true, timeoutMs);
    if (!isJsonObject(answer.error)) return answer.return ?? {};
    const words = String(answer.error.desc).slice(0, 300);
    const refused = answer.error.class === "CommandNotFound";
    throw new StrataError(
      refused ? "Unsupported" : "Internal",
      refused
        ? `the guest agent does not allow ${command}; see the agent's configuration in the guest`
        : `the guest agent could not do ${command}: ${words}`,
      { detail: words },
    );
  }

  close(): void {
    this.#fail("the connection to the guest agent was closed");
  }

  async #synchronize(): Promise<void> {
    const id = randomInt(this.#options.random, 2 ** 31);
    const request = JSON.stringify({ execute: "guest-sync-delimited", arguments: { id } });
    // The delimiter makes the agent forget what somebody before us left half said.
    const bytes = Buffer.concat([Buffer.from([delimiter]), Buffer.from(`${request}\n`)]);
    await this.#ask(bytes, (answer) => answer.return === id);
  }

  /** Answers that do not fit are left over from another conversation. */
  async #ask(
    request: string | Uint8Array,
    fits: (answer: JsonObject) => boolean,
    timeoutMs = this.#options.timeoutMs,
  ): Promise<JsonObject> {
    if (this.#end) throw this.#end;
    const { clock } = this.#options;
    const { promise, resolve, reject } = Promise.withResolvers<JsonObject>();
    this.#waiting = {
      resolve: (answer) => {
        if (fits(answer)) resolve(answer);
      },
      reject,
    };
    const cancel = clock.after(timeoutMs, () => {
      this.#fail(`the guest agent did not answer within ${timeoutMs} ms; is qemu-guest-agent running?`);
    });
    this.#socket.write(request);
    try {
      return await promise;
    } finally {
      cancel();
      this.#waiting = undefined;
    }
  }

  #onLine(line: string): void {
    // The delimiter is no UTF-8: it was decoded to the replacement character.
    const text = line.slice(line.lastIndexOf("\ufffd") + 1).trim();
    if (text === "") return;
    let answer: unknown;
    try {
      answer = JSON.parse(text);
    } catch {
      return; // the rest of an answer to somebody else
    }
    if (isJsonObject(answer)) this.#waiting?.resolve(answer);
  }

  #fail(message: string, cause?: unknown): void {
    if (this.#end) return;
    this.#end = new StrataError("Unavailable", message, cause === undefined ? {} : { cause });
    this.#waiting?.reject(this.#end);
    this.#socket.destroy();
  }
}
