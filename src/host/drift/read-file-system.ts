/**
 * Reads a virtual machine's root file system beside the one that its disk began as. A file's content is read only where
 * it may differ: when the inode maps the same blocks as it did in the beginning, and nothing has been written to these,
 * it is what it was, whatever became of owners and times.
 */
import { createHash, hash } from "node:crypto";
import { assert, StrataError } from "../../core/errors.ts";
import type { RootEntry, RootListing } from "../../kinds/drift.ts";
import type { Ext4FileSystem, Inode } from "../images/ext4-file-system.ts";
import { needsContent } from "./compare-roots.ts";
import { DriftBudget } from "./drift-limits.ts";

/** What a file was made of when the disk was new. */
interface FirstContent {
  inode: number;
  sizeBytes: number;
  /** As the inode has it. */
  map: string;
}
export type FirstContents = ReadonlyMap<string, FirstContent>;

const maxNeutralBytes = 64 * 1024;

/** A file system and where in the tree it belongs: "" or a directory. */
export interface Mounted {
  fileSystem: Ext4FileSystem;
  at: string;
}

/** Of the disk that the machine's own is based on, which nothing changes: to be read before the machine is held still. */
export async function readFirstContents(
  mounted: readonly Mounted[],
  signal: AbortSignal,
): Promise<FirstContents> {
  const found = new Map<string, FirstContent>();
  for await (const { children } of walkAll(mounted, signal)) {
    for (const { path, inode } of children) {
      if (inode.type !== "file") continue;
      const { number, sizeBytes, map } = inode;
      found.set(path, { inode: number, sizeBytes, map: map.toString("latin1") });
    }
  }
  return found;
}

export interface FileSystemRequest {
  /** The root first. */
  mounted: readonly (Mounted & { isWritten: IsWritten })[];
  first: FirstContents;
  original: ReadonlyMap<string, RootEntry>;
  /** What the image has for a file of the disk, where it was not taken over as it was. */
  neutral?: { path: string; change(text: string): string };
}

/** Was anything there (bytes of the file system's disk) written since it was new? */
type IsWritten = (offset: number, length: number) => Promise<boolean>;

/** All directories. @throws Unsupported for more than driftLimits; Invalid for what is damaged. */
export async function readFileSystem(
  request: FileSystemRequest,
  signal: AbortSignal,
): Promise<RootListing[]> {
  const { mounted } = request;
  const [main] = mounted;
  assert(main !== undefined, "a root has a file system");
  const listings: RootListing[] = [];
  const budget = new DriftBudget();
  const sums: Sums = new Map(mounted.map(({ fileSystem }) => [fileSystem, new Map()]));
  listings.push({ path: "/", names: [], entries: [entryOf("", await main.fileSystem.root())] });
  for await (const { path, children, home } of walkAll(mounted, signal)) {
    const entries: RootEntry[] = [];
    for (const child of children) {
      const entry = await look(request, home, child, sums, signal);
      budget.text((entry.target?.length ?? 0) + (entry.capability?.length ?? 0));
      entries.push(entry);
    }
    listings.push({ path, names: children.map(({ name }) => name), entries });
  }
  return listings;
}

interface Child {
  name: string;
  path: string;
  inode: Inode;
}

/** Of content that was read, by inode: a file may have many names. */
type Sums = ReadonlyMap<Ext4FileSystem, Map<number, string>>;

type Listed = { path: string; children: Child[] };

async function* walkAll<M extends Mounted>(
  mounted: readonly M[],
  signal: AbortSignal,
): AsyncGenerator<Listed & { home: M }, void, void> {
  const covered = new Set(mounted.map(({ at }) => at).filter((at) => at !== ""));
  const budget = new DriftBudget();
  for (const home of mounted) {
    const within = home.at === "" ? covered : new Set<string>();
    for await (const listed of walk(home, within, budget, signal)) yield { ...listed, home };
  }
}

/** `covered`: directories whose content comes from another file system. */
async function* walk(
  { fileSystem, at }: Mounted,
  covered: ReadonlySet<string>,
  budget: DriftBudget,
  signal: AbortSignal,
): AsyncGenerator<Listed, void, void> {
  const seen = new Set<number>();
  const waiting = [{ path: at, number: (await fileSystem.root()).number, depth: 0 }];
  for (let next = waiting.pop(); next; next = waiting.pop()) {
    signal.throwIfAborted();
    const { path, number: own, depth } = next;
    const directory = await fileSystem.inode(own);
    if (directory.type !== "directory" || seen.has(directory.number)) {
      throw new StrataError("Invalid", `the root's file system has a loop of directories at "/${path}"`);
    }
    seen.add(directory.number);
    if (covered.has(path)) continue;
    budget.depth(depth);
    const children: Child[] = [];
    for await (const { name, inode: number } of fileSystem.entries(directory)) {
      const below = path === "" ? name : `${path}/${name}`;
      budget.path(below);
      const inode = await fileSystem.inode(number);
      children.push({ name, path: below, inode });
      if (inode.type === "directory") waiting.push({ path: below, number, depth: depth + 1 });
    }
    yield { path, children };
  }
}

async function look(
  request: FileSystemRequest,
  home: FileSystemRequest["mounted"][number],
  { path, inode }: Child,
  sums: Sums,
  signal: AbortSignal,
): Promise<RootEntry> {
  const entry = entryOf(path, inode);
  const { fileSystem } = home;
  const { original, neutral } = request;
  if (inode.type === "symlink") return { ...entry, target: await fileSystem.target(inode) };
  if (inode.type !== "file") return entry;
  const { sizeBytes } = inode;
  const file = { ...entry, sizeBytes, capability: inode.capability?.toString("hex") ?? "" };
  if (neutral?.path === path && sizeBytes <= maxNeutralBytes) {
    const parts: Buffer[] = [];
    for await (const chunk of fileSystem.content(inode)) parts.push(chunk);
    const text = Buffer.from(neutral.change(Buffer.concat(parts).toString("utf8")));
    return { ...file, sizeBytes: text.length, sha256: hash("sha256", text) };
  }
  const isKnown = !needsContent(original.get(path), sizeBytes);
  if (isKnown || (await isUntouched(request.first, home, path, inode))) return file;
  const known = sums.get(fileSystem);
  const before = known?.get(inode.number);
  if (before !== undefined) return { ...file, sha256: before };
  const sum = createHash("sha256");
  for await (const chunk of fileSystem.content(inode)) {
    signal.throwIfAborted();
    sum.update(chunk);
  }
  const sha256 = sum.digest("hex");
  known?.set(inode.number, sha256);
  return { ...file, sha256 };
}

async function isUntouched(
  first: FirstContents,
  { fileSystem, isWritten }: FileSystemRequest["mounted"][number],
  path: string,
  inode: Inode,
): Promise<boolean> {
  const before = first.get(path);
  if (before?.inode !== inode.number || before.sizeBytes !== inode.sizeBytes) return false;
  if (before.map !== inode.map.toString("latin1") || !mapsByItself(inode)) return false;
  for await (const { offset, length } of fileSystem.ranges(inode)) {
    if (await isWritten(offset, length)) return false;
  }
  return true;
}

/** All of its extents are in the inode: no block of a tree could have changed. */
function mapsByItself({ map }: Inode): boolean {
  return map.readUInt16LE(0) === 0xf30a && map.readUInt16LE(6) === 0;
}

function entryOf(path: string, { type, mode, uid, gid }: Inode): RootEntry {
  const isDevice = type === "character" || type === "block";
  return { path, type: isDevice ? "device" : type, mode, uid, gid };
}
