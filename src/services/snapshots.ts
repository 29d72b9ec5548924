import { StrataError } from "../core/errors.ts";
import type { Snapshot } from "../kinds/snapshot.ts";
import { storagePoolKind } from "../kinds/storage-pool.ts";
import { volumeKind } from "../kinds/volume.ts";
import type { KindHooks } from "./hooks.ts";
import { invalid } from "./parse.ts";
import { closeReferences, References, refuseWhileUsed } from "./references.ts";

/** A snapshot is of what a volume has on its host; it outlives the volume. */
export const snapshotHooks: KindHooks<Snapshot["spec"], Snapshot["status"]> = {
  async admit(snapshot, world, action) {
    const { volume: name } = snapshot.spec;
    const references = new References(world, snapshot.metadata.project ?? "");
    const volume = await references.peek(volumeKind, name, "spec.volume");
    references.check(action);
    if (!volume) return {};
    if (volume.spec.role === "root") {
      const message = `is "${name}", the root volume of an instance`;
      throw invalid(action, [{ path: "spec.volume", message, allowed: "volumes that users created" }]);
    }
    const { host } = volume.status;
    if (host === undefined || volume.status.state === "pending") {
      throw new StrataError(
        "Conflict",
        `cannot ${action}: there is nothing on volume "${name}" yet; attach it to an instance first`,
      );
    }
    const { fileSystem, sizeMib } = volume.spec;
    const { pool } = volume.status;
    if (pool !== undefined) await references.find(storagePoolKind, pool, "spec.volume");
    references.check(action);
    return {
      status: {
        ...snapshot.status,
        host,
        volumeUid: volume.metadata.uid,
        sizeMib,
        ...(fileSystem === undefined ? {} : { fileSystem }),
        ...(pool === undefined ? {} : { pool }),
      },
      writes: references.writes(),
    };
  },
  closing: closeReferences,
  async checkDelete({ metadata }, world, mode) {
    if (mode.withProject) return;
    const users: string[] = [];
    for await (const volume of world.scan(volumeKind, metadata.project)) {
      if (volume.spec.source?.snapshot !== metadata.name || volume.status.state !== "pending") continue;
      users.push(`volume "${volume.metadata.name}"`);
    }
    refuseWhileUsed(`snapshot "${metadata.name}"`, users, "it is just being copied; try again later");
  },
};
