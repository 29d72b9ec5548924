/**
 * Takes a balancer's log from the pipe that HAProxy writes it to without ever waiting. So a daemon that is away or busy costs
 * lines and never a request.
 */
import { constants, open as openFile } from "node:fs";
import { Socket } from "node:net";
import { StringDecoder } from "node:string_decoder";
import { promisify } from "node:util";
import type { Clock } from "../../core/clock.ts";
import { ensureLogPipe } from "../../host/balancers/log-pipe.ts";
import { type AccessRecord, type Latency, parseAccessLine, parseLatencyLine } from "./access-log.ts";

const open = promisify(openFile);
const maxLineBytes = 8 * 1024;
/**
 * What is read in the long run. Beyond it nothing is taken for a while and HAProxy drops what does not fit into the pipe:
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
  #socket: Socket | undefined;
  /** When what was taken so far may have been taken, at that rate. */
  #paidUntil = 0;

  constructor(listener: LogListener, clock: Clock) {
    this.#listener = listener;
    this.#clock = clock;
  }

  /** Makes the pipe if need be; what an earlier process left in it comes first. */
  async listen(path: string): Promise<void> {
    if (this.#socket) return;
    await ensureLogPipe(path);
    // For writing as well: a pipe without a writer would be at its end before HAProxy has opened it.
    const fd = await open(path, constants.O_RDWR | constants.O_NONBLOCK);
    this.#read(new Socket({ fd, readable: true, writable: false }));
  }

  close(): void {
    this.#socket?.destroy();
  }

  #rest(socket: Socket, lines: number): void {
    const now = this.#clock.monotonicMs();
    this.#paidUntil = Math.max(this.#paidUntil, now) + (lines * 1000) / linesPerSecond;
    const aheadMs = this.#paidUntil - now;
    socket.pause();
    this.#clock.after(aheadMs < burstMs ? gatherMs : aheadMs, () => socket.resume());
  }

  #read(socket: Socket): void {
    this.#socket = socket;
    const decoder = new StringDecoder("utf8");
    let rest = "";
    socket.unref();
    socket.on("error", () => {});
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
