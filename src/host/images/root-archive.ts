/**
 * What may become a root tree. Every root archive passes through here before any tool of the host sees it, and what
 * comes out is a plain archive that was written here: nothing that tar reads was chosen byte by byte by a stranger.
 *
 * Refused: paths that are absolute or climb, entries below a symbolic link or a file, hard links to anything but a
 * file of the same archive, device nodes, a path twice, ids above 65535, names no file system takes, and more than the
 * limits. Left out: what is below /dev, /proc and /sys, which are mounted in every guest. Changed: /etc/fstab, see
 * neutralFstab; with `forgetIdentity`, what machine-identity.ts names.
 */
import { StrataError } from "../../core/errors.ts";
import { tarEnd, writeTarHeader } from "../../core/tar-writer.ts";
import { formatBytes } from "../../core/units.ts";
import { identityFate } from "./machine-identity.ts";
import { readTar, show, type TarEntry } from "./tar-reader.ts";

export interface ArchiveLimits {
  maxEntries: number;
  maxUnpackedBytes: number;
  /** How many times its packed size an archive may unpack to, once it is larger than `ratioFromBytes`. */
  maxRatio: number;
  ratioFromBytes: number;
}

export const defaultLimits: ArchiveLimits = {
  maxEntries: 1_000_000,
  maxUnpackedBytes: 32 * 1024 ** 3,
  maxRatio: 100,
  ratioFromBytes: 1024 ** 3,
};

export interface SanitizeOptions {
  limits: ArchiveLimits;
  /** Bytes of the packed form read so far, for the ratio; Infinity when it is not packed. */
  packedBytes(): number;
  /** Takes only what is below this directory of the archive, as the root. */
  below?: string;
  /** The archive is no root tree: nothing is left out or changed. */
  verbatim?: boolean;
  /** Takes out what makes the machine that it is of this one and no other. */
  forgetIdentity?: boolean;
}

/** What an archive has that the tree on disk does not show to us. */
export interface ArchiveFacts {
  /** File capabilities (hexadecimal) by path. */
  capabilities: Map<string, string>;
  unpackedBytes: number;
  entries: number;
}

const maxNameBytes = 255;
const maxPathBytes = 4000;
const maxId = 65535;
const capability = "security.capability";
const maxCapabilityBytes = 24;
const mountedInGuests = ["dev", "proc", "sys"];
const fstabPath = "etc/fstab";
const maxFstabBytes = 64 * 1024;

type Seen = "directory" | "file" | "symlink" | "fifo";

/**
 * Yields a clean archive; `facts` fills up meanwhile and is complete at the end.
 * @throws Invalid, naming the entry, at the first thing that is refused.
 */
export async function* sanitizeRootArchive(
  source: AsyncIterable<Uint8Array>,
  options: SanitizeOptions,
  facts: ArchiveFacts,
): AsyncGenerator<Buffer, void, void> {
  const seen = new Map<string, Seen>([["", "directory"]]);
  for await (const entry of readTar(source)) {
    const path = relativePath(entry.path, options.below);
    if (path === undefined || (!options.verbatim && isMountedInGuests(path))) continue;
    if (options.forgetIdentity && isLeftOut(entry, path)) continue;
    count(entry, facts, options);
    const type = checkEntry(entry, path, seen, options.below);
    for (const parent of missingParents(path, seen)) {
      seen.set(parent, "directory");
      yield writeTarHeader({ ...implicitDirectory, path: parent, mtimeSeconds: entry.mtimeSeconds });
    }
    if (entry.type !== "directory" && seen.has(path)) throw refuse(entry, "is in the archive twice");
    seen.set(path, type);
    yield* copyEntry(entry, path, facts, options);
  }
  if (seen.size === 1 && !options.verbatim)
    throw new StrataError("Invalid", "the archive holds no root tree: it has no files");
  yield tarEnd;
}

function isMountedInGuests(path: string): boolean {
  return mountedInGuests.some((name) => path.startsWith(`${name}/`));
}

function isLeftOut({ type, target }: TarEntry, path: string): boolean {
  const same = type === "hardlink" ? target.replace(/^(\.\/)+/, "") : path;
  return [path, same].some((one) => identityFate(one) === "left-out");
}

const implicitDirectory = {
  type: "directory" as const,
  mode: 0o755,
  uid: 0,
  gid: 0,
  sizeBytes: 0,
  target: "",
  attributes: new Map<string, Uint8Array>(),
};

async function* copyEntry(
  entry: TarEntry,
  path: string,
  facts: ArchiveFacts,
  { below, verbatim, forgetIdentity }: SanitizeOptions,
): AsyncGenerator<Buffer, void, void> {
  const attributes = new Map([...entry.attributes].filter(([name]) => name === capability));
  const value = attributes.get(capability);
  if (value) {
    if (entry.type !== "file" || value.length > maxCapabilityBytes) {
      throw refuse(entry, "has file capabilities that no file can have");
    }
    facts.capabilities.set(path, Buffer.from(value).toString("hex"));
  }
  const target = entry.type === "hardlink" ? (relativePath(entry.target, below) ?? "") : entry.target;
  const header = { ...entry, path: path === "" ? "." : path, target, attributes };
  if (path === fstabPath && entry.type === "file" && !verbatim) {
    const text = Buffer.from(neutralFstab(await readSmall(entry)));
    yield writeTarHeader({ ...header, sizeBytes: text.length });
    yield text;
    yield padding(text.length);
    return;
  }
  if (forgetIdentity && entry.type === "file" && identityFate(path) === "emptied") {
    yield writeTarHeader({ ...header, sizeBytes: 0 });
    return;
  }
  yield writeTarHeader(header);
  for await (const chunk of entry.content) yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
  yield padding(entry.sizeBytes);
}

function padding(sizeBytes: number): Buffer {
  return Buffer.alloc((512 - (sizeBytes % 512)) % 512);
}

function count(entry: TarEntry, facts: ArchiveFacts, { limits, packedBytes }: SanitizeOptions): void {
  facts.entries++;
  facts.unpackedBytes += entry.sizeBytes;
  if (facts.entries > limits.maxEntries) {
    throw new StrataError("Invalid", `the archive has more than ${limits.maxEntries} entries`);
  }
  if (facts.unpackedBytes > limits.maxUnpackedBytes) {
    const limit = formatBytes(limits.maxUnpackedBytes);
    throw refuse(entry, `makes the unpacked tree larger than ${limit}, the limit`);
  }
  // The entry's own packed bytes are not read yet; what it claims counts already, so allow for one read-ahead.
  const packed = packedBytes() + 1024 * 1024;
  if (facts.unpackedBytes > limits.ratioFromBytes && facts.unpackedBytes > packed * limits.maxRatio) {
    throw refuse(
      entry,
      `unpacks to more than ${limits.maxRatio} times the packed size; this looks like a decompression bomb`,
    );
  }
}

function checkEntry(entry: TarEntry, path: string, seen: ReadonlyMap<string, Seen>, below?: string): Seen {
  const earlier = seen.get(path);
  if (path !== "" && Buffer.byteLength(path) > maxPathBytes) throw refuse(entry, "has too long a path");
  if (path.split("/").some((name) => Buffer.byteLength(name) > maxNameBytes)) {
    throw refuse(entry, `has a name longer than ${maxNameBytes} bytes`);
  }
  if (entry.uid > maxId || entry.gid > maxId) {
    throw refuse(entry, `belongs to ${entry.uid}:${entry.gid}; guests have the ids 0 to ${maxId}`);
  }
  for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1)) {
    const type = seen.get(path.slice(0, slash));
    if (type === "symlink")
      throw refuse(entry, `lies below the symbolic link "${show(path.slice(0, slash))}"`);
    if (type !== undefined && type !== "directory") {
      throw refuse(entry, `lies below "${show(path.slice(0, slash))}", which is no directory`);
    }
  }
  switch (entry.type) {
    case "character":
    case "block":
      throw refuse(entry, "is a device node; guests get theirs from the host");
    case "directory":
      if (earlier !== undefined && earlier !== "directory") throw refuse(entry, "is in the archive twice");
      return "directory";
    case "hardlink":
      checkHardLink(entry, seen, below);
      return "file";
    case "symlink":
      if (
        entry.target === "" ||
        entry.target.includes("\0") ||
        Buffer.byteLength(entry.target) > maxPathBytes
      ) {
        throw refuse(entry, "is a symbolic link without a usable target");
      }
      break;
  }
  if (path === "") throw refuse(entry, "must be a directory, being the root");
  return entry.type;
}

function checkHardLink(entry: TarEntry, seen: ReadonlyMap<string, Seen>, below?: string): void {
  const target = relativePath(entry.target, below);
  if (target === undefined || seen.get(target) !== "file") {
    throw refuse(entry, `is a hard link to "${show(entry.target)}", which is no earlier file of the archive`);
  }
}

/** Of the archive's root, or of `below`; undefined for what is not below that. @throws Invalid for paths that climb. */
function relativePath(path: string, below?: string): string | undefined {
  const problem = (what: string) =>
    new StrataError("Invalid", `the archive has the path "${show(path)}", which ${what}`);
  if (path.startsWith("/")) throw problem("is absolute");
  if (path === "" || path.includes("\0")) throw problem("is no path");
  const names = path.split("/").filter((name) => name !== "" && name !== ".");
  if (names.includes("..")) throw problem('climbs with ".."');
  if (below !== undefined && names.shift() !== below) return undefined;
  return names.join("/");
}

function* missingParents(path: string, seen: ReadonlyMap<string, Seen>): Generator<string> {
  for (let slash = path.indexOf("/"); slash >= 0; slash = path.indexOf("/", slash + 1)) {
    const parent = path.slice(0, slash);
    if (!seen.has(parent)) yield parent;
  }
}

async function readSmall(entry: TarEntry): Promise<string> {
  if (entry.sizeBytes > maxFstabBytes)
    throw refuse(entry, `has ${entry.sizeBytes} bytes; ${maxFstabBytes} is the limit`);
  const chunks: Uint8Array[] = [];
  for await (const chunk of entry.content) chunks.push(chunk);
  return Buffer.concat(chunks).toString("utf8");
}

const ownFileSystems = new Set(["/", "/boot", "/boot/efi", "/efi"]);

/**
 * A machine's fstab names partitions by label, UUID or device. A guest's root is one unpartitioned file system, mounted
 * by kernel command line or container, so these lines could only stop the boot; they are kept as comments. Swap and
 * data partitions of that machine do not exist here either.
 */
export function neutralFstab(text: string): string {
  const lines = text.split("\n").map((line) => {
    const [device = "", mountPoint = "", type = ""] = line.trim().split(/\s+/);
    if (device === "" || device.startsWith("#")) return line;
    const partition = /^(LABEL=|UUID=|PARTUUID=|PARTLABEL=|\/dev\/)/.test(device);
    if (!partition && !ownFileSystems.has(mountPoint) && type !== "swap") return line;
    return `# ${line} # not in this guest`;
  });
  return lines.join("\n");
}

function refuse(entry: TarEntry, what: string): StrataError {
  return new StrataError("Invalid", `"${show(entry.path)}" ${what}`);
}
