/** How storage pools look in tables and trees. Pure. */
import { formatMib } from "../core/units.ts";
import { type HostPool, poolTotals, type StoragePool } from "../kinds/storage-pool.ts";
import type { Branch, Cell, Tone } from "./output.ts";
import { stateCell, type TableForm } from "./show.ts";

const barCells = 10;

export const storagePoolForm: TableForm<StoragePool> = {
  columns: ["NAME", "STATE", "CAPACITY", "USED", "ALLOCATED", "PROMISED", "REFLINK", "PATH", "MESSAGE"],
  row: (pool) => {
    const { metadata, spec, status } = pool;
    const ready = Object.values(status.hosts).filter(({ state }) => state === "ready");
    const { capacityMib } = poolTotals(pool);
    const all = sumOf(ready);
    return [
      metadata.name,
      stateCell(pool, status.state),
      formatMib(capacityMib),
      usedCell(all, spec.warnPercent),
      `${formatMib(all.allocatedMib)} (${percent(all.allocatedMib, capacityMib)})`,
      `${formatMib(all.promisedMib)} (${percent(all.promisedMib, capacityMib)})`,
      ready.length > 0 && ready.every(({ reflink }) => reflink) ? "yes" : "no",
      spec.path,
      status.message,
    ];
  },
};

export function storagePoolTree(pool: StoragePool): Branch[] {
  const { spec, status } = pool;
  const lines: [string, string][] = [
    ["state", status.state],
    ...(status.message ? [["message", status.message] as [string, string]] : []),
    ["path", spec.path],
    ["type", spec.type],
    ["reflink", spec.reflink],
    ["warns at", `${spec.warnPercent} %`],
    ...(spec.lost ? [["lost", "it will not come back"] as [string, string]] : []),
    ["may promise", `${spec.maxOvercommit} times its capacity`],
  ];
  return [
    ...lines.map(([name, text]) => ({ label: `${name}: ${text}` })),
    ...Object.entries(status.hosts).map(([name, host]) => ({
      label: `host ${name}`,
      children: hostBranches(host, spec.warnPercent),
    })),
    ...status.conditions
      .filter((condition) => condition.status === "true")
      .map(({ type, message }) => ({ label: `${type}: ${message}` })),
  ];
}

function hostBranches(host: HostPool, warnPercent: number): Branch[] {
  if (host.state !== "ready") return [{ label: `${host.state}: ${host.message}` }];
  const { capacityMib } = host;
  const line = (name: string, mib: number, what: string) =>
    `${name.padEnd(10)}${formatMib(mib).padStart(10)}  ${bar(mib / Math.max(1, capacityMib))} ${percent(mib, capacityMib).padStart(5)}  ${what}`;
  const shares = host.reflink ? "snapshots share blocks" : "snapshots are copies";
  const texts = [
    `${host.fileSystem ?? ""}: ${shares}`,
    line("capacity", capacityMib, "of the file system"),
    line("used", host.usedMib, "by whatever is on it"),
    line("allocated", host.allocatedMib, "blocks of volumes and snapshots; shared ones count in each"),
    line("promised", host.promisedMib, "sizes of volumes"),
    `${formatMib(host.freeMib)} can be written${host.full ? ": writers wait" : ""}${usedShare(host) * 100 >= warnPercent ? ", which is little" : ""}`,
  ];
  return texts.map((label) => ({ label }));
}

function usedCell(host: Pick<HostPool, "usedMib" | "freeMib" | "full">, warnPercent: number): Cell {
  const share = usedShare(host);
  const tone: Tone = host.full ? "bad" : share * 100 >= warnPercent ? "busy" : "good";
  return { text: `${bar(share)} ${formatMib(host.usedMib)} (${Math.round(share * 100)} %)`, tone };
}

function usedShare({ usedMib, freeMib }: Pick<HostPool, "usedMib" | "freeMib">): number {
  return usedMib + freeMib === 0 ? 0 : usedMib / (usedMib + freeMib);
}

function bar(share: number): string {
  const full = Math.min(barCells, Math.round(share * barCells));
  return "█".repeat(full) + "░".repeat(barCells - full);
}

function percent(part: number, whole: number): string {
  return whole === 0 ? "0 %" : `${Math.round((part / whole) * 100)} %`;
}

function sumOf(hosts: readonly HostPool[]) {
  const total = (of: (host: HostPool) => number) => hosts.reduce((sum, host) => sum + of(host), 0);
  return {
    usedMib: total(({ usedMib }) => usedMib),
    freeMib: total(({ freeMib }) => freeMib),
    allocatedMib: total(({ allocatedMib }) => allocatedMib),
    promisedMib: total(({ promisedMib }) => promisedMib),
    full: hosts.some(({ full }) => full),
  };
}
