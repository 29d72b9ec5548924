/** What was found when all of a repository was read, as the condition `Intact` of its resource. */
import { toTimestamp } from "../../core/clock.ts";
import type { Examined } from "../../host/backups/backups.ts";
import type { BackupRepository } from "../../kinds/backup-repository.ts";
import { type Condition, withCondition } from "../../kinds/kind.ts";

const damaged = "Damaged";

/** Pure. Its `message` is the condition's. */
export function intactCondition(
  conditions: readonly Condition[],
  { intact, mended, message }: Examined,
  now: number,
): { message: string; conditions: Condition[] } {
  const help = mended
    ? "the next backup of each volume stores anew what was lost and the volume still has"
    : "new backups may need the same pieces: save to another repository";
  const next = {
    type: "Intact",
    status: intact ? ("true" as const) : ("false" as const),
    reason: intact ? "AllRead" : mended ? "PiecesLost" : damaged,
    message: intact ? "" : `${message}; ${help}`.slice(0, 1000),
  };
  return { message: next.message, conditions: withCondition([...conditions], next, toTimestamp(now)) };
}

/** Damage that what is saved from now on may share. */
export function isTainted(repository: BackupRepository | undefined): boolean {
  return (
    repository?.status.conditions.some(({ type, reason }) => type === "Intact" && reason === damaged) ?? false
  );
}
