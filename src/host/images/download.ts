/** Fetches over HTTP as a stream, with limits on time; whoever reads it limits the size and checks the content. */
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";

export interface DownloadOptions {
  signal: AbortSignal;
  clock: Clock;
  /** Told the size when the server says it. */
  onSize?: (bytes: number) => void;
}

/** Without any byte for this long, a server counts as gone. */
const silenceMs = 60_000;

/** @throws (while reading) Unavailable when the server fails or falls silent; Invalid when it refuses the address. */
export async function* download(
  url: string,
  options: DownloadOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const { signal, clock, onSize } = options;
  const silence = new AbortController();
  let cancel = clock.after(silenceMs, () => silence.abort());
  try {
    const response = await fetch(url, {
      signal: AbortSignal.any([signal, silence.signal]),
      headers: { "accept-encoding": "identity", "user-agent": "strata" },
    });
    checkStatus(url, response);
    const length = Number(response.headers.get("content-length"));
    if (Number.isSafeInteger(length) && length > 0) onSize?.(length);
    for await (const chunk of response.body ?? []) {
      cancel();
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
  }
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

function checkStatus(url: string, { status, ok }: Response): void {
  if (ok) return;
  const retryable = status >= 500 || status === 408 || status === 429;
  throw new StrataError(
    retryable ? "Unavailable" : "Invalid",
    `cannot fetch ${plain(url)}: the server answers with status ${status}`,
  );
}

function reasonOf(error: unknown): string {
  const cause = error instanceof Error ? (error.cause as NodeJS.ErrnoException | undefined) : undefined;
  switch (cause?.code) {
    case "ENOTFOUND":
    case "EAI_AGAIN":
      return "is unknown to DNS";
    case "ECONNREFUSED":
      return "refuses the connection";
    default:
      return cause?.code ? `fails with ${cause.code}` : "ended the connection early";
  }
}
