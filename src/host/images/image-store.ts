/**
 * Images on this host: content-addressed root trees and what is made of them. Shared by all daemons on the host with
 * the same range of guests' ids (entries are immutable; locks keep two builders of one image apart).
 *
 * On disk, under the image directory:
 * - `DIGITS/`, the digest without `sha256:`, one for each image: image.json (its description), manifest.json,
 *   root/tree/ (the root tree, owners shifted by idBase, the lower layer of containers; root/ lets only guests' ids
 *   pass, since trees hold set-user-id programs of theirs), vmlinuz and initrd, disk.qcow2 with disk.json (the base of
 *   VM disks, made on first need, or kept from the import when VMs start the disk as it came), verified.json (what was
 *   found right since the host started);
 * - `sources/`: which source gave which digest, so that the same source again is immediate;
 * - `build-logs/`: what builds of Dockerfiles printed; `buildah/`: stores of that builder, which are a cache;
 * - `locks/`, and `tmp/` for what is being made.
 *
 * An entry appears by one rename, when all of it is on disk, so an interrupted build leaves nothing but a directory in
 * tmp/, which the next start removes.
 */
import type { Readable } from "node:stream";
import type { RootEntry } from "../../kinds/drift.ts";
import type { Boot, ExportFormat, ImageOrigin, ImageSource } from "../../kinds/image.ts";
import type { Progress } from "../../kinds/kind.ts";

export interface StoredImage {
  /**
   * `sha256:` and the hash of the canonical manifest: each path with type, mode, owner, size, content hash and link
   * target. With boot `firmware`, the hash over the disk's content, its firmware and the tree's digest.
   */
  digest: string;
  /** Of the files in the tree. */
  sizeBytes: number;
  /** PRETTY_NAME of os-release, or "". */
  os: string;
  types: ("vm" | "container")[];
  /** Why not both types, for people; "" when both. */
  limitation: string;
  /** How a VM starts from it; absent when none can. */
  boot?: Boot;
  /** Of what `make` gives: how this source gave it. */
  origin?: ImageOrigin;
  /** What else people should know, such as what Strata added to it; "" when nothing. */
  remark: string;
  /** Directories with the data of its application; left out: none. */
  dataPaths?: readonly string[];
}

export interface VmDisk {
  path: string;
  format: "qcow2";
  sizeMib: number;
  /** What starts the disk by itself; absent with `boot`. */
  firmware?: "bios" | "uefi";
  boot?: {
    kernel: string;
    initrd?: string;
    /** The kernel's `root=`: names the file system itself, whichever device the guest finds it on. */
    root: string;
  };
}

export interface MakeImageOptions {
  signal: AbortSignal;
  onProgress(progress: Progress): void;
  /** What sources of type `dockerfile` give is never shared between projects before it is an image. */
  project: string;
  /** Where `buildLog` finds what a build prints: an image's uid. Left out: it is not kept. */
  logName?: string;
  /** Reads what was sent to the API, for sources of type `upload` and `dockerfile`. */
  openUpload(upload: string): Promise<Readable>;
  /** Digest of an image that the same user may build on, by its name; undefined when there is none that is ready. */
  findImage?(name: string): Promise<string | undefined>;
  /** For sources of type `instance` and `backup`. */
  root?: RootSource;
}

/**
 * The root of an instance: an archive of its files, or (the path of) the raw disk of a machine that starts by its own boot loader.
 * The file may be changed.
 */
export type RootSource = { archive: AsyncIterable<Uint8Array> } | { disk: string };

export interface ImageStore {
  /** Removes what interrupted builds left. Call once at start. */
  recover(): Promise<void>;
  list(): Promise<StoredImage[]>;
  get(digest: string): Promise<StoredImage | undefined>;
  /**
   * Builds, imports or pulls. The same source made before gives the same entry at once (builds are remembered by their
   * recipe), the same content from another source is stored once.
   * @throws Invalid for a hostile, truncated or unfit archive or a wrong checksum; Unavailable without space or network.
   */
  make(source: ImageSource, options: MakeImageOptions): Promise<StoredImage>;
  /** What the build that was made by that name printed, or undefined. Bounded: of very long ones, the last lines. */
  buildLog(logName: string): Promise<AsyncIterable<Uint8Array> | undefined>;
  /** Absent is success. */
  removeBuildLog(logName: string): Promise<void>;
  /**
   * The shared, read-only lower layer for containers. Verified against the manifest before its first use by this
   * process. @throws Unsupported when the image cannot start as a container.
   */
  containerTree(
    digest: string,
    signal: AbortSignal,
  ): Promise<{ path: string; idBase: number; idCount: number }>;
  /**
   * The shared, read-only base disk, kernel and initrd. Made and verified before first use.
   * @throws Unsupported when the image cannot start as a VM.
   */
  vmDisk(digest: string, signal: AbortSignal): Promise<VmDisk>;
  /**
   * All paths of the root tree as the manifest has them, by path; checked against the digest.
   * @throws Unsupported when the image has no tree.
   */
  entries(digest: string): Promise<ReadonlyMap<string, RootEntry>>;
  /**
   * Writes the image out: calls `use` with the bytes, which come only as fast as they are read, and resolves when it
   * has. The same image in the same format gives the same bytes on the same host, but for vmdk, vdi, vhdx and ova, whose
   * files have ids of their own.
   * @throws Unsupported when the image has no such form; Unavailable without space, or GRUB for a disk made of a tree.
   */
  export(
    digest: string,
    format: ExportFormat,
    use: (bytes: AsyncIterable<Uint8Array>) => Promise<void>,
    options: Pick<MakeImageOptions, "signal" | "onProgress">,
  ): Promise<void>;
  /** Removes the entry; absent is success. The caller makes sure that nothing uses it. */
  remove(digest: string): Promise<void>;
}
