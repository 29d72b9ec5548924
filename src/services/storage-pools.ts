/**
 * Storage pools: what can be said of them without looking at a host, and how much of a pool is promised.
 *
 * `/allocations/storage-pools/NAME` counts the sizes of all volumes in a pool; every commit that creates, grows or removes
 * one rewrites it, so that two of them never promise the same room. It goes with the pool.
 */
import { StrataError } from "../core/errors.ts";
import { formatMib } from "../core/units.ts";
import { snapshotKind } from "../kinds/snapshot.ts";
import { poolTotals, type StoragePool, storagePoolKind } from "../kinds/storage-pool.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { Write } from "../store/store.ts";
import type { KindHooks, World } from "./hooks.ts";
import { conflict, invalid } from "./parse.ts";
import { closeReferences, refuseWhileUsed, rewriteGuard, usersInMessage } from "./references.ts";

/** Of a volume, or of a snapshot of one or of several. */
interface InPool {
  pool?: string;
  volumes?: { pool?: string }[];
}

export const storagePoolHooks: KindHooks<StoragePool["spec"], StoragePool["status"]> = {
  async admit({ spec, metadata }, world, action) {
    if (spec.lost) {
      const message = "is for a pool that was there and will not come back";
      throw invalid(action, [{ path: "spec.lost", message, allowed: "false, or nothing" }]);
    }
    const guard = await rewriteGuard(storagePoolKind, "", world);
    for await (const other of world.scan(storagePoolKind, undefined)) {
      if (other.metadata.name === metadata.name) continue;
      const [mine, theirs] = [`${spec.path}/`, `${other.spec.path}/`];
      if (!mine.startsWith(theirs) && !theirs.startsWith(mine)) continue;
      const where = mine === theirs ? "is the directory of" : mine > theirs ? "is inside" : "holds";
      const message = `"${spec.path}" ${where} storage pool "${other.metadata.name}" (${other.spec.path})`;
      throw invalid(action, [
        { path: "spec.path", message, allowed: "a directory apart from those of pools" },
      ]);
    }
    return { writes: [guard] };
  },
  async admitUpdate(next, previous, _world, action) {
    if (next.spec.lost && !previous.spec.lost) refuseWhereReady(previous, action);
    return [];
  },
  keptByApply: ["lost"],
  closing: closeReferences,
  async checkDelete({ metadata, spec }, world) {
    const users: string[] = [];
    for (const kind of [volumeKind, snapshotKind]) {
      for await (const user of world.scan<unknown, InPool>(kind as never, undefined)) {
        const pools = [user.status.pool, ...(user.status.volumes ?? []).map((part) => part.pool)];
        if (!pools.includes(metadata.name) || users.length > usersInMessage) continue;
        users.push(
          `${kind.name.toLowerCase()} "${user.metadata.name}" of project "${user.metadata.project}"`,
        );
      }
    }
    const help = spec.lost ? "it is lost: delete them, which leaves what may be there of them" : undefined;
    refuseWhileUsed(`storage pool "${metadata.name}"`, users, help);
  },
  // No host has made anything in it.
  idleFinalizers: ({ status }) => (Object.keys(status.hosts).length === 0 ? ["agent"] : []),
  removal: async ({ metadata }) => [{ delete: promisedKey(metadata.name) }],
};

/** @throws Conflict where a host has it: what is in it can be deleted as usual. */
function refuseWhereReady({ metadata, status }: StoragePool, action: string): void {
  const hosts = Object.entries(status.hosts).flatMap(([name, { state }]) =>
    state === "ready" ? [name] : [],
  );
  if (hosts.length === 0) return;
  const message = `storage pool "${metadata.name}" is ready on ${hosts.map((name) => `host "${name}"`).join(", ")}`;
  const allowed = "pools that no host has; what is in this one can be deleted as usual";
  throw conflict(action, { path: "spec.lost", message, allowed });
}

/**
 * Joins the commit that creates a volume in a pool, or lets one grow.
 * @throws CapacityExceeded when that would promise more than the pool may; Unavailable while no host has the pool.
 */
export async function takeRoom(
  world: World,
  pool: StoragePool,
  asked: { mib: number; allocation: "thin" | "full" | undefined },
  action: string,
): Promise<Write> {
  const { name } = pool.metadata;
  if (pool.status.state !== "ready") {
    const why = pool.status.message || `it is ${pool.status.state}`;
    throw new StrataError("Unavailable", `cannot ${action}: storage pool "${name}" is not ready: ${why}`);
  }
  const { capacityMib, freeMib } = poolTotals(pool);
  const entry = await world.store.get(promisedKey(name));
  const promised = (entry?.value as { mib?: number } | undefined)?.mib ?? 0;
  const limit = Math.floor(capacityMib * pool.spec.maxOvercommit);
  if (promised + asked.mib > limit) {
    throw new StrataError(
      "CapacityExceeded",
      `cannot ${action}: storage pool "${name}" has ${formatMib(capacityMib)} and may promise ${formatMib(limit)} ` +
        `(${pool.spec.maxOvercommit} times that), ${formatMib(promised)} are promised, and this asks for ` +
        `${formatMib(asked.mib)}; use another pool, delete volumes, or raise its maxOvercommit`,
    );
  }
  if (asked.allocation === "full" && asked.mib > freeMib) {
    throw new StrataError(
      "CapacityExceeded",
      `cannot ${action}: storage pool "${name}" has ${formatMib(freeMib)} free, and this asks for ` +
        `${formatMib(asked.mib)} at once (allocation full); use another pool or allocation thin`,
    );
  }
  const value = { mib: promised + asked.mib };
  return { put: promisedKey(name), value, ifRevision: entry?.revision ?? 0 };
}

/** Joins the commit that takes a volume out of the store. */
export async function releaseRoom(world: World, pool: string, mib: number): Promise<Write[]> {
  const entry = await world.store.get(promisedKey(pool));
  if (!entry) return [];
  const left = Math.max(0, (entry.value as { mib: number }).mib - mib);
  return [{ put: promisedKey(pool), value: { mib: left }, ifRevision: entry.revision }];
}

function promisedKey(pool: string): string {
  return `/allocations/storage-pools/${pool}`;
}
