/** How volumes look in a table. Pure. */
import { formatMib } from "../core/units.ts";
import type { Snapshot } from "../kinds/snapshot.ts";
import type { Volume } from "../kinds/volume.ts";
import { stateCell, type TableForm } from "./show.ts";

export const volumeForm: TableForm<Volume> = {
  columns: ["NAME", "STATE", "SIZE", "FILE SYSTEM", "POOL", "INSTANCE", "WHERE", "MESSAGE"],
  row: (volume) => {
    const { metadata, spec, status } = volume;
    const root = spec.role === "root";
    return [
      metadata.name,
      stateCell(volume, status.state),
      formatMib(spec.sizeMib),
      root ? "of its image" : (spec.fileSystem ?? "none"),
      status.pool ?? "",
      (root ? metadata.owner?.name : spec.instance) ?? "",
      status.device ?? (root ? "/" : ""),
      status.message,
    ];
  },
};

export const snapshotForm: TableForm<Snapshot> = {
  columns: ["NAME", "STATE", "OF", "SIZE", "CONSISTENCY", "TAKEN", "MESSAGE"],
  row: (snapshot) => {
    const { metadata, spec, status } = snapshot;
    const { sizeMib, volumes = [] } = status;
    const disks = [sizeMib, ...volumes.map((volume) => volume.sizeMib)];
    const size =
      sizeMib === undefined ? "" : formatMib(disks.reduce<number>((sum, mib) => sum + (mib ?? 0), 0));
    const more =
      volumes.length > 0 ? ` and ${volumes.length} ${volumes.length === 1 ? "volume" : "volumes"}` : "";
    const memory = status.memoryBytes === undefined ? "" : " with memory";
    const state = stateCell(snapshot, status.state);
    return [
      metadata.name,
      state,
      spec.instance === undefined ? `volume ${spec.volume}` : `instance ${spec.instance}${more}${memory}`,
      size,
      status.consistency ?? "",
      status.takenAt ?? "",
      status.message,
    ];
  },
};
