/**
 * Takes a balancer's log from HAProxy: a stream over a Unix socket, fed from a ring in HAProxy's memory that drops the
 * oldest when nobody reads. So a daemon that is away costs old lines and never a request.
 */
import { chmod, mkdir, rm } from "node:fs/promises";
import { createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import { StringDecoder } from "node:string_decoder";
import type { Clock } from "../../core/clock.ts";
import { type AccessRecord, type Latency, parseAccessLine, parseLatencyLine } from "./access-log.ts";

const maxLineBytes = 8 * 1024;
/**
 * What is read in the long run. Beyond it nothing is taken for a while and HAProxy drops what does not fit into its ring:
 * the processors belong to the requests. HAProxy itself thins its lines out, so this holds where many listeners are
 * busy at once, or its configuration is from before.
 */
export const linesPerSecond = 2_000;

/** How far ahead of that rate a burst may be. */
export const burstMs = 500;

/** Nothing is taken for so long after something was: one awakening for many lines costs far less than one for each. */
const gatherMs = 20;

export interface LogListener {
  onAccess(record: AccessRecord): void;
  /** Of a balancer without an access log. */
  onLatency(latency: Latency): void;
  /** HAProxy says something else: of its servers' health, mostly. */
  onNotice(line: string): void;
}

export class LogIntake {
  readonly #listener: LogListener;
  readonly #clock: Clock;
  readonly #sockets = new Set<Socket>();
  #server: Server | undefined;
  /** When what was taken so far may have been taken, at that rate. */
  #paidUntil = 0;

  constructor(listener: LogListener, clock: Clock) {
    this.#listener = listener;
    this.#clock = clock;
  }

  /** Replaces a socket that an earlier process left. */
  async listen(path: string): Promise<void> {
    if (this.#server) return;
    const server = createServer((socket) => this.#read(socket));
    this.#server = server;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    await rm(path, { force: true });
    await new Promise<void>((resolve, reject) => {
      server.on("error", reject);
      server.listen(path, resolve);
    });
    server.unref();
    await chmod(path, 0o666);
  }

  close(): void {
    this.#server?.close();
    for (const socket of this.#sockets) socket.destroy();
  }

  #rest(socket: Socket, lines: number): void {
    const now = this.#clock.monotonicMs();
    this.#paidUntil = Math.max(this.#paidUntil, now) + (lines * 1000) / linesPerSecond;
    const aheadMs = this.#paidUntil - now;
    socket.pause();
    this.#clock.after(aheadMs < burstMs ? gatherMs : aheadMs, () => socket.resume());
  }

  #read(socket: Socket): void {
    this.#sockets.add(socket);
    const decoder = new StringDecoder("utf8");
    let rest = "";
    socket.unref();
    socket.on("error", () => {});
    socket.on("close", () => this.#sockets.delete(socket));
    socket.on("data", (data) => {
      const lines = (rest + decoder.write(data)).split("\n");
      rest = (lines.pop() ?? "").slice(0, maxLineBytes);
      this.#rest(socket, lines.length);
      for (const line of lines) this.#take(line);
    });
  }

  #take(line: string): void {
    if (line === "") return;
    const latency = parseLatencyLine(line);
    const record = latency ? undefined : parseAccessLine(line);
    if (latency) this.#listener.onLatency(latency);
    else if (record) this.#listener.onAccess(record);
    else this.#listener.onNotice(line);
  }
}
