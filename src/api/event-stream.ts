import type { ServerResponse } from "node:http";
import type { FastifyReply, FastifyRequest } from "fastify";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { toProblem } from "./problems.ts";

/** Server-sent events (WHATWG HTML): one answer that stays open, a line of its own for each field. */

export const streamLimits = {
  /** Between comments on a quiet stream; a client that hears nothing for three times as long may give up. */
  heartbeatMs: 15_000,
  /** A client that takes nothing for so long is dropped. */
  stalledMs: 30_000,
  /** Streams open at once. */
  maxStreams: 2_000,
} as const;

export interface ServerEvent {
  event: string;
  data: unknown;
  id?: string;
}

export class EventStreams {
  readonly #clock: Clock;
  readonly #open = new Set<AbortController>();
  #closing = false;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /**
   * Answers with the events that `source` yields until the client goes, the source ends or fails, the credentials
   * lapse, or the API closes. Reads the source only as fast as the client takes the events, so nothing piles up here.
   * A failure of the source is the last event, `error`, with a problem as its data. What `prepare` throws is an
   * ordinary answer.
   */
  async serve(
    request: FastifyRequest,
    reply: FastifyReply,
    prepare: (signal: AbortSignal) => Promise<AsyncIterable<ServerEvent>>,
  ): Promise<void> {
    if (this.#closing) throw new StrataError("Unavailable", "the daemon is shutting down; try again shortly");
    if (this.#open.size >= streamLimits.maxStreams) {
      throw new StrataError(
        "Unavailable",
        `${streamLimits.maxStreams} streams are open, which is the most there can be; try again later`,
      );
    }
    const ended = new AbortController();
    this.#open.add(ended);
    try {
      const source = await prepare(ended.signal);
      const response = reply.raw;
      response.once("close", () => ended.abort());
      reply.hijack();
      response.writeHead(200, {
        ...(reply.getHeaders() as Record<string, string>),
        "content-type": "text/event-stream",
        "cache-control": "no-store",
      });
      response.write(": open\n\n");
      await this.#pump(request, response, source, ended);
    } finally {
      this.#open.delete(ended);
      ended.abort();
    }
  }

  close(): void {
    this.#closing = true;
    for (const stream of this.#open) stream.abort();
  }

  async #pump(
    request: FastifyRequest,
    response: ServerResponse,
    source: AsyncIterable<ServerEvent>,
    ended: AbortController,
  ): Promise<void> {
    const heart = this.#beat(request, response, ended);
    try {
      for await (const event of source) {
        if (ended.signal.aborted) break;
        if (!response.write(format(event))) await this.#drained(response, ended.signal);
      }
    } catch (error) {
      if (!ended.signal.aborted) {
        response.write(format({ event: "error", data: toProblem(error, request.id).body }));
        request.log.debug({ err: error }, "an event stream ended with an error");
      }
    } finally {
      ended.abort();
      await heart;
      response.end();
    }
  }

  async #beat(request: FastifyRequest, response: ServerResponse, ended: AbortController): Promise<void> {
    try {
      for (;;) {
        await this.#clock.sleep(streamLimits.heartbeatMs, ended.signal);
        await request.reauthenticate();
        if (!response.writableNeedDrain) response.write(": heartbeat\n\n");
      }
    } catch {
      // Ended, or the token was revoked meanwhile: either way there is nothing more to say.
      ended.abort();
    }
  }

  async #drained(response: ServerResponse, signal: AbortSignal): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const cancel = this.#clock.after(streamLimits.stalledMs, () => {
      response.destroy();
      resolve();
    });
    response.once("drain", resolve);
    signal.addEventListener("abort", () => resolve(), { once: true });
    await promise;
    cancel();
    response.off("drain", resolve);
  }
}

function format({ event, data, id }: ServerEvent): string {
  // JSON has no raw line ends, so one data line is enough.
  return `${id === undefined ? "" : `id: ${id}\n`}event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}
