import type { Readable } from "node:stream";
import type { FastifyInstance } from "fastify";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import type { Json } from "../core/json.ts";
import { HttpError } from "./problems.ts";

/** What a JSON body may be; all of it is checked before anything looks at it. */
export const bodyLimits = {
  bytes: 1024 * 1024,
  depth: 32,
  /** Objects, lists and values in all. */
  nodes: 80_000,
  /** Of a body that is too large, read and dropped before the refusal. */
  droppedBytes: 256 * 1024 * 1024,
  /** For the whole of it to arrive. */
  timeoutMs: 30_000,
} as const;

/** Bodies as JSON, read and checked here rather than by Fastify, so that every refusal reaches the client. */
export function installBodyParser(app: FastifyInstance, clock: Clock): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    ["application/json", "application/merge-patch+json"],
    async (_request: unknown, payload: Readable): Promise<Json | undefined> => {
      const text = await readText(payload, clock);
      return text === "" ? undefined : parseJson(text);
    },
  );
}

/**
 * @throws Invalid (413) beyond the limit. The rest is read and dropped first, because a client that is still sending when the
 * connection closes, which it does after a refusal, may never see the answer.
 */
async function readText(payload: Readable, clock: Clock): Promise<string> {
  const late = new AbortController();
  const cancel = clock.after(bodyLimits.timeoutMs, () => late.abort());
  const chunks: Buffer[] = [];
  let bytes = 0;
  try {
    // `destroyOnReturn: false` keeps the socket open for the answer.
    for await (const chunk of payload.iterator({ destroyOnReturn: false })) {
      if (late.signal.aborted) break;
      bytes += (chunk as Buffer).length;
      if (bytes > bodyLimits.droppedBytes) break;
      if (bytes > bodyLimits.bytes) chunks.length = 0;
      else chunks.push(chunk as Buffer);
    }
  } catch (cause) {
    throw new StrataError("Invalid", "the connection broke before the whole body arrived", { cause });
  } finally {
    cancel();
  }
  if (late.signal.aborted && bytes <= bodyLimits.bytes) {
    payload.resume();
    throw new HttpError(408, "Timeout", `the body did not arrive within ${bodyLimits.timeoutMs / 1000} s`);
  }
  if (bytes > bodyLimits.bytes) {
    payload.resume();
    throw new HttpError(
      413,
      "Invalid",
      `the body is too large: at most ${bodyLimits.bytes} bytes of JSON are read; send files to POST /v1/uploads`,
    );
  }
  return decode(Buffer.concat(chunks));
}

function decode(bytes: Buffer): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (cause) {
    throw new StrataError("Invalid", "the body is not valid UTF-8", { cause });
  }
}

/** @throws Invalid for malformed JSON, and for what is too deep or too much to look through. */
function parseJson(text: string): Json {
  let value: Json;
  try {
    value = JSON.parse(text) as Json;
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message.slice(0, 200) : "";
    throw new StrataError("Invalid", `the body is not JSON: ${reason}`, { cause });
  }
  checkShape(value);
  return value;
}

/** Without recursion, so that no input can exhaust the stack here; what passes is safe to recurse into. */
function checkShape(root: Json): void {
  let nodes = 0;
  let level: Json[] = [root];
  for (let depth = 0; level.length > 0; depth++) {
    if (depth > bodyLimits.depth) {
      throw new StrataError("Invalid", `the body is nested too deeply: at most ${bodyLimits.depth} levels`);
    }
    const next: Json[] = [];
    for (const value of level) {
      if (++nodes > bodyLimits.nodes) {
        throw new StrataError("Invalid", `the body has too many values: at most ${bodyLimits.nodes}`);
      }
      if (typeof value !== "object" || value === null) continue;
      if (Object.hasOwn(value, "__proto__")) {
        throw new StrataError("Invalid", 'the body has the key "__proto__", which is not allowed anywhere');
      }
      for (const child of Object.values(value)) next.push(child);
    }
    level = next;
  }
}
