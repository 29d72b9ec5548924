/** A running container's size is its cgroups' limits, which change at once, both ways. */
import type { JsonObject } from "../../core/json.ts";
import type { CgroupLimits, Cgroups } from "../../host/cgroups.ts";
import type { GuestSpec, Resize } from "../driver.ts";
import { changing, type LxcChanges, requireSpec } from "./lxc-changes.ts";
import { checkGuest } from "./lxc-config.ts";

export function lxcResize(changes: LxcChanges): Resize<JsonObject> {
  return {
    live: { cpus: true, memory: "both" },
    apply(handle, size, signal) {
      signal.throwIfAborted();
      const files = changes.files(handle);
      return changing(files, async () => {
        const guest = await requireSpec(files);
        const next = { ...guest, cpus: size.cpus, memoryMib: size.memoryMib };
        checkGuest(next);
        if (await changes.isRunning(guest.uid)) {
          await resizeGroups(changes.cgroups, changes.group(guest.uid), guest, next);
        }
        await files.writeSpec(next);
      });
    },
  };
}

/**
 * The limits are those of the group above; the guest's own repeats them for programs that look there. No group may have
 * more CPU time than the one above it (version 1), so less of that begins below. The group above refuses less memory than
 * is in use: then the one below gets back what it had.
 */
async function resizeGroups(cgroups: Cgroups, group: string, from: GuestSpec, to: GuestSpec): Promise<void> {
  const payload = `${group}/payload`;
  if (to.cpus < from.cpus) await cgroups.ensure(payload, limitsOf({ ...from, cpus: to.cpus }));
  try {
    await cgroups.ensure(group, limitsOf(to));
  } catch (error) {
    await cgroups.ensure(payload, limitsOf(from));
    throw error;
  }
  await cgroups.ensure(payload, limitsOf(to));
}

function limitsOf(guest: GuestSpec): CgroupLimits {
  return { cpus: guest.cpus, memoryMib: guest.memoryMib, processes: guest.maxProcesses };
}
