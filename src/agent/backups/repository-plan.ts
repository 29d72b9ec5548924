import type { BackupRepository } from "../../kinds/backup-repository.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

export interface RepositoryWorld {
  hostName: string;
  repository: BackupRepository | undefined;
}

export type RepositoryAction =
  /** Opens it, and makes it where there never was one. */
  | { type: "open"; repository: BackupRepository }
  /** Reads all of it. */
  | { type: "check"; repository: BackupRepository };

type RepositoryPlan = Plan<RepositoryAction, BackupRepository["status"]>;

const nothing: RepositoryPlan = { status: undefined, actions: [] };

/** What is in it outlives the resource: nothing is removed with it. */
export function planRepository({ hostName, repository }: RepositoryWorld): RepositoryPlan {
  if (!repository || repository.status.host !== hostName) return nothing;
  const { metadata, spec, status } = repository;
  if (metadata.deletedAt !== undefined) return nothing;
  if (spec.lost) {
    const message = "is said to be lost: nothing in it is touched";
    const { generation: observedGeneration } = metadata;
    return { status: { ...status, state: "failed", message, observedGeneration }, actions: [] };
  }
  const toCheck = spec.checks > status.checks;
  if (status.state === "pending" || (status.observedGeneration !== metadata.generation && !toCheck)) {
    return { status: undefined, actions: [{ type: "open", repository }] };
  }
  if (toCheck) return { status: undefined, actions: [{ type: "check", repository }] };
  return nothing;
}
