/** Removes disks of volumes, snapshots and backups, also where the storage pool that they are in is lost for good. */
import type { Resource } from "../../kinds/kind.ts";
import type { StoragePool } from "../../kinds/storage-pool.ts";
import type { AgentContext } from "../agent-context.ts";
import { forgetCopies } from "./copiers.ts";

/** Files that a message names. */
const namedFiles = 3;

/**
 * Absent is success. What is in a lost pool is forgotten, and `resource` gets an event that says what may be left.
 * @throws Unavailable while the pool is not there, and not lost.
 */
export async function removeDisk(
  context: AgentContext,
  disk: { uid: string; of: Resource | undefined },
  signal: AbortSignal,
): Promise<void> {
  const { disks, views, events, logger } = context;
  const left: string[] = [];
  const has = (directory: string) => isLost(views.storagePools.values(), directory);
  // A machine may still be copying into it.
  await forgetCopies(context, disk.uid);
  await disks.remove(disk.uid, signal, { has, left: (path) => left.push(path) });
  if (left.length === 0) return;
  logger.warn({ uid: disk.uid, paths: left }, "forgot files in a storage pool that is lost");
  if (disk.of)
    events.record(disk.of, { severity: "warning", reason: "Forgotten", message: leftMessage(left) });
}

/** What would help what cannot be deleted, where its pool is not there and that may be for good; for a message. */
export function lostHelp(
  { views, hostName }: AgentContext,
  { metadata }: Resource,
  pools: readonly (string | undefined)[],
): string {
  if (metadata.deletedAt === undefined) return "";
  const missing = pools.find((name) => {
    const pool = name === undefined ? undefined : views.storagePools.find({ name });
    return pool && pool.status.hosts[hostName]?.state !== "ready";
  });
  return missing === undefined
    ? ""
    : `; if the pool is gone for good: \`strata pool set ${missing} --lost yes\``;
}

/** Also one that no pool has any more: nobody may delete a pool before what is in it, unless it is lost. */
function isLost(pools: Iterable<StoragePool>, directory: string): boolean {
  for (const { spec } of pools) if (spec.path === directory) return spec.lost;
  return true;
}

function leftMessage(paths: readonly string[]): string {
  const more = paths.length > namedFiles ? ` and ${paths.length - namedFiles} more` : "";
  const named = `${paths.slice(0, namedFiles).join(", ")}${more}`;
  return `its storage pool is lost, so nothing was removed there; should it come back, this is left: ${named}`.slice(
    0,
    1000,
  );
}
