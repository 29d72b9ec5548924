import type { Instance } from "../../kinds/instance.ts";
import type { Size, Sizing } from "./world.ts";

/** How a running guest comes to the size that spec wants. */
export interface SizePlan {
  /** What it has now. */
  has: Size;
  /** What to give it now. */
  apply?: Size;
  /** Why the rest takes effect with the next start only. */
  restartNeeded?: string;
}

/** CPUs and memory change one by one, each at once where the driver can. */
export function planSize(instance: Instance, sizing: Sizing, driver: string): SizePlan {
  const { cpus, memoryMib } = instance.spec;
  const wanted = { cpus, memoryMib };
  const has = sizing.applied ?? instance.status.size ?? wanted;
  if (isSame(has, wanted)) return { has };
  const { live, refused } = sizing;
  const grows = memoryMib > has.memoryMib;
  const possible = {
    cpus: live?.cpus ? cpus : has.cpus,
    memoryMib: live?.memory === "both" || (live?.memory === "grow" && grows) ? memoryMib : has.memoryMib,
  };
  if (refused && isSame(refused.size, possible)) return { has, restartNeeded: refused.message };
  const waiting = [
    possible.cpus === cpus ? undefined : `${cpus} CPUs (now ${has.cpus})`,
    possible.memoryMib === memoryMib ? undefined : `${memoryMib} MiB of memory (now ${has.memoryMib})`,
  ].filter((part) => part !== undefined);
  const why = `the driver ${driver} cannot change that while the guest runs`;
  return {
    has,
    ...(isSame(possible, has) ? {} : { apply: possible }),
    ...(waiting.length === 0 ? {} : { restartNeeded: `${waiting.join(" and ")}: ${why}` }),
  };
}

export function isSame(a: Size, b: Size): boolean {
  return a.cpus === b.cpus && a.memoryMib === b.memoryMib;
}
