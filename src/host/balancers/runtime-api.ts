/**
 * HAProxy's runtime API over one connection that stays open: commands go one after the other, each answered before the
 * next is sent. A connection that broke is made anew.
 */
import { connect, type Socket } from "node:net";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";

const answerTimeoutMs = 5_000;
/** What ends an answer in interactive mode. */
const promptText = "\n> ";

interface Open {
  socket: Socket;
  /** Takes what comes; rejects when the connection ends. */
  answer: PromiseWithResolvers<string> | undefined;
  text: string;
}

export class RuntimeApi {
  readonly #path: string;
  readonly #clock: Clock;
  #open: Open | undefined;
  #last: Promise<unknown> = Promise.resolve();

  constructor(path: string, clock: Clock) {
    this.#path = path;
    this.#clock = clock;
  }

  /** The answer, without what surrounds it. @throws Unavailable when nobody answers, Timeout */
  ask(command: string): Promise<string> {
    const answer = this.#last.then(() => this.#ask(command));
    this.#last = answer.catch(() => {});
    return answer;
  }

  /** The next command makes a new connection. */
  close(): void {
    this.#open?.socket.destroy();
    this.#open = undefined;
  }

  async #ask(command: string): Promise<string> {
    const reused = this.#open !== undefined;
    try {
      return await this.#exchange(command);
    } catch (error) {
      this.close();
      // The other end may have closed it long ago, as after a reload; a repeated command does no harm.
      if (!reused) throw error;
      return await this.#exchange(command);
    }
  }

  async #exchange(command: string): Promise<string> {
    const open = this.#open ?? (await this.#connect());
    return await this.#answerTo(open, command);
  }

  async #connect(): Promise<Open> {
    const socket = connect(this.#path);
    const open: Open = { socket, answer: undefined, text: "" };
    const end = (cause?: Error) => {
      if (this.#open === open) this.#open = undefined;
      open.answer?.reject(
        new StrataError("Unavailable", `HAProxy does not answer at ${this.#path}`, {
          ...(cause ? { cause } : {}),
        }),
      );
    };
    socket.setEncoding("utf8").unref();
    socket.on("error", end).on("close", () => end());
    socket.on("data", (text: string) => {
      open.text += text;
      if (!open.text.endsWith(promptText) && open.text !== "> ") return;
      open.answer?.resolve(open.text.slice(0, -promptText.length));
      open.text = "";
    });
    this.#open = open;
    await this.#answerTo(open, "prompt");
    return open;
  }

  async #answerTo(open: Open, command: string): Promise<string> {
    const answer = Promise.withResolvers<string>();
    open.answer = answer;
    const cancel = this.#clock.after(answerTimeoutMs, () => {
      answer.reject(new StrataError("Timeout", `HAProxy did not answer within ${answerTimeoutMs} ms`));
      open.socket.destroy();
    });
    try {
      open.socket.write(`${command}\n`);
      return (await answer.promise).trim();
    } finally {
      cancel();
      open.answer = undefined;
    }
  }
}
