import { Hints } from "../../core/hints.ts";
import type { Host } from "../../kinds/host.ts";
import type { Instance } from "../../kinds/instance.ts";
import { Usage } from "../../placement/usage.ts";
import { CacheIndex } from "../../reconcile/cache.ts";
import type { ControllerCaches } from "../context.ts";
import { ownerOf } from "../groups/state.ts";

/** What placement keeps beside the caches, each part kept up to date with single changes. */
export interface PlacementState {
  caches: Pick<ControllerCaches, "hosts" | "instances" | "images" | "groups">;
  /** Members, by uid of their group. */
  members: CacheIndex<Instance>;
  usage: Usage;
  /** How many images were given to each host. */
  imagesByHost: ReadonlyMap<string, number>;
  /** Keys of instances and images that no host could take, in the order of their creation. */
  waiting: ReadonlySet<string>;
  /** Room may have come up: what waits is to be looked at again. */
  hints: Hints;
}

export function createPlacementState(caches: PlacementState["caches"]): PlacementState {
  const members = new CacheIndex(caches.instances, ownerOf);
  const usage = new Usage();
  const imagesByHost = new Map<string, number>();
  const waiting = new Set<string>();
  const hints = new Hints();
  const lookAgain = () => {
    for (const key of waiting) hints.hint(key);
  };
  caches.instances.onChange((key, next, previous) => {
    usage.change(next, previous);
    const unplaced =
      next !== undefined && next.status.host === undefined && next.metadata.deletedAt === undefined;
    if (unplaced) waiting.add(key);
    else waiting.delete(key);
    if (previous?.status.host !== undefined && (!next || isSmaller(next, previous))) lookAgain();
  });
  caches.images.onChange((key, next, previous) => {
    count(imagesByHost, previous?.status.host, -1);
    count(imagesByHost, next?.status.host, 1);
    if (next && next.status.host === undefined && next.metadata.deletedAt === undefined) waiting.add(key);
    else waiting.delete(key);
    if (next?.status.host !== previous?.status.host) lookAgain();
  });
  caches.hosts.onChange((_key, next, previous) => {
    if (!next || !previous || takesMore(next, previous)) lookAgain();
  });
  return { caches, members, usage, imagesByHost, waiting, hints };
}

/** Was it resized to less than before? */
function isSmaller({ spec: next }: Instance, { spec: previous }: Instance): boolean {
  return next.cpus < previous.cpus || next.memoryMib < previous.memoryMib;
}

/** May the host take what it could not take before? */
function takesMore(next: Host, previous: Host): boolean {
  return (
    JSON.stringify([next.spec, next.status.state, next.status.allocatable, next.status.drivers]) !==
    JSON.stringify([
      previous.spec,
      previous.status.state,
      previous.status.allocatable,
      previous.status.drivers,
    ])
  );
}

function count(counts: Map<string, number>, key: string | undefined, change: 1 | -1): void {
  if (key === undefined) return;
  const next = (counts.get(key) ?? 0) + change;
  if (next === 0) counts.delete(key);
  else counts.set(key, next);
}
