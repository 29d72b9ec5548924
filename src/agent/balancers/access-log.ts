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

/** What a line without an access log tells. */
export interface Latency {
  /** HAProxy's name of the server; `<NOSRV>` when none was asked. */
  server: string;
  /** Negative: it ended before it was answered. */
  totalMs: number;
}

/** Of lines `L SERVER MS`. Undefined: another sort of line. */
export function parseLatencyLine(line: string): Latency | undefined {
  if (!line.startsWith("L ")) return undefined;
  const [, server = "", total = ""] = line.split(" ", 3);
  const totalMs = Number(total);
  return server === "" || total === "" || Number.isNaN(totalMs) ? undefined : { server, totalMs };
}

/** Undefined: another sort of line, such as a change of a server's health. Formats: host/balancers/haproxy-config.ts. */
export function parseAccessLine(line: string): AccessRecord | undefined {
  if (line.startsWith("R ")) return parseRequest(line);
  if (line.startsWith("C ")) return parseConnection(line);
  return undefined;
}

/** `R SECONDS MS CLIENT SERVER STATUS BYTES TOTAL QUEUE "REQUEST"`. */
function parseRequest(line: string): AccessRecord | undefined {
  const open = line.indexOf(' "');
  if (open < 0 || line.length < open + 3 || !line.endsWith('"')) return undefined;
  const [, seconds, ms, client = "", server = "", status, bytes, total, queue, more] = line
    .slice(0, open)
    .split(" ");
  if (queue === undefined || more !== undefined) return undefined;
  const numbers = [seconds, ms, status, bytes, total, queue].map(Number);
  return record(numbers, client, server, line.slice(open + 2, -1));
}

/** `C SECONDS MS CLIENT SERVER BYTES TOTAL QUEUE END`. */
function parseConnection(line: string): AccessRecord | undefined {
  const [, seconds, ms, client = "", server = "", bytes, total, queue, end = "", more] = line.split(" ");
  if (end === "" || more !== undefined) return undefined;
  const numbers = [seconds, ms, 0, bytes, total, queue].map(Number);
  const found = record(numbers, client, server, end);
  return found && { ...found, status: undefined };
}

/** Undefined when one of the numbers is none. A `+` before one says that it is counted so far. */
function record(
  numbers: readonly number[],
  client: string,
  server: string,
  text: string,
): AccessRecord | undefined {
  if (numbers.some(Number.isNaN)) return undefined;
  const [seconds = 0, ms = 0, status = 0, bytes = 0, total = 0, queue = 0] = numbers;
  return {
    at: seconds * 1000 + ms,
    client,
    server,
    status,
    bytes,
    totalMs: Math.max(0, total),
    queueMs: Math.max(0, queue),
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
