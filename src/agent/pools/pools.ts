/** Proves and measures the storage pools of this host, and warns whoever has volumes in one that fills. */
import { BoundedCalls } from "../../core/bounded-calls.ts";
import { StrataError, toStrataError } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import type { PoolPlace } from "../../host/disks/data-files.ts";
import type { Pools } from "../../host/pools/pools.ts";
import type { Ref } from "../../kinds/keys.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { Condition } from "../../kinds/kind.ts";
import { type StoragePool, type StoragePoolStatus, storagePoolKind } from "../../kinds/storage-pool.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { reportStatus } from "../report.ts";
import { type PoolAction, type PoolWorld, planPool } from "./plan.ts";

/** What becomes of volumes is told of their pool soon, not with each of many. */
const patienceMs = 1_000;
/** For a pool to be proven and measured. */
const answerMs = 10_000;

export function createPoolReconciler(
  context: AgentContext,
  pools: Pools,
): Reconciler<PoolWorld, PoolAction, StoragePoolStatus> {
  const { views, client, hostName, clock, waiting } = context;
  const related = new Hints();
  const calls = new BoundedCalls(clock, answerMs);
  const later = (pool: string | undefined, ms = patienceMs) => {
    if (pool === undefined) return;
    clock.after(ms, () => related.hint(resourceKey(storagePoolKind, { name: pool })));
  };
  views.volumes.onChange((_key, next, previous) => later((next ?? previous)?.status.pool));
  views.snapshots.onChange((_key, next, previous) => later((next ?? previous)?.status.pool));
  waiting.onChange((uid) => later(views.volumes.byUid(uid)?.status.pool, 0));
  return {
    name: "storage pools",
    watches: [
      { name: "storage pools", urgent: true, keys: (signal) => views.storagePools.watchKeys(signal) },
      { name: "volumes", keys: (signal) => related.keys(signal) },
    ],
    async observe(key, signal) {
      const pool = views.storagePools.get(key);
      const leaving = pool?.metadata.deletedAt !== undefined;
      const found = pool && !leaving ? await look({ pools, calls, hostName }, pool, signal) : undefined;
      const full = [...volumesIn(views.volumes.values(), pool)].some(({ metadata }) =>
        waiting.has(metadata.uid),
      );
      return { hostName, pool, found, promisedMib: promised(context, pool), full };
    },
    plan: planPool,
    async execute({ type, pool }, signal) {
      const { metadata } = pool;
      if (type === "close") return pools.close(placeOf(pool), signal);
      await client.removeFinalizer(storagePoolKind, metadata as Ref, metadata.uid, "agent", { signal });
    },
    async report(_key, { pool }, status, signal) {
      if (!pool) return;
      await reportStatus(client, storagePoolKind, views.storagePools, pool, status, signal);
      warn(context, pool, status.conditions);
    },
  };
}

async function look(
  { pools, calls, hostName }: { pools: Pools; calls: BoundedCalls; hostName: string },
  pool: StoragePool,
  signal: AbortSignal,
): Promise<PoolWorld["found"]> {
  const { type, reflink, lost } = pool.spec;
  if (lost)
    return {
      problem: "was said to be lost for good: nothing in it is touched, and volumes in it can be deleted",
    };
  const prepared = pool.status.hosts[hostName]?.prepared ?? false;
  try {
    const found = await calls.ask(pool.metadata.uid, async () => {
      const facts = await pools.open({ ...placeOf(pool), type, reflink, prepared }, signal);
      return { facts, usage: await pools.usage(placeOf(pool)) };
    });
    if (found) return found.answer;
    const { path } = pool.spec;
    throw new StrataError("Unavailable", `${path} does not answer; is the server of its file system there?`);
  } catch (error) {
    signal.throwIfAborted();
    return {
      problem: toStrataError(error, `look at storage pool "${pool.metadata.name}"`).message.slice(0, 1000),
    };
  }
}

export function placeOf({ metadata, spec }: StoragePool): PoolPlace {
  return { uid: metadata.uid, name: metadata.name, path: spec.path };
}

function promised({ views, hostName }: AgentContext, pool: StoragePool | undefined): number {
  let mib = 0;
  for (const volume of volumesIn(views.volumes.values(), pool)) {
    const { host } = volume.status;
    if (host === undefined || host === hostName) mib += volume.spec.sizeMib;
  }
  return mib;
}

function* volumesIn(volumes: Iterable<Volume>, pool: StoragePool | undefined): Generator<Volume> {
  for (const volume of volumes) {
    if (pool && volume.status.pool === pool.metadata.name) yield volume;
  }
}

/** Events are a project's: each that has a volume in the pool gets one, when a condition begins or ends. */
function warn({ views, events }: AgentContext, pool: StoragePool, conditions: readonly Condition[]): void {
  for (const { type, status, message } of conditions) {
    const before = pool.status.conditions.find((condition) => condition.type === type)?.status ?? "false";
    if (before === status) continue;
    const told = new Set<string>();
    for (const volume of volumesIn(views.volumes.values(), pool)) {
      const { project = "" } = volume.metadata;
      if (told.has(project)) continue;
      told.add(project);
      const begins = status === "true";
      const title = `storage pool "${pool.metadata.name}"`;
      events.record(volume, {
        severity: begins ? "warning" : "normal",
        reason: begins ? `StoragePool${type}` : "StoragePoolHasSpace",
        message: begins ? `${title}: ${message}` : `${title} has space again`,
      });
    }
  }
}
