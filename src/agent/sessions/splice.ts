/**
 * Joins a session's channel with streams on this host. Neither end is read faster than the other takes it: output
 * waits for the channel, and the channel is paused while input waits for the guest.
 */
import type { Writable } from "node:stream";
import type { Channel } from "../../client/client.ts";

const stdinChannel = 0;
export const stdoutChannel = 1;
export const stderrChannel = 2;

/** Of a session: its channel, and the receiving side of that. */
export interface SessionEnds {
  channel: Channel;
  inbox: Inbox;
}

/** Sends all of a stream; resolves at its end. @throws when the stream or the channel breaks. */
export async function pump(
  from: AsyncIterable<Uint8Array | string>,
  to: Channel,
  channel: number,
): Promise<void> {
  for await (const chunk of from) {
    const data = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    if (data.length > 0) await to.send(channel, data);
  }
}

/**
 * The receiving side of a channel. What arrives before somebody wants it is kept, and the channel paused, so that
 * nothing typed early is lost.
 */
export class Inbox {
  readonly #channel: Channel;
  #early: (() => void)[] = [];
  #isOpen = false;
  #onData: Channel["onData"] = () => {};
  #onControl: Channel["onControl"] = () => {};

  constructor(channel: Channel, onClose: Channel["onClose"]) {
    this.#channel = channel;
    channel.onData = (number, data) => this.#take(() => this.#onData(number, data));
    channel.onControl = (message) => this.#take(() => this.#onControl(message));
    channel.onClose = onClose;
  }

  /** Input goes to the stream, control messages (but the end of input) to `onControl`. */
  open(into: Writable | undefined, onControl: Channel["onControl"] = () => {}): void {
    if (into) this.#feed(into);
    this.#onControl = (message) => {
      if (message.type !== "stdin-end") onControl(message);
      else if (into && !into.writableEnded) into.end();
    };
    this.#isOpen = true;
    const early = this.#early;
    this.#early = [];
    for (const deliver of early) deliver();
    if (early.length > 0 && !into?.writableNeedDrain) this.#channel.resume();
  }

  #take(deliver: () => void): void {
    if (this.#isOpen) deliver();
    else {
      this.#early.push(deliver);
      this.#channel.pause();
    }
  }

  /** A stream that ended swallows the rest. */
  #feed(into: Writable): void {
    const channel = this.#channel;
    into.on("error", () => {}); // the command may end without reading its input
    into.on("drain", () => channel.resume());
    into.on("close", () => channel.resume());
    this.#onData = (number, data) => {
      if (number !== stdinChannel || into.destroyed || into.writableEnded) return;
      if (!into.write(data)) channel.pause();
    };
  }
}
