import type { IncomingMessage } from "node:http";
import { type RawData, WebSocket } from "ws";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../core/json.ts";
import type { Channel } from "./client.ts";
import { fromProblem } from "./problem.ts";
import type { Transport } from "./transport.ts";

/**
 * The two-way streams of exec, console and log over one WebSocket. A binary message is one octet that names the
 * channel and then data; a text message is a control message in JSON.
 */

/** Larger data is sent in pieces. */
const maxDataBytes = 256 * 1024;
/** Of one message that is received. */
const maxMessageBytes = 1024 * 1024;
/** From dialling to the other end's answer: the API waits for the agent in between. */
const dialTimeoutMs = 30_000;

/** @throws the problem that the API answered with; Unavailable; Timeout; the signal's reason. */
export async function dialChannel(
  transport: Transport,
  path: string,
  clock: Clock,
  signal: AbortSignal,
): Promise<Channel> {
  signal.throwIfAborted();
  const { url, options } = transport.webSocketTarget(path);
  const socket = new WebSocket(url, {
    ...options,
    perMessageDeflate: false,
    maxPayload: maxMessageBytes,
    followRedirects: false,
  });
  const { promise: opened, resolve, reject } = Promise.withResolvers<void>();
  const onAbort = () => {
    reject(signal.reason);
    socket.terminate();
  };
  signal.addEventListener("abort", onAbort, { once: true });
  const cancel = clock.after(dialTimeoutMs, () => {
    reject(new StrataError("Timeout", `the other end did not answer within ${dialTimeoutMs / 1000} s`));
    socket.terminate();
  });
  socket.once("open", () => {
    // Nothing may arrive before somebody listens.
    socket.pause();
    resolve();
  });
  socket.once("unexpected-response", (_request, response) => {
    readRefusal(response, path).then(reject, reject);
  });
  socket.on("error", (cause) => {
    reject(
      new StrataError("Unavailable", `cannot reach the API at ${transport.where}: ${cause.message}`, {
        cause,
      }),
    );
  });
  try {
    await opened;
  } catch (error) {
    signal.removeEventListener("abort", onAbort);
    socket.terminate();
    throw error;
  } finally {
    cancel();
  }
  return new SocketChannel(socket, () => signal.removeEventListener("abort", onAbort));
}

class SocketChannel implements Channel {
  readonly #socket: WebSocket;
  readonly #release: () => void;
  #listening = false;
  #paused = false;
  /** How it ended, while nobody listens yet. */
  #end: { code: number; reason: string } | undefined;
  #closedByUs = false;
  #failure: Error | undefined;
  #onData: Channel["onData"] = () => {};
  #onControl: Channel["onControl"] = () => {};
  #onClose: Channel["onClose"] = () => {};

  constructor(socket: WebSocket, release: () => void) {
    this.#socket = socket;
    this.#release = release;
    socket.on("message", (data, isBinary) => this.#receive(data, isBinary));
    socket.on("error", (cause) => {
      this.#failure ??= new StrataError("Unavailable", `the stream broke: ${cause.message}`, { cause });
    });
    socket.on("close", (code, reason) => this.#ended(code, reason.toString()));
  }

  get onData(): Channel["onData"] {
    return this.#onData;
  }

  set onData(handler: Channel["onData"]) {
    this.#onData = handler;
    this.#listen();
  }

  get onControl(): Channel["onControl"] {
    return this.#onControl;
  }

  set onControl(handler: Channel["onControl"]) {
    this.#onControl = handler;
    this.#listen();
  }

  get onClose(): Channel["onClose"] {
    return this.#onClose;
  }

  set onClose(handler: Channel["onClose"]) {
    this.#onClose = handler;
    this.#listen();
  }

  async send(channel: number, data: Uint8Array): Promise<void> {
    for (let at = 0; at < data.length; at += maxDataBytes) {
      const message = Buffer.concat([Uint8Array.of(channel), data.subarray(at, at + maxDataBytes)]);
      await new Promise<void>((resolve, reject) => {
        this.#socket.send(message, { binary: true }, (cause) => {
          if (cause) reject(new StrataError("Unavailable", "the stream is closed", { cause }));
          else resolve();
        });
      });
    }
  }

  sendControl(message: JsonObject): void {
    if (this.#socket.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  pause(): void {
    this.#paused = true;
    this.#socket.pause();
  }

  resume(): void {
    this.#paused = false;
    if (this.#listening) this.#socket.resume();
  }

  close(): void {
    if (this.#closedByUs) return;
    this.#closedByUs = true;
    // An abort that follows must not cut off what was sent and the orderly end.
    this.#release();
    this.#socket.resume();
    this.#socket.close(1000);
  }

  /** Once the caller, who sets all handlers in one go, is done with it. */
  #listen(): void {
    if (this.#listening) return;
    this.#listening = true;
    setImmediate(() => {
      if (this.#end) this.#tellEnd(this.#end);
      else if (!this.#paused) this.#socket.resume();
    });
  }

  #receive(data: RawData, isBinary: boolean): void {
    const bytes = data as Buffer;
    if (isBinary) {
      if (bytes.length > 0) this.#onData(bytes[0] ?? 0, bytes.subarray(1));
      return;
    }
    const message = parseControl(bytes.toString());
    if (!message) {
      this.#failure ??= new StrataError(
        "Internal",
        "the stream carried a control message that is no JSON object",
      );
      this.#socket.close(1008);
      return;
    }
    if (message.type === "error") this.#failure ??= fromProblem(message.problem, 0, "the session");
    this.#onControl(message);
  }

  #ended(code: number, reason: string): void {
    this.#release();
    this.#end = { code, reason };
    if (this.#listening) this.#tellEnd(this.#end);
  }

  #tellEnd({ code, reason }: { code: number; reason: string }): void {
    const onClose = this.#onClose;
    this.#onClose = () => {};
    const inOrder = code === 1000 || this.#closedByUs;
    const broken = () =>
      new StrataError("Unavailable", `the stream ended unexpectedly${reason === "" ? "" : `: ${reason}`}`);
    const failure = this.#failure ?? (inOrder ? undefined : broken());
    if (failure) onClose(failure);
    else onClose();
  }
}

function parseControl(text: string): JsonObject | undefined {
  try {
    const message = JSON.parse(text) as Json;
    return isJsonObject(message) ? message : undefined;
  } catch {
    return undefined;
  }
}

async function readRefusal(response: IncomingMessage, path: string): Promise<StrataError> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    chunks.push(chunk as Buffer);
    bytes += (chunk as Buffer).length;
    if (bytes > maxMessageBytes) break;
  }
  let problem: Json | undefined;
  try {
    problem = JSON.parse(Buffer.concat(chunks).toString()) as Json;
  } catch {
    problem = undefined;
  }
  return fromProblem(problem, response.statusCode ?? 0, `GET ${path.split("?", 1)[0]}`);
}
