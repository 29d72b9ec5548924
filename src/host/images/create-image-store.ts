/**
 * The image store of a host: see image-store.ts for the contract and the layout on disk. Whatever the source, it
 * becomes a root archive, and every archive takes the same way: checked (root-archive), unpacked in a jail
 * (unpack-archive), read back and hashed (manifest), looked into (tree-inspection), written to disk for good and only
 * then renamed to its digest.
 */
import { hash } from "node:crypto";
import { chmod, mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { z } from "zod";
import { StrataError } from "../../core/errors.ts";
import { canonicalJson, type Json } from "../../core/json.ts";
import { formatBytes } from "../../core/units.ts";
import { digestSchema, type ImageSource } from "../../kinds/image.ts";
import { type Artefact, spool } from "./artefact.ts";
import { makeBaseDisk, rootUuid } from "./base-disk.ts";
import { idCount } from "./contained-process.ts";
import { buildDebianTree } from "./debian-build.ts";
import { recipeVersion } from "./debian-recipe.ts";
import { unpackStream } from "./decompression.ts";
import { type Description, diskDescriptionSchema, readJson, writeJson } from "./entry-files.ts";
import { type FileLock, lockFile } from "./file-lock.ts";
import {
  addEntry,
  describeEntry,
  entryOf,
  listEntries,
  removeEntry,
  settle,
  startDraft,
  toStoredImage,
} from "./image-entries.ts";
import type { ImageStore, MakeImageOptions, StoredImage, VmDisk } from "./image-store.ts";
import { type JobDirectory, openJob, sweepJobs } from "./job-directory.ts";
import { type ArchiveLimits, defaultLimits } from "./root-archive.ts";
import { explainNoSpace } from "./space-error.ts";
import { unpackRootArchive } from "./unpack-archive.ts";
import { hashOfFile, verifyFile, verifyTree } from "./verification.ts";

export interface ImageStoreOptions {
  /** Made where it is missing. */
  imageDir: string;
  /** First host id of the guests' range. */
  idBase: number;
  limits?: Partial<ArchiveLimits>;
}

/** Increase it when the same artefact would give another tree. */
const importVersion = 1;

type Made = { archive: AsyncIterable<Uint8Array>; packedBytes(): number; below?: string };

export function createImageStore(options: ImageStoreOptions): ImageStore {
  return new LocalImageStore(options);
}

class LocalImageStore implements ImageStore {
  readonly #imageDir: string;
  readonly #idBase: number;
  readonly #limits: ArchiveLimits;
  readonly #directory: (name: "tmp" | "locks" | "sources") => string;
  /** What this process has verified, or is verifying: `tree DIGEST`, `disk DIGEST`. */
  readonly #verified = new Map<string, Promise<void>>();

  constructor({ imageDir, idBase, limits }: ImageStoreOptions) {
    this.#imageDir = imageDir;
    this.#idBase = idBase;
    this.#limits = { ...defaultLimits, ...limits };
    this.#directory = (name) => join(imageDir, name);
  }

  async recover(): Promise<void> {
    await mkdir(this.#imageDir, { recursive: true, mode: 0o711 });
    await mkdir(this.#directory("tmp"), { recursive: true, mode: 0o711 });
    await mkdir(this.#directory("locks"), { recursive: true, mode: 0o700 });
    await mkdir(this.#directory("sources"), { recursive: true, mode: 0o700 });
    await sweepJobs(this.#directory("tmp"));
  }

  async list(): Promise<StoredImage[]> {
    return (await listEntries(this.#imageDir)).map(toStoredImage);
  }

  async get(digest: string): Promise<StoredImage | undefined> {
    const description = await describeEntry(this.#imageDir, digest);
    return description && toStoredImage(description);
  }

  async make(source: ImageSource, options: MakeImageOptions): Promise<StoredImage> {
    try {
      switch (source.type) {
        case "debian":
          return await this.#once({ ...source, recipeVersion }, options, (job) =>
            this.#import(job, options, {
              archive: buildDebianTree(source, { ...options, directory: join(job.path, "build") }),
              packedBytes: () => Number.POSITIVE_INFINITY,
            }),
          );
        case "upload": {
          await using job = await this.#job(options.signal);
          const upload = await options.openUpload(source.upload);
          const artefact = await spool(upload, join(job.path, "artefact"), options.signal, source.sha256);
          return await this.#makeArtefact(artefact, source.format, options);
        }
        case "url":
        case "simplestreams":
          throw new StrataError("Unsupported", `images of type ${source.type} cannot be made yet`);
      }
    } catch (error) {
      options.signal.throwIfAborted();
      throw explainNoSpace(error, "make an image", this.#imageDir);
    }
  }

  async containerTree(digest: string, signal: AbortSignal) {
    await this.#require(digest);
    const paths = entryOf(this.#imageDir, digest);
    await this.#verifyOnce(`tree ${digest}`, () => verifyTree(paths, digest, this.#idBase, signal));
    return { path: paths.tree, idBase: this.#idBase, idCount };
  }

  async vmDisk(digest: string, signal: AbortSignal): Promise<VmDisk> {
    const description = await this.#require(digest);
    const { boot } = description;
    if (!boot)
      throw new StrataError("Unsupported", `this image cannot start as a VM: ${description.limitation}`);
    const paths = entryOf(this.#imageDir, digest);
    let disk = await readJson(paths.diskDescription, diskDescriptionSchema);
    if (!disk) {
      try {
        disk = await this.#makeDisk(description, signal);
      } catch (error) {
        throw explainNoSpace(error, "make a VM disk of the image", this.#imageDir);
      }
    }
    const { sha256, sizeMib } = disk;
    await this.#verifyOnce(`disk ${digest}`, async () => {
      await verifyFile(paths, paths.disk, sha256, digest, signal);
      await verifyFile(paths, paths.kernel, boot.kernel, digest, signal);
      if (boot.initrd) await verifyFile(paths, paths.initrd, boot.initrd, digest, signal);
    });
    return {
      path: paths.disk,
      format: "qcow2" as const,
      sizeMib,
      boot: {
        kernel: paths.kernel,
        ...(boot.initrd && { initrd: paths.initrd }),
        root: `UUID=${rootUuid(digest)}`,
      },
    };
  }

  async remove(digest: string): Promise<void> {
    await using job = await this.#job(new AbortController().signal);
    await removeEntry(this.#imageDir, digest, job);
    this.#verified.delete(`tree ${digest}`);
    this.#verified.delete(`disk ${digest}`);
  }

  /** Makes what `recipe` says, unless it was made before; one builder at a time on this host, the others wait for it. */
  async #once(
    recipe: Record<string, unknown>,
    options: MakeImageOptions,
    build: (job: JobDirectory) => Promise<Description>,
  ): Promise<StoredImage> {
    const { signal } = options;
    const key = hash("sha256", canonicalJson({ ...recipe, importVersion } as Json));
    const memory = join(this.#directory("sources"), `${key}.json`);
    const remembered = async () => {
      const known = await readJson(memory, z.object({ digest: digestSchema }));
      return known && this.get(known.digest);
    };
    const before = await remembered();
    if (before) return before;
    options.onProgress({ step: "waiting for another build of the same image" });
    await using _lock: FileLock = await lockFile(join(this.#directory("locks"), key), signal);
    const meanwhile = await remembered();
    if (meanwhile) return meanwhile;
    options.onProgress({ step: "starting" });
    await using job = await this.#job(signal);
    const description = await build(job);
    await writeJson(memory, { digest: description.digest, recipe });
    return toStoredImage(description);
  }

  #makeArtefact(
    artefact: Artefact,
    format: "tar" | "qcow2",
    options: MakeImageOptions,
    below?: string,
  ): Promise<StoredImage> {
    const recipe = { type: "artefact", format, sha256: artefact.sha256, ...(below && { below }) };
    return this.#once(recipe, options, (job) => {
      if (format === "qcow2") throw new StrataError("Unsupported", "qcow2 images cannot be made yet");
      const packed = artefact.read();
      return this.#import(job, options, {
        archive: unpackStream(packed, artefact.packing, options.signal),
        packedBytes: () => (artefact.packing === "none" ? Number.POSITIVE_INFINITY : packed.bytesRead),
        ...(below && { below }),
      });
    });
  }

  async #import(job: JobDirectory, options: MakeImageOptions, made: Made): Promise<Description> {
    const { signal, onProgress } = options;
    const idBase = this.#idBase;
    const draft = await startDraft(job, idBase);
    const jail = join(job.path, "jail");
    await mkdir(jail);
    const { capabilities } = await unpackRootArchive({
      ...made,
      limits: this.#limits,
      tree: draft.tree,
      jail,
      idBase,
      signal,
      onBytes: (bytes) => onProgress({ step: `unpacking: ${formatBytes(bytes)}` }),
    });
    onProgress({ step: "reading and hashing the tree", fraction: 0.95 });
    return addEntry({ imageDir: this.#imageDir, job, draft, capabilities, idBase, signal });
  }

  async #makeDisk(description: Description, signal: AbortSignal) {
    const { digest, sizeBytes, entryCount } = description;
    const paths = entryOf(this.#imageDir, digest);
    await using _lock: FileLock = await lockFile(
      join(this.#directory("locks"), `disk-${digest.slice(7)}`),
      signal,
    );
    const meanwhile = await readJson(paths.diskDescription, diskDescriptionSchema);
    if (meanwhile) return meanwhile;
    await this.containerTree(digest, signal); // never make a disk of a damaged tree
    await using job = await this.#job(signal);
    const jail = join(job.path, "jail");
    await mkdir(jail);
    const made = await makeBaseDisk({
      tree: paths.tree,
      sizeBytes,
      entryCount,
      digest,
      idBase: this.#idBase,
      job: { path: job.path, jail },
      signal,
    });
    const disk = { version: 1 as const, sha256: await hashOfFile(made.path, signal), sizeMib: made.sizeMib };
    await chmod(made.path, 0o444);
    await settle(made.path, signal);
    await rename(made.path, paths.disk);
    await writeJson(paths.diskDescription, disk);
    return disk;
  }

  async #require(digest: string): Promise<Description> {
    const description = await describeEntry(this.#imageDir, digest);
    if (description) return description;
    throw new StrataError(
      "NotFound",
      `the image ${digest.slice(0, 19)} is not on this host; make it again here`,
    );
  }

  /** A failed or aborted verification is forgotten, so that the next call tries again. */
  #verifyOnce(key: string, verify: () => Promise<void>): Promise<void> {
    const known = this.#verified.get(key);
    if (known) return known;
    const started = verify();
    this.#verified.set(key, started);
    started.catch(() => this.#verified.delete(key));
    return started;
  }

  async #job(signal: AbortSignal): Promise<JobDirectory> {
    return openJob(this.#directory("tmp"), signal);
  }
}
