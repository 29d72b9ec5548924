/**
 * Keeps requests that come while no target is there: HAProxy connects to a Unix socket, nothing of the connection is
 * read, and once a target is up it is joined to that, whatever protocol it speaks. So it is counted, bounded, and
 * survives until somebody can answer.
 */
import { chmod, mkdir, rm } from "node:fs/promises";
import { createServer as createHttp2Server } from "node:http2";
import { connect, createServer, type Server, type Socket } from "node:net";
import { dirname } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { createServer as createHttpServer } from "../../core/node-http.ts";
import { balancerLimits } from "../../kinds/load-balancer.ts";

const noAnswer = [
  "HTTP/1.1 502 Bad Gateway",
  "content-type: text/plain",
  "connection: close",
  "",
  "the instance ended the connection without an answer\n",
].join("\r\n");

export interface HolderTarget {
  address: string;
  port: number;
  /** The host's address that leads to it. */
  source: string;
}

export interface HolderSettings {
  targets: readonly HolderTarget[];
  queueMs: number;
  connectMs: number;
  /** How it is said that nobody came; for `tcp` by closing. */
  protocol: "http1" | "http2" | "tcp";
}

interface Held {
  socket: Socket;
  cancel: () => void;
}

export class Holder {
  readonly #clock: Clock;
  readonly #onHeld: (count: number) => void;
  readonly #held = new Set<Held>();
  readonly #joined = new Set<Socket>();
  /** Connections to a target, on the way. */
  readonly #refuse = { http1: createHttpServer(), http2: createHttp2Server() };
  #settings: HolderSettings = { targets: [], queueMs: 0, connectMs: 0, protocol: "tcp" };
  #server: Server | undefined;
  #next = 0;

  /** `onHeld` is told of each change of how many there are. */
  constructor(clock: Clock, onHeld: (count: number) => void) {
    this.#clock = clock;
    this.#onHeld = onHeld;
    this.#refuse.http1.on("request", (_request, response) => {
      response.writeHead(503, { "content-type": "text/plain", "retry-after": "1", connection: "close" });
      response.end("no instance is there to answer\n");
    });
    this.#refuse.http2.on("request", (_request, response) => {
      response.writeHead(503, { "content-type": "text/plain", "retry-after": "1" });
      response.end("no instance is there to answer\n", () => response.stream.session?.close());
    });
  }

  get count(): number {
    return this.#held.size;
  }

  /** HAProxy may connect from then on. Replaces a socket that an earlier process left. */
  async listen(path: string): Promise<void> {
    if (this.#server) return;
    const server = createServer({ pauseOnConnect: true, allowHalfOpen: true }, (socket) =>
      this.#take(socket),
    );
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

  /** Whoever is held is joined to the targets as soon as there are any. */
  set(settings: HolderSettings): void {
    this.#settings = settings;
    if (settings.targets.length === 0) return;
    for (const held of [...this.#held]) this.#release(held);
  }

  close(): void {
    this.#server?.close();
    for (const { socket, cancel } of this.#held) {
      cancel();
      socket.destroy();
    }
    for (const socket of this.#joined) socket.destroy();
  }

  #take(socket: Socket): void {
    socket.on("error", () => {});
    if (this.#held.size >= balancerLimits.maxHeld) {
      this.#turnAway(socket);
      return;
    }
    const held: Held = {
      socket,
      cancel: this.#clock.after(this.#settings.queueMs, () => {
        if (this.#drop(held)) this.#turnAway(socket);
      }),
    };
    this.#held.add(held);
    socket.once("close", () => this.#drop(held));
    if (this.#settings.targets.length > 0) this.#release(held);
    else this.#onHeld(this.#held.size);
  }

  #drop(held: Held): boolean {
    if (!this.#held.delete(held)) return false;
    held.cancel();
    this.#onHeld(this.#held.size);
    return true;
  }

  #release(held: Held): void {
    const { targets, connectMs } = this.#settings;
    const target = targets[this.#next++ % targets.length];
    if (!target || !this.#drop(held)) return;
    const { socket } = held;
    const there = connect({
      host: target.address,
      port: target.port,
      localAddress: target.source,
      allowHalfOpen: true,
    });
    const cancel = this.#clock.after(connectMs, () => there.destroy());
    let open = false;
    there.on("connect", () => {
      open = true;
      cancel();
      socket.pipe(there);
      there.pipe(socket, { end: false });
    });
    there.on("end", () => this.#end(socket, there));
    there.on("error", () => {});
    there.on("close", () => {
      cancel();
      if (open) {
        this.#end(socket, there);
        socket.destroySoon();
      } else this.#turnAway(socket);
      this.#joined.delete(socket);
    });
    socket.on("close", () => there.destroy());
    this.#joined.add(socket);
  }

  /** Without an answer HAProxy would ask again, as it does when this process has ended; the instance has had its turn. */
  #end(socket: Socket, there: Socket): void {
    if (socket.writableEnded || socket.destroyed) return;
    if (there.bytesRead === 0 && this.#settings.protocol === "http1") socket.write(noAnswer);
    socket.end();
  }

  #turnAway(socket: Socket): void {
    const { protocol } = this.#settings;
    if (socket.destroyed) return;
    if (protocol === "tcp") {
      socket.destroy();
      return;
    }
    // What came is still unread.
    this.#refuse[protocol].emit("connection", socket);
    if (protocol === "http1") socket.resume();
  }
}
