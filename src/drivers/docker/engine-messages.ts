/** The Engine's streams of JSON messages, one a line: events, and the progress of an import. */
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";

export interface EngineMessage {
  /** Of an import that failed. */
  error?: string;
  /** Of a build: what it prints. */
  stream?: string;
  /** Of an event. */
  Type?: string;
  Action?: string;
  Actor?: { ID?: string; Attributes?: Record<string, string> };
}

/** Ends with the stream, or when the signal aborts; what is no message is skipped. @throws what the stream fails with. */
export async function* messagesOf(stream: Readable, signal?: AbortSignal): AsyncGenerator<EngineMessage> {
  let failure: Error | undefined;
  stream.once("error", (error) => {
    failure = error;
  });
  const options = { input: stream, crlfDelay: Number.POSITIVE_INFINITY, ...(signal && { signal }) };
  for await (const line of createInterface(options)) {
    const message = parse(line);
    if (message !== undefined) yield message;
  }
  if (failure !== undefined) throw failure;
}

/** Reads to the end: the last message, or the first one that tells of an error. */
export async function lastMessage(stream: NodeJS.ReadableStream): Promise<EngineMessage> {
  let last: EngineMessage = {};
  for await (const message of messagesOf(stream as Readable)) {
    if (last.error === undefined) last = message;
  }
  return last;
}

function parse(line: string): EngineMessage | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return typeof value === "object" && value !== null ? value : undefined;
  } catch {
    return undefined;
  }
}
