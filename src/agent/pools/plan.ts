import { type Instant, toTimestamp } from "../../core/clock.ts";
import { formatMib } from "../../core/units.ts";
import type { PoolFacts, PoolUsage } from "../../host/pools/pools.ts";
import { withCondition } from "../../kinds/kind.ts";
import type { HostPool, StoragePool, StoragePoolStatus } from "../../kinds/storage-pool.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface PoolWorld {
  hostName: string;
  pool: StoragePool | undefined;
  /** What the host says of the directory; a message where it cannot be a pool. */
  found: { facts: PoolFacts; usage: PoolUsage } | { problem: string } | undefined;
  /** Sizes of the volumes in it, here or nowhere yet. */
  promisedMib: number;
  /** Writers on this host wait for space in it. */
  full: boolean;
}

export type PoolAction = { type: "close"; pool: StoragePool } | { type: "finalize"; pool: StoragePool };

/** Space is looked at this often without a hint. */
export const poolRecheckMs = 10_000;

export function planPool(world: PoolWorld, now: Instant): Plan<PoolAction, StoragePoolStatus> {
  const { pool } = world;
  if (!pool) return { status: undefined, actions: [] };
  if (pool.metadata.deletedAt !== undefined) {
    const mine = pool.metadata.finalizers.includes("agent");
    // Of a lost one, not even the mark is touched.
    const actions: PoolAction[] = [
      ...(pool.spec.lost ? [] : [{ type: "close", pool } as const]),
      { type: "finalize", pool },
    ];
    return { status: undefined, actions: mine ? actions : [] };
  }
  return { status: poolStatus(world, pool, now), actions: [], recheckAfterMs: poolRecheckMs };
}

function poolStatus(world: PoolWorld, pool: StoragePool, now: Instant): StoragePoolStatus {
  const { status, metadata } = pool;
  const hosts = { ...status.hosts, [world.hostName]: hostPool(world, pool) };
  const all = Object.values(hosts);
  const ready = all.some(({ state }) => state === "ready");
  const message = all.find((host) => host.message !== "")?.message ?? "";
  return {
    ...status,
    hosts,
    state: ready ? "ready" : "failed",
    message,
    conditions: conditionsOf(pool, hosts, toTimestamp(now)),
    observedGeneration: metadata.generation,
  };
}

function hostPool({ hostName, found, promisedMib, full }: PoolWorld, { status }: StoragePool): HostPool {
  const before = status.hosts[hostName];
  if (!found || "problem" in found) {
    const message = found?.problem ?? "";
    const prepared = before?.prepared ?? false;
    const nothing = { capacityMib: 0, usedMib: 0, freeMib: 0, allocatedMib: 0, full: false };
    return { ...nothing, ...before, prepared, promisedMib, state: "failed", message };
  }
  const { facts, usage } = found;
  const toMib = (bytes: number) => Math.round(bytes / 1024 ** 2);
  return {
    state: "ready",
    message: full ? "is full: writers wait until there is space" : "",
    prepared: true,
    fileSystem: facts.fileSystem,
    reflink: facts.reflink,
    capacityMib: toMib(usage.capacityBytes),
    usedMib: toMib(usage.usedBytes),
    freeMib: Math.floor(usage.freeBytes / 1024 ** 2),
    allocatedMib: toMib(usage.allocatedBytes),
    promisedMib,
    full,
  };
}

/** How much of the space that can be written is, in percent. */
export function usedPercent({ usedMib, freeMib }: Pick<HostPool, "usedMib" | "freeMib">): number {
  const all = usedMib + freeMib;
  return all === 0 ? 0 : Math.round((usedMib / all) * 100);
}

function conditionsOf(pool: StoragePool, hosts: StoragePoolStatus["hosts"], at: string) {
  const { warnPercent } = pool.spec;
  const ready = Object.entries(hosts).filter(([, { state }]) => state === "ready");
  const near = ready.filter(([, host]) => usedPercent(host) >= warnPercent);
  const full = ready.filter(([, host]) => host.full);
  const told = near.map(
    ([name, host]) =>
      `${usedPercent(host)} % on host "${name}" are used, ${formatMib(host.freeMib)} are free; warnPercent is ${warnPercent}`,
  );
  const nearly = {
    type: "NearlyFull",
    status: near.length > 0 ? ("true" as const) : ("false" as const),
    reason: near.length > 0 ? "AboveThreshold" : "BelowThreshold",
    message: told.join("; ").slice(0, 1000),
  };
  const waiting = {
    type: "Full",
    status: full.length > 0 ? ("true" as const) : ("false" as const),
    reason: full.length > 0 ? "WritersWait" : "SpaceLeft",
    message:
      full.length > 0
        ? "writers wait: delete volumes or snapshots in it, or make its file system larger"
        : "",
  };
  return withCondition(withCondition(pool.status.conditions, nearly, at), waiting, at);
}
