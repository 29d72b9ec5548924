/** One command's streams over three sockets, whose other ends are virtio-serial ports in the guest. */
import type { Socket } from "node:net";
import { PassThrough } from "node:stream";
import { StrataError } from "../../core/errors.ts";
import type { ExecSession } from "../driver.ts";
import { MarkedStream } from "./marked-stream.ts";

/** Why a command did not begin, as far as can be told from outside. */
export const cannotBegin = new StrataError(
  "Unavailable",
  "the guest did not begin the command; it needs sh, setsid and the driver virtio_console, for a terminal also script",
);

export interface ExecSockets {
  /** Ending our side is the end of the command's input. */
  in: Socket;
  /** `TOKEN begin PID [TERMINAL]`, the command's output, `TOKEN end STATUS`. */
  out: Socket;
  /** The command's errors, `TOKEN end`. */
  err: Socket;
}

/** What the guest said of it is no number. */
const unknownStatus = 255;

export class PortSession implements ExecSession {
  readonly stdin = new PassThrough();
  readonly stdout = new PassThrough();
  readonly stderr = new PassThrough();
  /** Rejects with Unavailable when the guest ends first. */
  readonly exit: Promise<number>;
  /** The command's process id in the guest, once it is about to run. */
  readonly began: Promise<number>;
  readonly #sockets: ExecSockets;
  readonly #exit = Promise.withResolvers<number>();
  readonly #began = Promise.withResolvers<number>();
  readonly #onResize: (terminal: string, columns: number, rows: number) => Promise<void>;
  #terminal: string | undefined;
  /** Not told to the guest yet; only the last one counts. */
  #size: { columns: number; rows: number } | undefined;
  #resizing = false;
  #status: number | undefined;
  #errorsEnded = false;

  /** `onResize` changes the size of a terminal in the guest. */
  constructor(
    sockets: ExecSockets,
    token: string,
    onResize: (terminal: string, columns: number, rows: number) => Promise<void>,
  ) {
    this.#sockets = sockets;
    this.#onResize = onResize;
    this.exit = this.#exit.promise;
    this.began = this.#began.promise;
    // Whoever does not wait for these need not handle their failure.
    this.exit.catch(() => {});
    this.began.catch(() => {});
    this.#forward(sockets.out, this.stdout, token, (text) => this.#onOutputMark(text));
    this.#forward(sockets.err, this.stderr, token, () => {
      this.#errorsEnded = true;
      this.#finishWhenComplete();
    });
    this.stdin.on("error", () => {});
    sockets.in.on("error", () => {});
    sockets.in.resume(); // nothing comes, but only a flowing socket notices its end
    this.stdin.pipe(sockets.in);
  }

  resize(columns: number, rows: number): void {
    this.#size = { columns, rows };
    if (!this.#resizing) void this.#passOnSize();
  }

  /** Ends all streams; the command's status is `status`, unless it is known already. */
  finish(status: number | StrataError): void {
    if (typeof status === "number") {
      this.#began.resolve(0);
      this.#exit.resolve(status);
    } else {
      this.#began.reject(status);
      this.#exit.reject(status);
    }
    for (const socket of Object.values(this.#sockets)) socket.destroy();
    this.stdin.destroy();
    this.stdout.end();
    this.stderr.end();
  }

  async #passOnSize(): Promise<void> {
    this.#resizing = true;
    while (this.#terminal !== undefined && this.#size !== undefined) {
      const { columns, rows } = this.#size;
      this.#size = undefined;
      await this.#onResize(this.#terminal, columns, rows);
    }
    this.#resizing = false;
  }

  #onOutputMark(text: string): void {
    const [word, value, terminal] = text.split(" ");
    if (word === "begin") {
      this.#terminal = terminal;
      this.#began.resolve(Number(value));
    } else {
      this.#began.reject(cannotBegin);
      const status = Number(value);
      this.#status ??= Number.isInteger(status) ? status : unknownStatus;
      this.#finishWhenComplete();
    }
  }

  #finishWhenComplete(): void {
    if (this.#status !== undefined && this.#errorsEnded) this.finish(this.#status);
  }

  #forward(socket: Socket, target: PassThrough, token: string, onMark: (text: string) => void): void {
    const write = (data: Uint8Array) => {
      if (target.writable && !target.write(data)) socket.pause();
    };
    target.on("drain", () => socket.resume());
    // A reader that goes away does not end the command; what it prints from then on is dropped.
    target.on("close", () => socket.resume());
    target.on("error", () => {});
    const marked = new MarkedStream(token, write, onMark);
    socket.on("data", (chunk: Buffer) => marked.push(chunk));
    socket.on("error", () => {});
    socket.on("close", () =>
      this.finish(new StrataError("Unavailable", "the guest ended while the command was running")),
    );
  }
}
