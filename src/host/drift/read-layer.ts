/**
 * Reads what a container's writable layer makes of the tree below it. What may differ is what the upper directory holds:
 * the kernel copies a file there before its first change, and a directory before anything in it changes. What is there is
 * looked at through the overlay, so whiteouts, opaque and moved directories need no reading of their own: the names that
 * the overlay shows are the names that there are.
 */
import type { BigIntStats } from "node:fs";
import { lstat } from "node:fs/promises";
import { join } from "node:path";
import type { RootEntry, RootListing } from "../../kinds/drift.ts";
import { needsContent } from "./compare-roots.ts";
import { DriftBudget } from "./drift-limits.ts";
import { entryTypeOf, GuestDirectory } from "./guest-directory.ts";

export interface LayerRequest {
  /** The overlay, mounted. */
  merged: string;
  /** Its writable directory, and the image's tree. */
  upper: string;
  lower: string;
  /** Owners are shifted by this. */
  idBase: number;
  original: ReadonlyMap<string, RootEntry>;
}

/** The root first. @throws Unsupported for more than driftLimits. */
export async function readLayer(request: LayerRequest, signal: AbortSignal): Promise<RootListing[]> {
  const reader = new LayerReader(request, signal);
  await using merged = await GuestDirectory.open(request.merged);
  await using upper = await GuestDirectory.open(request.upper);
  await reader.root(merged);
  await reader.directory("", { merged, upper }, 0);
  return reader.listings;
}

/** A directory as the guest sees it, and what the writable layer has of it. */
interface Place {
  merged: GuestDirectory;
  upper: GuestDirectory | undefined;
}

class LayerReader {
  readonly listings: RootListing[] = [];
  readonly #request: LayerRequest;
  readonly #signal: AbortSignal;
  readonly #budget = new DriftBudget();
  /** Of files with more than one name, by what they are. */
  readonly #sums = new Map<string, string>();

  constructor(request: LayerRequest, signal: AbortSignal) {
    this.#request = request;
    this.#signal = signal;
  }

  /** As if the root lay in a directory of its own. */
  async root(merged: GuestDirectory): Promise<void> {
    const entry = this.#entry("", await merged.stat());
    this.listings.push({ path: noPlace, names: [], entries: [entry] });
  }

  async directory(path: string, place: Place, depth: number): Promise<void> {
    this.#budget.depth(depth);
    const written = new Set((await place.upper?.names())?.map((name) => name.toString("latin1")));
    const names: string[] = [];
    const entries: RootEntry[] = [];
    const directories: { path: string; name: Buffer; written: boolean }[] = [];
    for (const name of await place.merged.names()) {
      this.#signal.throwIfAborted();
      const stat = await place.merged.look(name);
      if (!stat) continue;
      const text = name.toString("utf8");
      names.push(text);
      const below = path === "" ? text : `${path}/${text}`;
      this.#budget.path(below);
      const isWritten = written.has(name.toString("latin1"));
      if (!isWritten && (await this.#isOriginal(below, stat))) continue;
      const entry = await this.#look(below, name, stat, place);
      if (!entry) continue;
      entries.push(entry);
      if (entry.type === "directory") directories.push({ path: below, name, written: isWritten });
    }
    this.listings.push({ path, names, entries });
    for (const child of directories) {
      await using merged = await place.merged.enter(child.name);
      await using upper = child.written ? await place.upper?.enter(child.name) : undefined;
      if (merged) await this.directory(child.path, { merged, upper }, depth + 1);
    }
  }

  /** Is it, though not in the writable layer, the very thing that lies below its path? */
  async #isOriginal(path: string, stat: BigIntStats): Promise<boolean> {
    if (!this.#request.original.has(path)) return false;
    const below = await lstat(join(this.#request.lower, path), { bigint: true }).catch(() => undefined);
    return below !== undefined && isSame(stat, below);
  }

  async #look(
    path: string,
    name: Buffer,
    stat: BigIntStats,
    { merged }: Place,
  ): Promise<RootEntry | undefined> {
    const entry = this.#entry(path, stat);
    if (entry.type === "symlink") {
      const target = await merged.target(name);
      this.#budget.text(target?.length ?? 0);
      return target === undefined ? undefined : { ...entry, target };
    }
    if (entry.type !== "file") return entry;
    const sizeBytes = Number(stat.size);
    if (!needsContent(this.#request.original.get(path), sizeBytes)) return { ...entry, sizeBytes };
    const sha256 = await this.#hashOf(name, stat, merged);
    return sha256 === undefined ? undefined : { ...entry, sizeBytes, sha256 };
  }

  async #hashOf(name: Buffer, stat: BigIntStats, merged: GuestDirectory): Promise<string | undefined> {
    if (stat.nlink === 1n) return merged.hashOf(name, this.#signal);
    const key = [stat.dev, stat.ino, stat.size, stat.mtimeNs, stat.ctimeNs].join(" ");
    const known = this.#sums.get(key) ?? (await merged.hashOf(name, this.#signal));
    if (known !== undefined) this.#sums.set(key, known);
    return known;
  }

  #entry(path: string, stat: BigIntStats): RootEntry {
    const { idBase } = this.#request;
    return {
      path,
      type: entryTypeOf(stat),
      mode: Number(stat.mode & 0o7777n),
      uid: Number(stat.uid) - idBase,
      gid: Number(stat.gid) - idBase,
    };
  }
}

/**
 * Nobody can set a time of change. The overlay shows the lower inode's number of what is no directory, with bits of its
 * own at the top (Documentation/filesystems/overlayfs.rst, "Inode properties").
 */
function isSame(shown: BigIntStats, below: BigIntStats): boolean {
  if (shown.ctimeNs !== below.ctimeNs || shown.mtimeNs !== below.mtimeNs || shown.size !== below.size)
    return false;
  return shown.isDirectory() || BigInt.asUintN(48, shown.ino) === BigInt.asUintN(48, below.ino);
}

/** No directory has this path: the root's own entry is listed under it. */
const noPlace = "/";
