import type { Instant } from "../../core/clock.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

/** Something on this host that belongs to a uid. */
export type Found =
  | { type: "guest"; driver: string; uid: string; handle: JsonObject }
  | { type: "disk"; uid: string }
  | { type: "network"; uid: string }
  | { type: "balancer"; uid: string }
  /** `uid` is the digest. */
  | { type: "image"; uid: string };

/** What the API says is on this host, read after the host was looked at. */
export interface Known {
  /** Instance uid to the driver recorded for it, undefined while none is. */
  instances: ReadonlyMap<string, string | undefined>;
  volumes: ReadonlySet<string>;
  networks: ReadonlySet<string>;
  balancers: ReadonlySet<string>;
  /** Digests that an image, an instance's disk or a snapshot is made of. */
  digests: ReadonlySet<string>;
}

export interface OrphanWorld {
  strays: readonly Stray[];
}

export interface Stray {
  found: Found;
  /** When a look first found it unknown; every look since did. */
  since: Instant;
}

export interface RemoveOrphans {
  type: "remove";
  orphans: readonly Found[];
}

/**
 * Nothing is removed at first sight: what no resource knows must be unknown for this long, in two looks or more. So
 * nothing that is just coming or going is taken for an orphan.
 */
export const orphanGraceMs = 60_000;
/** An image took long to make, and whoever deleted it may want it again the same day. */
export const imageGraceMs = 24 * 60 * 60_000;
/** Between looks while nothing is suspect. */
export const orphanCheckMs = 10 * 60_000;

/** Guests first: their disks and networks are in use by them, and images by disks. */
export function planOrphans({ strays }: OrphanWorld, now: Instant): Plan<RemoveOrphans, never> {
  const graceOf = ({ type }: Found) => (type === "image" ? imageGraceMs : orphanGraceMs);
  const orphans = strays
    .filter(({ found, since }) => now - since >= graceOf(found))
    .map(({ found }) => found);
  orphans.sort((a, b) => removalOrder[a.type] - removalOrder[b.type]);
  return {
    status: undefined,
    actions: orphans.length > 0 ? [{ type: "remove", orphans }] : [],
    recheckAfterMs: strays.some(({ found }) => found.type !== "image") ? orphanGraceMs : orphanCheckMs,
  };
}

const removalOrder: Record<Found["type"], number> = {
  balancer: 0,
  guest: 1,
  disk: 2,
  network: 3,
  image: 4,
};

/** Is it here without a resource that says so? A guest must be the recorded driver's. */
export function isStray(found: Found, known: Known): boolean {
  switch (found.type) {
    case "guest": {
      const driver = known.instances.get(found.uid);
      return !known.instances.has(found.uid) || (driver !== undefined && driver !== found.driver);
    }
    case "disk":
      return !known.volumes.has(found.uid);
    case "network":
      return !known.networks.has(found.uid);
    case "balancer":
      return !known.balancers.has(found.uid);
    case "image":
      return !known.digests.has(found.uid);
  }
}

/** One name for the same thing in every look. */
export function strayId({ type, uid, ...rest }: Found): string {
  return `${type} ${uid} ${"driver" in rest ? rest.driver : ""}`;
}
