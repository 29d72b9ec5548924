/** Fetches over HTTP as a stream that goes on where it broke off, with limits on time; whoever reads it limits the size and checks the content. */
import type { IncomingMessage } from "node:http";
import type { Clock } from "../../core/clock.ts";
import { isRetryable, StrataError } from "../../core/errors.ts";
import { trustAsTheSystemDoes } from "../../core/system-trust.ts";
import { type GetOptions, guardedGet } from "../egress/guarded-get.ts";

export interface DownloadOptions {
  signal: AbortSignal;
  /** See GetOptions. */
  guard: GetOptions["guard"];
  clock: Clock;
  /** Told the size when the server says it. */
  onSize?: (bytes: number) => void;
}

/** Without any byte for this long, a server counts as gone. */
const silenceMs = 60_000;

/** Times that a download goes on where it broke off, and how long it waits before. */
const maxResumptions = 5;
const resumeAfterMs = 2_000;

/**
 * The bytes. Where the server can send a part of a file and says which version it has, a connection that breaks is made
 * anew and the rest fetched; should the file have changed meanwhile, it fails.
 * @throws (while reading) Unavailable when the server fails or falls silent; Invalid when it refuses the address.
 */
export async function* download(
  url: string,
  options: DownloadOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const { signal, clock } = options;
  const progress: Progress = { received: 0, version: undefined };
  for (let resumptions = 0; ; resumptions++) {
    try {
      return yield* receive(url, options, progress);
    } catch (error) {
      signal.throwIfAborted();
      const broke = error instanceof StrataError && isRetryable(error.code);
      if (!broke || progress.version === undefined || resumptions === maxResumptions) throw error;
      await clock.sleep(resumeAfterMs, signal);
    }
  }
}

interface Progress {
  received: number;
  /** The server's name for what it sends (a strong ETag, or a date); undefined when it cannot go on. */
  version: string | undefined;
}

async function* receive(
  url: string,
  { signal, clock, guard, onSize }: DownloadOptions,
  progress: Progress,
): AsyncGenerator<Uint8Array, void, void> {
  const silence = new AbortController();
  let cancel = clock.after(silenceMs, () => silence.abort());
  trustAsTheSystemDoes();
  let response: IncomingMessage | undefined;
  try {
    const { received, version } = progress;
    const part =
      version === undefined || received === 0 ? {} : { range: `bytes=${received}-`, "if-range": version };
    response = await guardedGet(url, {
      signal: AbortSignal.any([signal, silence.signal]),
      headers: { "accept-encoding": "identity", "user-agent": "strata", ...part },
      guard,
    });
    checkStatus(url, response);
    if ("range" in part) checkPart(url, response, received);
    else {
      progress.received = 0;
      progress.version = versionOf(response);
      const length = Number(response.headers["content-length"]);
      if (Number.isSafeInteger(length) && length > 0) onSize?.(length);
    }
    for await (const chunk of response as AsyncIterable<Buffer>) {
      cancel();
      progress.received += chunk.length;
      yield chunk;
      cancel = clock.after(silenceMs, () => silence.abort());
    }
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof StrataError) throw error;
    const reason = silence.signal.aborted ? `sent nothing for ${silenceMs / 1000} s` : reasonOf(error);
    throw new StrataError("Unavailable", `cannot fetch ${plain(url)}: the server ${reason}`, {
      cause: error,
    });
  } finally {
    cancel();
    response?.destroy();
  }
}

/** RFC 9110, 13.1.5: a weak ETag does not tell that bytes are the same. */
function versionOf({ headers }: IncomingMessage): string | undefined {
  if (headers["accept-ranges"] !== "bytes") return undefined;
  const { etag, "last-modified": modified } = headers;
  return etag !== undefined && !etag.startsWith("W/") ? etag : modified;
}

/** @throws Invalid when the server begins anew, since what was read already is gone. */
function checkPart(url: string, { headers, statusCode }: IncomingMessage, received: number): void {
  const from = /^bytes (\d+)-/.exec(headers["content-range"] ?? "")?.[1];
  if (statusCode === 206 && Number(from) === received) return;
  throw new StrataError(
    "Invalid",
    `cannot fetch ${plain(url)}: the file changed while it was fetched; try again`,
  );
}

/** A small document as text. @throws Invalid when it is larger than maxBytes. */
export async function downloadText(url: string, maxBytes: number, options: DownloadOptions): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of download(url, options)) {
    bytes += chunk.length;
    if (bytes > maxBytes) {
      throw new StrataError("Invalid", `${plain(url)} is larger than ${maxBytes} bytes, the limit`);
    }
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

/** Without query and credentials, which may be secrets. */
export function plain(url: string): string {
  const { origin, pathname } = new URL(url);
  return `${origin}${pathname}`;
}

function checkStatus(url: string, { statusCode: status = 0 }: IncomingMessage): void {
  if (status >= 200 && status < 300) return;
  const retryable = status >= 500 || status === 408 || status === 429;
  throw new StrataError(
    retryable ? "Unavailable" : "Invalid",
    `cannot fetch ${plain(url)}: the server answers with status ${status}`,
  );
}

function reasonOf(error: unknown): string {
  const { code } = error as NodeJS.ErrnoException;
  switch (code) {
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return "is unknown to DNS";
    case "ECONNREFUSED":
      return "refuses the connection";
    default:
      return code === undefined || code === "ECONNRESET"
        ? "ended the connection early"
        : `fails with ${code}`;
  }
}
