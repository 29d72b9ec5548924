/**
 * Runs inside of a guest's namespace for tests and measurements of packet rules: answers on ports, and does what it is
 * told by lines of JSON on its standard input. Arguments: the ports to answer on. Answers say from where they were asked.
 */
import { createSocket, type Socket as Datagram } from "node:dgram";
import { connect, createServer, isIPv6, type Socket } from "node:net";
import { createInterface } from "node:readline";

const plainAddress = (text: string | undefined) => (text ?? "").replace(/^::ffff:/, "");
const say = (message: object) => process.stdout.write(`${JSON.stringify(message)}\n`);

for (const port of process.argv.slice(2).map(Number)) {
  createServer((socket) => {
    socket.on("error", () => {});
    socket.write(`${plainAddress(socket.remoteAddress)}\n`);
    socket.on("data", (data) => socket.write(data));
  }).listen(port, "::");
  const datagrams = createSocket("udp6").bind(port, "::");
  datagrams.on("message", (_, from) => datagrams.send(plainAddress(from.address), from.port, from.address));
}

const streams = new Map<string, Socket>();
const pumps = new Map<string, { socket: Socket; count: number; longestMs: number; sentAtMs: number }>();
const probes = new Map<string, { socket: Datagram; timer: NodeJS.Timeout; lastMs: number; count: number }>();

const verbs: Record<string, (request: Record<string, string>) => void> = {
  /** One connection; `from` is what the other side said it saw. */
  tcp({ id, address, port, timeoutMs }) {
    const socket = connect({ host: address ?? "", port: Number(port) });
    const end = (answer: object) => {
      clearTimeout(timer);
      socket.destroy();
      say({ id, ...answer });
    };
    const timer = setTimeout(() => end({ ok: false, why: "timeout" }), Number(timeoutMs ?? 700));
    socket.on("error", (error: NodeJS.ErrnoException) => end({ ok: false, why: error.code }));
    socket.once("data", (data) => end({ ok: true, from: String(data).trim() }));
  },
  udp({ id, address, port, timeoutMs }) {
    const socket = createSocket(isIPv6(address ?? "") ? "udp6" : "udp4");
    const end = (answer: object) => {
      clearTimeout(timer);
      socket.close();
      say({ id, ...answer });
    };
    const timer = setTimeout(() => end({ ok: false, why: "timeout" }), Number(timeoutMs ?? 700));
    socket.on("error", (error: NodeJS.ErrnoException) => end({ ok: false, why: error.code }));
    socket.once("message", (data) => end({ ok: true, from: String(data) }));
    socket.send("?", Number(port), address);
  },
  /** A connection that stays; everything sent comes back. */
  open({ id, name, address, port }) {
    const socket = connect({ host: address ?? "", port: Number(port) });
    streams.set(name ?? "", socket);
    socket.on("error", () => {});
    socket.once("data", () => say({ id, ok: true }));
  },
  /** Sends one line by such a connection and waits for it to come back. */
  echo({ id, name, timeoutMs }) {
    const socket = streams.get(name ?? "");
    const timer = setTimeout(() => say({ id, ok: false }), Number(timeoutMs ?? 700));
    socket?.once("data", () => {
      clearTimeout(timer);
      say({ id, ok: true });
    });
    socket?.write("echo\n");
  },
  /** A connection that sends a kilobyte whenever the last one came back; `pumped` says how often and what took longest. */
  pump({ id, name, address, port }) {
    const socket = connect({ host: address ?? "", port: Number(port) });
    const entry = { socket, count: 0, longestMs: 0, sentAtMs: 0 };
    pumps.get(name ?? "")?.socket.destroy();
    pumps.set(name ?? "", entry);
    const chunk = Buffer.alloc(1024, "x");
    let missing = 0;
    const send = () => {
      missing = chunk.length;
      entry.sentAtMs = performance.now();
      socket.write(chunk);
    };
    socket.on("error", () => {});
    socket.once("data", () => {
      say({ id, ok: true });
      socket.on("data", (data) => {
        missing -= data.length;
        if (missing > 0) return;
        entry.count++;
        entry.longestMs = Math.max(entry.longestMs, performance.now() - entry.sentAtMs);
        send();
      });
      send();
    });
  },
  pumped({ id, name }) {
    const { count, longestMs } = pumps.get(name ?? "") ?? {};
    say({ id, ok: true, count, longestMs });
  },
  /** From now on a datagram each millisecond; `seen` says when the last answer came. */
  probe({ id, name, address, port }) {
    const socket = createSocket(isIPv6(address ?? "") ? "udp6" : "udp4");
    const entry = {
      socket,
      lastMs: 0,
      count: 0,
      timer: setInterval(() => socket.send("?", Number(port), address), 1),
    };
    socket.on("error", () => {});
    socket.on("message", () => {
      entry.lastMs = Date.now();
      entry.count++;
    });
    probes.set(name ?? "", entry);
    say({ id, ok: true });
  },
  /** Sends no more of them. */
  quiet({ id, name }) {
    const entry = probes.get(name ?? "");
    clearInterval(entry?.timer);
    entry?.socket.close();
    probes.delete(name ?? "");
    say({ id, ok: true });
  },
  /** Resolves once an answer came after `sinceMs`. */
  heard({ id, name, sinceMs }) {
    const entry = probes.get(name ?? "");
    const timer = setInterval(() => {
      if ((entry?.lastMs ?? 0) < Number(sinceMs)) return;
      clearInterval(timer);
      say({ id, ok: true, atMs: entry?.lastMs });
    }, 1);
  },
  /** When the last answer came. */
  seen({ id, name }) {
    const entry = probes.get(name ?? "");
    say({ id, ok: true, atMs: entry?.lastMs, count: entry?.count });
  },
};

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const request = JSON.parse(line) as Record<string, string>;
    verbs[request.verb ?? ""]?.(request);
  })
  .on("close", () => process.exit());
say({ id: "ready" });
