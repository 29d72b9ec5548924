import type { Agent as HttpAgent, IncomingMessage, RequestOptions } from "node:http";
import { Agent as HttpsAgent, request as requestHttps } from "node:https";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import type { Clock } from "../core/clock.ts";
import { hasCode, StrataError } from "../core/errors.ts";
import type { Json } from "../core/json.ts";
import { Agent, request as requestHttp } from "../core/node-http.ts";
import { type Random, randomFraction } from "../core/random.ts";
import { fromProblem } from "./problem.ts";

/** Where the API is. */
export type Endpoint =
  | { socketPath: string }
  /** `https://HOST[:PORT]`; `ca` is PEM, for a certificate that no public authority signed. */
  | { url: string; token?: string; ca?: string };

export interface TransportOptions {
  endpoint: Endpoint;
  clock: Clock;
  random: Random;
  /** How long a call that can't reach the API tries again; 0: not at all. */
  retryForMs: number;
  /** How long the answer to one attempt may take. */
  timeoutMs: number;
}

export interface Call {
  method: string;
  path: string;
  headers?: Readonly<Record<string, string>>;
  body?: Json;
  /** Sent instead of `body`, once: such a call is never repeated. */
  stream?: AsyncIterable<Uint8Array>;
  /** May it be repeated when nobody knows whether the first attempt took effect? */
  idempotent: boolean;
  /** No bound on the time or size of the answer: the caller reads it as it comes. */
  openEnded?: boolean;
  signal?: AbortSignal | undefined;
}

export interface Answer {
  status: number;
  headers: IncomingMessage["headers"];
  json: Json | undefined;
}

const firstPauseMs = 50;
const longestPauseMs = 2_000;
/** A page of resources is at most a few MiB. */
const maxAnswerBytes = 64 * 1024 * 1024;
const maxSockets = 64;

/** HTTP to one API over kept-alive connections, with the retries that are safe. */
export class Transport {
  readonly #options: TransportOptions;
  readonly #agent: HttpAgent;
  readonly #base: URL | undefined;

  /** @throws Invalid for a URL that is not https. */
  constructor(options: TransportOptions) {
    this.#options = options;
    const { endpoint } = options;
    if ("socketPath" in endpoint) {
      this.#agent = new Agent({ keepAlive: true, maxSockets });
      return;
    }
    this.#base = parseUrl(endpoint.url);
    this.#agent = new HttpsAgent({
      keepAlive: true,
      maxSockets,
      ...(endpoint.ca === undefined ? {} : { ca: endpoint.ca }),
    });
  }

  /** Answers of status 2xx and 304. @throws the error that the API gave; Unavailable; Timeout; the signal's reason. */
  async call(call: Call): Promise<Answer> {
    return this.#retrying(call, async (attempt, repeated) => {
      const { response, text } = await this.#read(call, attempt);
      const status = response.statusCode ?? 0;
      const json = parseJson(text);
      // The attempt before, whose answer was lost, has done it.
      if (status === 404 && repeated && call.method === "DELETE") {
        return { status: 204, headers: response.headers, json: undefined };
      }
      if (status < 300 || status === 304) return { status, headers: response.headers, json };
      throw fromProblem(json, status, this.#describe(call));
    });
  }

  /** The body as it comes, until it ends or the signal aborts. @throws as `call` does. */
  async open(call: Call): Promise<Readable> {
    return this.#retrying({ ...call, openEnded: true }, async (attempt) => {
      const response = await this.#send({ ...call, openEnded: true }, attempt);
      const status = response.statusCode ?? 0;
      if (status < 300) return response;
      throw fromProblem(parseJson(await readText(response)), status, this.#describe(call));
    });
  }

  /** Where and how a WebSocket connects. */
  webSocketTarget(path: string): { url: string; options: RequestOptions & { ca?: string } } {
    const { endpoint } = this.#options;
    if ("socketPath" in endpoint) {
      // The form that the `ws` library understands: path of the socket, then of the request.
      return { url: `ws+unix:${endpoint.socketPath}:${path}`, options: {} };
    }
    const url = new URL(path, this.#base);
    url.protocol = "wss:";
    const options = {
      headers: this.#authorization(),
      ...(endpoint.ca === undefined ? {} : { ca: endpoint.ca }),
    };
    return { url: url.href, options };
  }

  /** Where the API is, for messages. */
  get where(): string {
    const { endpoint } = this.#options;
    return "socketPath" in endpoint ? endpoint.socketPath : endpoint.url;
  }

  close(): void {
    this.#agent.destroy();
  }

  /** `repeated`: an earlier attempt may have taken effect. */
  async #retrying<T>(
    call: Call,
    attempt: (signal: AttemptSignal, repeated: boolean) => Promise<T>,
  ): Promise<T> {
    const { clock, random, retryForMs, timeoutMs } = this.#options;
    const deadline = clock.monotonicMs() + retryForMs;
    let reused = false;
    let repeated = false;
    for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(pauseMs * 2, longestPauseMs)) {
      const signal = new AttemptSignal(clock, call, timeoutMs, this.#describe(call));
      try {
        return await attempt(signal, repeated);
      } catch (error) {
        call.signal?.throwIfAborted();
        if (!mayRepeat(call, error)) throw withoutMark(error);
        // A connection that the API closed just as it was used again: a fresh one shows how things are.
        const fresh: boolean = error instanceof Unreachable && error.reused && !reused;
        if (!fresh && clock.monotonicMs() + pauseMs > deadline) throw withoutMark(error);
        reused ||= fresh;
        repeated ||= error instanceof Unreachable && error.sent;
        if (!fresh) await clock.sleep(pauseMs * (0.5 + randomFraction(random) / 2), call.signal);
      } finally {
        signal.release();
      }
    }
  }

  async #read(call: Call, attempt: AttemptSignal): Promise<{ response: IncomingMessage; text: string }> {
    const response = await this.#send(call, attempt);
    try {
      const text = await readText(response);
      // An answer that came before the whole stream was sent: the rest is not wanted.
      if (call.stream && (response.statusCode ?? 0) >= 300) response.destroy();
      return { response, text };
    } catch (cause) {
      if (attempt.signal.aborted) throw attempt.signal.reason;
      if (cause instanceof StrataError) throw cause;
      throw new Unreachable(`the answer to ${this.#describe(call)} broke off`, cause, {
        sent: true,
        reused: false,
      });
    }
  }

  #send(call: Call, attempt: AttemptSignal): Promise<IncomingMessage> {
    const body = call.body === undefined ? undefined : JSON.stringify(call.body);
    const { endpoint } = this.#options;
    const headers: Record<string, string> = { ...this.#authorization(), ...call.headers };
    if (body !== undefined) {
      headers["content-type"] ??= "application/json";
      headers["content-length"] = String(Buffer.byteLength(body));
    }
    const options: RequestOptions = {
      method: call.method,
      path: call.path,
      headers,
      agent: this.#agent,
      signal: attempt.signal,
    };
    return new Promise((resolve, reject) => {
      const request =
        "socketPath" in endpoint
          ? requestHttp({ ...options, socketPath: endpoint.socketPath, host: "strata" })
          : requestHttps(this.#base ?? "", options);
      let connected = false;
      request.once("socket", (socket) => {
        if (!socket.connecting) connected = true;
        else
          socket.once("connect", () => {
            connected = true;
          });
      });
      request.once("response", resolve);
      request.once("error", (cause) => {
        if (attempt.signal.aborted) reject(attempt.signal.reason);
        else reject(this.#unreachable(cause, { sent: connected, reused: request.reusedSocket }));
      });
      if (call.stream) {
        // A failed upload shows as the request's own error or as the answer.
        pipeline(Readable.from(call.stream), request).catch((error) => request.destroy(error));
      } else request.end(body);
    });
  }

  #unreachable(cause: NodeJS.ErrnoException, state: { sent: boolean; reused: boolean }): Unreachable {
    const reasons: Record<string, string> = {
      ECONNREFUSED: "nothing listens there; is the daemon running?",
      ENOENT: "there is no such socket; is the daemon running?",
      EACCES: "this user may not open it; try as root",
      ECONNRESET: "the connection was closed before the answer; the daemon may be restarting",
      DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed; give its CA",
      SELF_SIGNED_CERT_IN_CHAIN: "its certificate is self-signed; give its CA",
    };
    const reason = reasons[cause.code ?? ""] ?? cause.message;
    return new Unreachable(`cannot reach the API at ${this.where}: ${reason}`, cause, state);
  }

  #authorization(): Record<string, string> {
    const { endpoint } = this.#options;
    return "token" in endpoint && endpoint.token !== undefined
      ? { authorization: `Bearer ${endpoint.token}` }
      : {};
  }

  #describe(call: Call): string {
    return `${call.method} ${call.path.split("?", 1)[0]}`;
  }
}

/** The API could not be reached, or went away. Never leaves this file as such. */
class Unreachable extends StrataError {
  /** The request may have arrived. */
  readonly sent: boolean;
  /** On a connection that had been used before. */
  readonly reused: boolean;

  constructor(message: string, cause: unknown, state: { sent: boolean; reused: boolean }) {
    super("Unavailable", message, { cause });
    this.sent = state.sent;
    this.reused = state.reused;
  }
}

function withoutMark(error: unknown): unknown {
  if (!(error instanceof Unreachable)) return error;
  return new StrataError("Unavailable", error.message, { cause: error.cause });
}

function mayRepeat(call: Call, error: unknown): boolean {
  if (call.stream) return false;
  if (error instanceof Unreachable) return call.idempotent || !error.sent;
  return call.idempotent && hasCode(error, "Unavailable");
}

/** Aborts one attempt: because the caller gave up, or because the time for it is over. */
class AttemptSignal {
  readonly signal: AbortSignal;
  readonly #cancel: () => void;

  constructor(clock: Clock, call: Call, timeoutMs: number, what: string) {
    const expired = new AbortController();
    const expire = () =>
      expired.abort(
        new StrataError("Timeout", `${what} was not answered within ${Math.round(timeoutMs / 1000)} s`),
      );
    this.#cancel = call.openEnded || call.stream ? () => {} : clock.after(timeoutMs, expire);
    this.signal = call.signal ? AbortSignal.any([call.signal, expired.signal]) : expired.signal;
  }

  release(): void {
    this.#cancel();
  }
}

async function readText(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response) {
    bytes += (chunk as Buffer).length;
    if (bytes > maxAnswerBytes) {
      response.destroy();
      throw new StrataError("Internal", `the API sent an answer of more than ${maxAnswerBytes} bytes`);
    }
    chunks.push(chunk as Buffer);
  }
  return Buffer.concat(chunks).toString();
}

function parseJson(text: string): Json | undefined {
  try {
    return text === "" ? undefined : (JSON.parse(text) as Json);
  } catch {
    return undefined;
  }
}

function parseUrl(text: string): URL {
  const url = URL.parse(text);
  if (url?.protocol === "https:") return url;
  throw new StrataError("Invalid", `"${text}" is no URL of an API; write https://HOST:PORT`);
}
