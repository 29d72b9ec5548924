/** How volumes look in a table. Pure. */
import { formatMib } from "../core/units.ts";
import type { Volume } from "../kinds/volume.ts";
import { stateCell, type TableForm } from "./show.ts";

export const volumeForm: TableForm<Volume> = {
  columns: ["NAME", "STATE", "SIZE", "FILE SYSTEM", "INSTANCE", "WHERE", "MESSAGE"],
  row: (volume) => {
    const { metadata, spec, status } = volume;
    const root = spec.role === "root";
    return [
      metadata.name,
      stateCell(volume, status.state),
      formatMib(spec.sizeMib),
      root ? "of its image" : (spec.fileSystem ?? "none"),
      (root ? metadata.owner?.name : spec.instance) ?? "",
      status.device ?? (root ? "/" : ""),
      status.message,
    ];
  },
};
