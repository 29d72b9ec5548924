/** A file system as a root archive: the form in which every source is checked and unpacked. */
import { StrataError } from "../../core/errors.ts";
import { type TarHeader, type TarType, tarEnd, writeTarHeader } from "../../core/tar-writer.ts";
import type { Ext4FileSystem, Inode } from "./ext4-file-system.ts";

export interface Mounted {
  fileSystem: Ext4FileSystem;
  /** Where it belongs in the tree: "" or a directory, such as `boot`. */
  at: string;
}

const maxDepth = 200;

/** Writes the file systems one after the other; the first is the root. @throws Invalid for damaged ones. */
export async function* archiveFileSystems(mounted: readonly Mounted[]): AsyncGenerator<Buffer, void, void> {
  const mountPoints = new Set(mounted.map(({ at }) => at).filter((at) => at !== ""));
  for (const { fileSystem, at } of mounted) {
    const walk = new Walk(fileSystem, at === "" ? mountPoints : new Set());
    yield* walk.directory(await fileSystem.root(), at, 0);
  }
  yield tarEnd;
}

class Walk {
  readonly #fileSystem: Ext4FileSystem;
  /** Directories whose content comes from another file system. */
  readonly #covered: ReadonlySet<string>;
  readonly #firstPaths = new Map<number, string>();
  readonly #directories = new Set<number>();

  constructor(fileSystem: Ext4FileSystem, covered: ReadonlySet<string>) {
    this.#fileSystem = fileSystem;
    this.#covered = covered;
  }

  async *directory(inode: Inode, path: string, depth: number): AsyncGenerator<Buffer, void, void> {
    if (this.#directories.has(inode.number) || depth > maxDepth) {
      throw new StrataError(
        "Invalid",
        `the image's file system has a loop of directories at "/${path}"; check the image`,
      );
    }
    this.#directories.add(inode.number);
    if (inode.type !== "directory") {
      throw new StrataError("Invalid", "the image's file system has no root directory; check the image");
    }
    yield header(inode, path === "" ? "." : path, "directory", "");
    if (this.#covered.has(path)) return;
    for await (const entry of this.#fileSystem.entries(inode)) {
      if (path === "" && entry.name === "lost+found") continue;
      const child = await this.#fileSystem.inode(entry.inode);
      const childPath = path === "" ? entry.name : `${path}/${entry.name}`;
      if (child.type === "directory") yield* this.directory(child, childPath, depth + 1);
      else yield* this.#other(child, childPath);
    }
  }

  async *#other(inode: Inode, path: string): AsyncGenerator<Buffer, void, void> {
    if (inode.type === "socket") return; // sockets live only while somebody listens
    const first = this.#firstPaths.get(inode.number);
    if (inode.type === "file" && first !== undefined) {
      yield header(inode, path, "hardlink", first);
      return;
    }
    if (inode.links > 1) this.#firstPaths.set(inode.number, path);
    const target = inode.type === "symlink" ? await this.#fileSystem.target(inode) : "";
    yield header(inode, path, inode.type as TarType, target);
    if (inode.type !== "file") return;
    yield* this.#fileSystem.content(inode);
    yield Buffer.alloc((512 - (inode.sizeBytes % 512)) % 512);
  }
}

function header(inode: Inode, path: string, type: TarType, target: string): Buffer {
  const { mode, uid, gid, mtimeSeconds, capability } = inode;
  const attributes = new Map<string, Uint8Array>();
  if (capability && type === "file") attributes.set("security.capability", capability);
  const sizeBytes = type === "file" ? inode.sizeBytes : 0;
  const entry: TarHeader = { path, type, mode, uid, gid, sizeBytes, mtimeSeconds, target, attributes };
  return writeTarHeader(entry);
}
