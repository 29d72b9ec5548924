import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Snapshot } from "../../kinds/snapshot.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import { siblingKey } from "../views.ts";

/**
 * Uids of disks and of instances that this process is just putting back to a snapshot: nobody may start with them or be
 * given them meanwhile. What is asked for is in the snapshots themselves, so this needs to outlive nothing.
 */
export class Rollbacks {
  readonly #busy = new Set<string>();

  has(uid: string): boolean {
    return this.#busy.has(uid);
  }

  async during<Result>(uids: readonly string[], change: () => Promise<Result>): Promise<Result> {
    for (const uid of uids) this.#busy.add(uid);
    try {
      return await change();
    } finally {
      for (const uid of uids) this.#busy.delete(uid);
    }
  }
}

/** Name of the snapshot that the instance, or a volume that it has, shall be put back to: it must not run before that. */
export function holdOn({ views }: AgentContext, instance: Instance): string | undefined {
  const uids = [instance.metadata.uid];
  for (const key of views.volumesByPlug.keysOf(views.instances.keyOf(instance))) {
    const volume = views.volumes.get(key);
    if (volume) uids.push(volume.metadata.uid);
  }
  for (const uid of uids) {
    for (const key of views.rollbacksByTarget.keysOf(uid)) {
      const snapshot = views.snapshots.get(key);
      if (snapshot) return snapshot.metadata.name;
    }
  }
  return undefined;
}

/** What is put back, and whose guests must not run meanwhile. */
export interface RollbackTarget {
  /** Uids of disks. */
  disks: readonly string[];
  instances: readonly Instance[];
}

/** Undefined when what the snapshot was taken of is gone. */
export function rollbackTarget(context: AgentContext, snapshot: Snapshot): RollbackTarget | undefined {
  const { views } = context;
  const { instanceUid, rootUid, volumeUid, volumes = [] } = snapshot.status;
  if (instanceUid === undefined) {
    const volume = views.volumes.byUid(volumeUid ?? "");
    const holder = volume && holderOf(context, volume);
    return volume && { disks: [volume.metadata.uid], instances: holder ? [holder] : [] };
  }
  const instance = views.instances.byUid(instanceUid);
  if (!instance || rootUid === undefined) return undefined;
  // What it has no more is somebody else's, or nobody's: it stays as it is.
  const still = volumes.filter(({ uid }) => {
    const volume = views.volumes.byUid(uid);
    return volume && holderOf(context, volume)?.metadata.uid === instanceUid;
  });
  return { disks: [rootUid, ...still.map(({ uid }) => uid)], instances: [instance] };
}

function holderOf({ views }: AgentContext, volume: Volume): Instance | undefined {
  const name = volume.status.instance;
  return name === undefined ? undefined : views.instances.get(siblingKey(instanceKind, volume, name));
}

/** Keys of the instances that wait for the snapshot's rollback. */
export function waitingFor(context: AgentContext, snapshot: Snapshot): string[] {
  const target = rollbackTarget(context, snapshot);
  return target?.instances.map((instance) => context.views.instances.keyOf(instance)) ?? [];
}
