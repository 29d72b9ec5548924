/** From an image's manifest and what was read of a root to what differs between the two. Pure. */
import type { Difference, RootEntry, RootListing } from "../../kinds/drift.ts";
import { applicationData, usualChange, whatHostMounts } from "./usual-changes.ts";

type Aspect = Difference["aspects"][number];

/**
 * What nobody listed is as it was: a reader lists each directory in which anything may differ. `mounts`: where the host
 * mounts volumes in the guest, for which it makes directories. `data`: directories whose content is the application's own.
 * Sorted by path.
 */
export function compareRoots(
  original: ReadonlyMap<string, RootEntry>,
  listings: Iterable<RootListing>,
  mounts: readonly string[] = [],
  data: readonly string[] = [],
): Difference[] {
  const below = childrenOf(original);
  const found: Difference[] = [];
  const tell = ({ path, type }: RootEntry, change: Difference["change"], aspects: Aspect[] = []) => {
    const leads = mounts.some((mount) => mount === `/${path}` || mount.startsWith(`/${path}/`));
    const forMount = change === "added" && type === "directory" && leads;
    const ofData = data.some((directory) => `/${path}`.startsWith(`${directory}/`));
    const usual = forMount ? whatHostMounts : ofData ? applicationData : usualChange(path, change);
    const difference = { path: `/${path}`, change, type, aspects };
    found.push(usual === undefined ? difference : { ...difference, usual });
  };
  const tellRemoved = (entry: RootEntry) => {
    tell(entry, "removed");
    for (const child of below.get(entry.path) ?? []) tellRemoved(child);
  };
  for (const { path, names, entries } of listings) {
    const there = new Set(names);
    for (const child of below.get(path) ?? []) {
      if (!there.has(nameOf(child.path))) tellRemoved(child);
    }
    for (const entry of entries) {
      const before = original.get(entry.path);
      if (!before) tell(entry, "added");
      else {
        const aspects = aspectsOf(before, entry);
        if (aspects.length > 0) tell(entry, "changed", aspects);
        if (before.type === "directory" && entry.type !== "directory") {
          for (const child of below.get(entry.path) ?? []) tellRemoved(child);
        }
      }
    }
  }
  return found.sort((a, b) => (a.path < b.path ? -1 : a.path > b.path ? 1 : 0));
}

/** Is the content needed to tell whether the file differs? */
export function needsContent(before: RootEntry | undefined, sizeBytes: number): boolean {
  return before?.type === "file" && before.sizeBytes === sizeBytes;
}

function aspectsOf(before: RootEntry, now: RootEntry): Aspect[] {
  const aspects: Aspect[] = [];
  if (before.type !== now.type) aspects.push("type");
  else if (now.type === "file" && isOtherContent(before, now)) aspects.push("content");
  // The mode of a symbolic link means nothing.
  if (before.mode !== now.mode && now.type !== "symlink") aspects.push("mode");
  if (before.uid !== now.uid || before.gid !== now.gid) aspects.push("owner");
  if (before.type === now.type && before.target !== now.target) aspects.push("target");
  if (now.capability !== undefined && now.capability !== (before.capability ?? ""))
    aspects.push("capability");
  return aspects;
}

function isOtherContent(before: RootEntry, now: RootEntry): boolean {
  if (before.sizeBytes !== now.sizeBytes) return true;
  return now.sha256 !== undefined && now.sha256 !== before.sha256;
}

function childrenOf(original: ReadonlyMap<string, RootEntry>): Map<string, RootEntry[]> {
  const below = new Map<string, RootEntry[]>();
  for (const entry of original.values()) {
    if (entry.path === "") continue;
    const parent = entry.path.slice(0, Math.max(0, entry.path.lastIndexOf("/")));
    const siblings = below.get(parent);
    if (siblings) siblings.push(entry);
    else below.set(parent, [entry]);
  }
  return below;
}

function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
