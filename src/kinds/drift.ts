/** What differs between an instance's root and the image that it was made from. */
import * as z from "zod";

export const rootEntryTypes = ["directory", "file", "symlink", "fifo", "socket", "device"] as const;

/** One path of a root: what it is, not when it came to be. */
export interface RootEntry {
  /** Relative, without a slash at either end; "" is the root itself. */
  path: string;
  type: (typeof rootEntryTypes)[number];
  /** The lowest twelve bits. */
  mode: number;
  uid: number;
  gid: number;
  /** Of files. */
  sizeBytes?: number;
  /** Of files, hexadecimal; left out where size alone tells, or where the content is known to be the image's. */
  sha256?: string;
  /** Of symbolic links. */
  target?: string;
  /** File capabilities, hexadecimal; "" for none, left out where nobody looked. */
  capability?: string;
}

/** A directory of a root: all names in it, and those of its entries that may differ from the image's. */
export interface RootListing {
  path: string;
  names: readonly string[];
  entries: readonly RootEntry[];
}

export const driftAspects = ["type", "content", "mode", "owner", "target", "capability"] as const;

export const differenceSchema = z.strictObject({
  /** As the guest sees it: `/etc/motd`. */
  path: z.string(),
  change: z.enum(["added", "removed", "changed"]),
  /** What it is; of what was removed, what it was. */
  type: z.enum(rootEntryTypes),
  /** In what it changed; empty unless `change` is `changed`. */
  aspects: z.array(z.enum(driftAspects)),
  /** Why it says nothing: every guest writes this by itself. Left out where no rule knows it. */
  usual: z.string().optional(),
});
export type Difference = z.infer<typeof differenceSchema>;

/**
 * How the root was read. `idle`: the guest did not run; `frozen`: it ran, and held still with its file systems in order;
 * `paused`: it ran, and held still, but what it had not written yet is missing; `running`: it went on meanwhile, so each
 * file is as it was when it was read.
 */
export const driftReadings = ["idle", "frozen", "paused", "running"] as const;
export type DriftReading = (typeof driftReadings)[number];

/** In one report. */
export const maxDifferences = 10_000;

export const driftReportSchema = z.strictObject({
  /** Of the image that the root was made from. */
  imageDigest: z.string(),
  /** When the reading began, RFC 3339. */
  at: z.string(),
  reading: z.enum(driftReadings),
  /** Sorted by path; the first `maxDifferences`. */
  differences: z.array(differenceSchema),
  /** How many there are besides; left out when these are all. */
  more: z.int().positive().optional(),
});
export type DriftReport = z.infer<typeof driftReportSchema>;
