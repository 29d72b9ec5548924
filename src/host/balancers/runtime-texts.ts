/** What HAProxy's runtime API answers, as values. Pure. */
import type { BalancerStatistics, SeenServer } from "./balancers.ts";
import { backendName, heldName, holderName, uidOfServer } from "./haproxy-config.ts";

/** Administrative states that keep new requests away: maintenance of any cause (management guide, 9.3). */
const maintenanceBits = 0x01 | 0x02 | 0x04 | 0x20;

/** Rows by column, of answers whose first line with `# ` names the columns. */
function table(text: string, separator: RegExp): Record<string, string>[] {
  const lines = text.split("\n");
  const head = lines.findIndex((line) => line.startsWith("# "));
  if (head < 0) return [];
  const names = (lines[head] ?? "").slice(2).split(separator);
  return lines
    .slice(head + 1)
    .filter((line) => line.trim() !== "")
    .map((line) => {
      const cells = line.split(separator);
      return Object.fromEntries(names.map((name, index) => [name, cells[index] ?? ""]));
    });
}

/** Of `show servers state`, `show stat` and `show servers conn`. `others`: of other workers, by `ADDRESS:PORT`. */
export function parseServers(
  states: string,
  stats: string,
  connections: string,
  others: ReadonlyMap<string, number> = new Map(),
): SeenServer[] {
  const statOf = new Map(table(stats, /,/).map((row) => [row.svname, row]));
  const used = new Map(
    table(connections, /\s+/).map((row) => [row["bkname/svname"]?.split("/")[1], Number(row.used_cur)]),
  );
  return table(states, /\s+/)
    .filter((row) => row.srv_name !== holderName)
    .map((row): SeenServer => {
      const name = row.srv_name ?? "";
      const maintenance = (Number(row.srv_admin_state) & maintenanceBits) !== 0;
      const up = row.srv_op_state !== "0";
      return {
        name,
        uid: uidOfServer(name),
        state: maintenance ? "maintenance" : up ? "up" : "down",
        sessions: Number(statOf.get(name)?.scur ?? 0),
        connections: Math.max(used.get(name) ?? 0, others.get(`${row.srv_addr}:${row.srv_port}`) ?? 0),
      };
    });
}

/** Connections that are open or being opened, by `ADDRESS:PORT` of the other end. Of /proc/net/tcp. */
export function parseConnections(text: string): Map<string, number> {
  const counts = new Map<string, number>();
  for (const [, address = "", port = ""] of text.matchAll(
    /^ *\d+: [0-9A-F]{8}:[0-9A-F]{4} ([0-9A-F]{8}):([0-9A-F]{4}) 0[12] /gm,
  )) {
    // The kernel writes addresses in the order of the host's bytes.
    const octets = [6, 4, 2, 0].map((at) => Number.parseInt(address.slice(at, at + 2), 16));
    const key = `${octets.join(".")}:${Number.parseInt(port, 16)}`;
    counts.set(key, (counts.get(key) ?? 0) + 1);
  }
  return counts;
}

/**
 * Of `show stat` of backends and servers. The whole is what had a server and what was held. Its requests are those that came in
 * (HAProxy's `stot` of a backend), answered yet or not: what is answered never exceeds what the servers can, however much more is
 * asked for. A server's are those that it answered (`req_tot`; for TCP, connections). Errors: answers of 5xx, and requests that no
 * server answered.
 */
export function parseStatistics(stats: string): BalancerStatistics[] {
  const found: BalancerStatistics[] = [];
  let held: BalancerStatistics | undefined;
  for (const row of table(stats, /,/)) {
    const isHeld = row.pxname === heldName && row.svname === "BACKEND";
    if (!isHeld && (row.pxname !== backendName || row.svname === holderName)) continue;
    const number = (name: string) => Number(row[name] || 0);
    const isWhole = row.svname === "BACKEND";
    const one: BalancerStatistics = {
      uid: isWhole ? undefined : uidOfServer(row.svname ?? ""),
      requests: row.req_tot && !isWhole ? number("req_tot") : number("stot"),
      errors: row.hrsp_5xx ? number("hrsp_5xx") : number("econ") + number("eresp"),
      sessions: number("scur"),
      queue: number("qcur"),
    };
    if (isHeld) held = one;
    else found.push(one);
  }
  return found.map((one) => (held && one.uid === undefined ? sum(one, held) : one));
}

function sum(one: BalancerStatistics, other: BalancerStatistics): BalancerStatistics {
  return {
    uid: one.uid,
    requests: one.requests + other.requests,
    errors: one.errors + other.errors,
    sessions: one.sessions + other.sessions,
    queue: one.queue + other.queue,
  };
}

/** Of `show info`. */
export function parseDescription(info: string): string {
  return /^description: (.*)$/im.exec(info)?.[1]?.trim() ?? "";
}

/** Of `show ssl cert FILE`; "" when it is none. */
export function parseFingerprint(text: string): string {
  return /^SHA1 FingerPrint: ([0-9A-F]+)$/m.exec(text)?.[1] ?? "";
}

/** Of `show map FILE`: reference, key, value. */
export function parseMap(text: string): Map<string, string> {
  const entries = text.split("\n").flatMap((line): [string, string][] => {
    const [reference, key, value] = line.trim().split(" ");
    return reference?.startsWith("0x") && key !== undefined && value !== undefined ? [[key, value]] : [];
  });
  return new Map(entries);
}
