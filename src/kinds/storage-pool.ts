import * as z from "zod";
import { conditionSchema, defineKind, immutable, type ResourceOf } from "./kind.ts";

/** A pool of one host as its agent has seen it. All sizes in whole MiB. */
const hostPoolSchema = z.strictObject({
  state: z.enum(["ready", "failed"]),
  /** Why it is not ready there, and what would help. */
  message: z.string().max(1024),
  /** It was ready there once, so that there may be volumes in it: from then on its mark must be found in the directory. */
  prepared: z.boolean(),
  /** Of the directory: `ext4`, `xfs`, `btrfs`, `nfs` or another one; as the kernel says. */
  fileSystem: z.string().max(32).optional(),
  /** Snapshots share blocks with their volume: proven by doing so. */
  reflink: z.boolean().optional(),
  /** Of the whole file system. */
  capacityMib: z.int().min(0).default(0),
  /** Of the file system, by whatever is on it. */
  usedMib: z.int().min(0).default(0),
  /** What can still be written. */
  freeMib: z.int().min(0).default(0),
  /** Blocks of the pool's own files; blocks that files share count in each of them. */
  allocatedMib: z.int().min(0).default(0),
  /** Sizes of all volumes that are, or may come to be, in it: what they can grow to without anybody's asking. */
  promisedMib: z.int().min(0).default(0),
  /** So little is left that writers wait. */
  full: z.boolean().default(false),
});
export type HostPool = z.infer<typeof hostPoolSchema>;

export const storagePoolKind = defineKind({
  name: "StoragePool",
  plural: "storage-pools",
  scope: "cluster",
  summary: "A directory of hosts that volumes and their snapshots lie in, beside the one of the daemon.",
  spec: z.strictObject({
    /** Of each host that takes part: exists, belongs to root, holds nothing that others may change. */
    path: z
      .string()
      .max(512)
      .regex(/^(\/(?!\.\.?(\/|$))[A-Za-z0-9._@=+-]+)+$/, {
        error:
          "must be an absolute path of letters, digits and . _ @ = + - without `.`, `..`, `//` or a / at its end",
      }),
    /** `nfs`: a mounted NFS path, and nothing else when it is not mounted. */
    type: z.enum(["directory", "nfs"]).default("directory"),
    /** `required`: refused where snapshots would be copies. */
    reflink: z.enum(["auto", "required"]).default("auto"),
    /** Use of the file system, in percent, from which on there is a warning. */
    warnPercent: z.int().min(1).max(100).default(80),
    /** How many times its capacity may be promised to volumes; 1: nothing that is not there. */
    maxOvercommit: z.number().min(0.1).max(1000).default(2),
    /**
     * It will not come back: volumes and snapshots in it can be deleted without their files, and nothing in its directory is
     * touched any more. Only of a pool that is ready nowhere; may be taken back for what has not been deleted yet.
     */
    lost: z.boolean().default(false),
  }),
  status: z.strictObject({
    /** `ready` where it is on one host or more. */
    state: z.enum(["pending", "ready", "failed"]),
    message: z.string().max(1024),
    hosts: z.record(z.string(), hostPoolSchema),
    /** `NearlyFull`: use is at `warnPercent` or above. `Full`: writers wait. */
    conditions: z.array(conditionSchema),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for a host to look at it",
    hosts: {},
    conditions: [],
    observedGeneration: 0,
  }),
  finalizers: ["agent"],
  validateUpdate: (next, previous) => immutable(next, previous, ["path", "type", "reflink"]),
});
export type StoragePool = ResourceOf<typeof storagePoolKind>;
export type StoragePoolStatus = StoragePool["status"];

/** Of all hosts that have it: added up, but for what they share. */
export function poolTotals({ spec, status }: StoragePool): { capacityMib: number; freeMib: number } {
  const ready = Object.values(status.hosts).filter(({ state }) => state === "ready");
  const total = (of: (host: HostPool) => number) =>
    spec.type === "nfs" ? Math.max(0, ...ready.map(of)) : ready.reduce((sum, host) => sum + of(host), 0);
  return { capacityMib: total((host) => host.capacityMib), freeMib: total((host) => host.freeMib) };
}
