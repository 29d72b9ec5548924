/** What HAProxy writes of each request, as values; and the lines that people read. Pure. */
import { type Instant, toTimestamp } from "../../core/clock.ts";

export interface AccessRecord {
  /** When the request began. */
  at: Instant;
  client: string;
  /** HAProxy's name of the server; `<NOSRV>` when none was asked. */
  server: string;
  /** Undefined for connections of tcp and tls listeners. */
  status: number | undefined;
  bytes: number;
  /** From the first byte of the request to the last of the answer, the time in the queue included. */
  totalMs: number;
  queueMs: number;
  /** The request line; for connections, the two letters that say how it ended. */
  text: string;
}

/** Undefined: another sort of line, such as a change of a server's health. Formats: host/balancers/haproxy-config.ts. */
export function parseAccessLine(line: string): AccessRecord | undefined {
  if (line.startsWith("R ")) {
    const match = /^R (\d+) (\d+) (\S+) (\S+) (-?\d+) (\d+) \+?(-?\d+) (-?\d+) "(.*)"$/.exec(line);
    if (!match) return undefined;
    const [, seconds, ms, client = "", server = "", status, bytes, total, queue, text = ""] = match;
    return {
      at: Number(seconds) * 1000 + Number(ms),
      client,
      server,
      status: Number(status),
      bytes: Number(bytes),
      totalMs: Math.max(0, Number(total)),
      queueMs: Math.max(0, Number(queue)),
      text,
    };
  }
  const match = /^C (\d+) (\d+) (\S+) (\S+) (\d+) \+?(-?\d+) (-?\d+) (\S+)$/.exec(line);
  if (!match) return undefined;
  const [, seconds, ms, client = "", server = "", bytes, total, queue, text = ""] = match;
  return {
    at: Number(seconds) * 1000 + Number(ms),
    client,
    server,
    status: undefined,
    bytes: Number(bytes),
    totalMs: Math.max(0, Number(total)),
    queueMs: Math.max(0, Number(queue)),
    text,
  };
}

/** `name`: of the instance that answered. */
export function formatAccess(record: AccessRecord, name: string): string {
  const { at, client, status, bytes, totalMs, queueMs, text } = record;
  const waited = queueMs > 0 ? ` (${queueMs} ms waiting)` : "";
  const answer = status === undefined ? "connection" : String(status);
  return `${toTimestamp(at)} ${client} ${name} ${answer} ${bytes} bytes ${totalMs} ms${waited} "${text}"`;
}

/** The value below which `fraction` of them lie, by nearest rank; undefined of none. `sorted`: ascending. */
export function percentile(sorted: readonly number[], fraction: number): number | undefined {
  if (sorted.length === 0) return undefined;
  return sorted[Math.max(0, Math.ceil(fraction * sorted.length) - 1)];
}
