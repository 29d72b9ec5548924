/**
 * The image store of a host: see image-store.ts for the contract and the layout on disk. Whatever the source, it
 * becomes a root archive, and every archive takes the same way: checked (root-archive), unpacked in a jail
 * (unpack-archive), read back and hashed (manifest), looked into (tree-inspection), written to disk for good and only
 * then renamed to its digest.
 */
import { hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import * as z from "zod";
import { type Clock, systemClock, toTimestamp } from "../../core/clock.ts";
import { assert, hasCode, StrataError } from "../../core/errors.ts";
import type { IpRange } from "../../core/ip-range.ts";
import { canonicalJson, type Json } from "../../core/json.ts";
import {
  digestSchema,
  type ExportFormat,
  type ImageOrigin,
  type ImageSource,
  imageOriginSchema,
} from "../../kinds/image.ts";
import { spool } from "./artefact.ts";
import { makeBaseDisk, rootUuid } from "./base-disk.ts";
import { BuildLogs } from "./build-log.ts";
import type { Checksum } from "./checksum-list.ts";
import { idCount } from "./contained-process.ts";
import { buildDebianTree, builtFraction } from "./debian-build.ts";
import { debianPackages, recipeVersion } from "./debian-recipe.ts";
import { defaultMaxDiskBytes } from "./disk-import.ts";
import { writeContext } from "./dockerfile/build-context.ts";
import { buildImage, findBases } from "./dockerfile/build-image.ts";
import { completionVersion } from "./dockerfile/completion.ts";
import type { ImageBuilder } from "./dockerfile/image-builder.ts";
import { plain } from "./download.ts";
import { type Description, diskDescriptionSchema, readJson, writeJson } from "./entry-files.ts";
import { writeDisk } from "./export/write-disk.ts";
import { exportLayers, exportTemplate } from "./export/write-layers.ts";
import { type FileLock, lockFile, tryLockFile } from "./file-lock.ts";
import { describeEntry, entryOf, listEntries, removeEntry, settle, toStoredImage } from "./image-entries.ts";
import { type FetchedItem, ImageServers } from "./image-servers.ts";
import type { ImageStore, MakeImageOptions, StoredImage, VmDisk } from "./image-store.ts";
import {
  type ArtefactForm,
  type ImportContext,
  importArchive,
  importArtefact,
  importRoot,
  jailOf,
  type NoteOrigin,
} from "./import-artefact.ts";
import { inventoryOf } from "./inventory/tree-inventory.ts";
import { type JobDirectory, openJob, sweepJobs } from "./job-directory.ts";
import { readManifest } from "./manifest.ts";
import type { Mirrors } from "./resolve-catalogue.ts";
import { type ArchiveLimits, defaultLimits } from "./root-archive.ts";
import { explainNoSpace } from "./space-error.ts";
import { withTreeArchive } from "./tree-archive.ts";
import { damaged, hashOfFile, verifyFile, verifyTree } from "./verification.ts";

export interface ImageStoreOptions {
  /** Made where it is missing. */
  imageDir: string;
  /** First host id of the guests' range. */
  idBase: number;
  limits?: Partial<ArchiveLimits>;
  /** Of imported disks, as guests would see them. */
  maxDiskBytes?: number;
  /** See ImageServers. Default: none. */
  mirrors?: Mirrors;
  networks?: readonly IpRange[];
  /** Of Dockerfiles: the first one that can build here does. Default: none. */
  builders?: readonly ImageBuilder[];
  clock?: Clock;
}

const memorySchema = z.object({
  digest: digestSchema,
  origin: imageOriginSchema.optional().catch(undefined),
});

/** Increase it when the same artefact would give another tree. */
const importVersion = 2;

type DockerfileSource = Extract<ImageSource, { type: "dockerfile" }>;

/** What a build depends on; equal recipes give equal trees. */
type Recipe = Record<string, unknown>;

export function createImageStore(options: ImageStoreOptions): ImageStore {
  return new LocalImageStore(options);
}

class LocalImageStore implements ImageStore {
  readonly #imageDir: string;
  readonly #idBase: number;
  readonly #context: ImportContext;
  readonly #servers: ImageServers;
  readonly #clock: Clock;
  readonly #builders: readonly ImageBuilder[];
  readonly #directory: (name: "tmp" | "locks" | "sources") => string;
  readonly #logs: BuildLogs;
  /** What this process has verified, or is verifying: `tree DIGEST`, `disk DIGEST`. */
  readonly #verified = new Map<string, Promise<void>>();

  constructor(options: ImageStoreOptions) {
    const { imageDir, idBase, limits, maxDiskBytes, clock = systemClock } = options;
    this.#servers = new ImageServers({ ...options, clock });
    this.#clock = clock;
    this.#builders = options.builders ?? [];
    this.#imageDir = imageDir;
    this.#logs = new BuildLogs(join(imageDir, "build-logs"));
    this.#idBase = idBase;
    this.#context = {
      ...{ imageDir, idBase },
      limits: { ...defaultLimits, ...limits },
      maxDiskBytes: maxDiskBytes ?? defaultMaxDiskBytes,
    };
    this.#directory = (name) => join(imageDir, name);
  }

  async recover(): Promise<void> {
    await mkdir(this.#imageDir, { recursive: true, mode: 0o711 });
    await mkdir(this.#directory("tmp"), { recursive: true, mode: 0o711 });
    for (const name of ["locks", "sources"] as const) {
      await mkdir(this.#directory(name), { recursive: true, mode: 0o700 });
    }
    await this.#claim();
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
          return await this.#once(debianRecipe(source), options, (job) =>
            importArchive(this.#context, job, options, {
              archive: buildDebianTree(source, { ...options, directory: join(job.path, "build") }),
              packedBytes: () => Number.POSITIVE_INFINITY,
              fraction: () => builtFraction,
            }),
          );
        case "upload": {
          await using job = await this.#job(options.signal);
          const upload = await options.openUpload(source.upload);
          const expected = source.sha256 === undefined ? undefined : sha256Sum(source.sha256);
          const artefact = await spool(upload, join(job.path, "artefact"), options.signal, expected);
          return await this.#once(
            artefactRecipe({ ...source, checksum: sha256Sum(artefact.sha256) }),
            options,
            (work, note) => importArtefact(this.#context, work, artefact, { ...source, note }, options),
          );
        }
        case "dockerfile":
          return await this.#build(source, options);
        case "instance":
        case "backup":
          return await this.#takeRoot(options);
        case "url":
          return await this.#download(
            { ...source, checksum: sha256Sum(source.sha256), title: plain(source.url) },
            options,
          );
        case "catalogue": {
          const found = await this.#servers.resolve(source.name, options);
          return found.type === "file"
            ? await this.#download(found, options)
            : await this.#pull(found, options);
        }
        case "simplestreams":
          return await this.#pull(source, options);
      }
    } catch (error) {
      options.signal.throwIfAborted();
      throw explainNoSpace(error, "make an image", this.#imageDir);
    }
  }

  buildLog(logName: string) {
    return this.#logs.read(logName);
  }

  removeBuildLog(logName: string) {
    return this.#logs.remove(logName);
  }

  async containerTree(digest: string, signal: AbortSignal) {
    const { types, limitation, treeDigest = digest } = await this.#require(digest);
    if (!types.includes("container")) throw new StrataError("Unsupported", `of this image, ${limitation}`);
    const paths = entryOf(this.#imageDir, digest);
    await this.#verifyOnce(`tree ${digest}`, signal, (own) =>
      verifyTree(paths, treeDigest, this.#idBase, own),
    );
    return { path: paths.tree, idBase: this.#idBase, idCount };
  }

  async vmDisk(digest: string, signal: AbortSignal): Promise<VmDisk> {
    const description = await this.#require(digest);
    const { boot, firmware } = description;
    if (!boot && !firmware)
      throw new StrataError("Unsupported", `this image cannot start as a VM: ${description.limitation}`);
    const paths = entryOf(this.#imageDir, digest);
    let disk = await readJson(paths.diskDescription, diskDescriptionSchema);
    if (!disk) {
      if (firmware) throw damaged(digest, "its disk");
      try {
        disk = await this.#makeDisk(description, signal);
      } catch (error) {
        throw explainNoSpace(error, "make a VM disk of the image", this.#imageDir);
      }
    }
    const { sha256, sizeMib } = disk;
    await this.#verifyOnce(`disk ${digest}`, signal, async (own) => {
      await verifyFile(paths, paths.disk, sha256, digest, own);
      if (boot) await verifyFile(paths, paths.kernel, boot.kernel, digest, own);
      if (boot?.initrd) await verifyFile(paths, paths.initrd, boot.initrd, digest, own);
    });
    const base = { path: paths.disk, format: "qcow2" as const, sizeMib };
    if (!boot) return { ...base, ...(firmware && { firmware }) };
    return {
      ...base,
      boot: {
        kernel: paths.kernel,
        ...(boot.initrd && { initrd: paths.initrd }),
        root: `UUID=${rootUuid(digest)}`,
      },
    };
  }

  async entries(digest: string) {
    const { entryCount, treeDigest = digest, limitation } = await this.#require(digest);
    if (entryCount === 0) throw new StrataError("Unsupported", `of this image, ${limitation}`);
    return readManifest(entryOf(this.#imageDir, digest).manifest, treeDigest);
  }

  async export(
    digest: string,
    format: ExportFormat,
    use: (bytes: AsyncIterable<Uint8Array>) => Promise<void>,
    { signal, onProgress }: Pick<MakeImageOptions, "signal" | "onProgress">,
  ): Promise<void> {
    if (format === "tar") return withTreeArchive(await this.containerTree(digest, signal), use);
    if (format === "spdx") {
      const { os } = await this.#require(digest);
      const { path } = await this.containerTree(digest, signal);
      return use(Readable.from([Buffer.from(await inventoryOf(path, digest, os))]));
    }
    await using job = await this.#job(signal);
    try {
      if (format === "oci" || format === "docker" || format === "lxc") {
        const { os } = await this.#require(digest);
        const tree = await this.containerTree(digest, signal);
        const exportTree = format === "lxc" ? exportTemplate : exportLayers;
        return await exportTree({ tree, os, directory: job.path, signal }, use);
      }
      const disk = await this.vmDisk(digest, signal);
      const { tree } = entryOf(this.#imageDir, digest);
      const file = await writeDisk({ digest, disk, tree, format, directory: job.path, signal, onProgress });
      await use(createReadStream(file, { highWaterMark: 1024 ** 2 }));
    } catch (error) {
      signal.throwIfAborted();
      throw explainNoSpace(error, "export an image", this.#imageDir);
    }
  }

  async remove(digest: string): Promise<void> {
    await using job = await this.#job(new AbortController().signal);
    await removeEntry(this.#imageDir, digest, job);
    this.#verified.delete(`tree ${digest}`);
    this.#verified.delete(`disk ${digest}`);
  }

  /** Owners in all trees are shifted by one number: daemons with different ones cannot share a directory. */
  async #claim(): Promise<void> {
    const path = join(this.#imageDir, "ids.json");
    const claim = await readJson(path, z.object({ idBase: z.int() }));
    if (!claim) return writeJson(path, { idBase: this.#idBase });
    if (claim.idBase === this.#idBase) return;
    throw new StrataError(
      "Conflict",
      `the image directory ${this.#imageDir} is for guests' ids from ${claim.idBase}, this daemon's start at ${this.#idBase}; give it a directory of its own`,
    );
  }

  /** Makes what `recipe` says, unless it was made before; one builder at a time on this host, the others wait for it. */
  async #once(
    recipe: Recipe,
    options: MakeImageOptions,
    build: (job: JobDirectory, note: NoteOrigin) => Promise<Description>,
    { anew = false } = {},
  ): Promise<StoredImage> {
    const { signal, onProgress } = options;
    const before = anew ? undefined : await this.#remembered(recipe);
    if (before) return before;
    const lockPath = join(this.#directory("locks"), keyOf(recipe));
    const free = await tryLockFile(lockPath);
    if (!free) onProgress({ step: "waiting for another build of the same image" });
    await using _lock: FileLock = free ?? (await lockFile(lockPath, signal));
    const meanwhile = anew ? undefined : await this.#remembered(recipe);
    if (meanwhile) return meanwhile;
    onProgress({ step: "starting" });
    await using job = await this.#job(signal);
    await mkdir(jailOf(job));
    const origin: ImageOrigin = { madeAt: toTimestamp(this.#clock.now()), steps: [] };
    const description = await build(job, (part) => Object.assign(origin, part));
    await writeJson(this.#memory(recipe), { digest: description.digest, recipe, origin });
    return { ...toStoredImage(description), origin };
  }

  /** One build at a time on this host, so that builds never crowd out guests. */
  async #build(source: DockerfileSource, options: MakeImageOptions): Promise<StoredImage> {
    const { signal, onProgress } = options;
    await using job = await this.#job(signal);
    const upload = await options.openUpload(source.upload);
    const context = await writeContext(upload, source.file, join(job.path, "context.tar"), signal);
    const bases = await findBases({ ...context, ...source }, options.findImage);
    const { file, target, args } = source;
    const { project } = options;
    const recipe = {
      type: "dockerfile",
      // A step may have found what only this project could reach, or what was there only then.
      project,
      context: context.sha256,
      file,
      args,
      bases: Object.fromEntries(bases),
    };
    const known = { ...recipe, completionVersion, ...(target && { target }) };
    const build = async (work: JobDirectory, note: NoteOrigin) => {
      const lock = join(this.#directory("locks"), "dockerfile-builds");
      const free = await tryLockFile(lock);
      if (!free) onProgress({ step: "waiting for another build on this host" });
      await using _turn: FileLock = free ?? (await lockFile(lock, signal));
      const trees = new Map<string, { path: string; idBase: number }>();
      for (const [name, digest] of bases) trees.set(name, await this.containerTree(digest, signal));
      const builders = this.#builders;
      return buildImage({
        context: this.#context,
        job: work,
        source,
        build: context,
        bases,
        trees,
        builders,
        logs: this.#logs,
        scope: hash("sha256", project).slice(0, 32),
        options,
        note,
      });
    };
    return await this.#once(known, options, build, { anew: !source.cache });
  }

  /** Never remembered: the same instance has something else next time. */
  async #takeRoot(options: MakeImageOptions): Promise<StoredImage> {
    const { root } = options;
    assert(root !== undefined, "an image of an instance or a backup is made with its root");
    await using job = await this.#job(options.signal);
    await mkdir(jailOf(job));
    return toStoredImage(await importRoot(this.#context, job, root, options));
  }

  /** What was fetched before is not fetched again. */
  async #download(item: ArtefactForm & FetchedItem, options: MakeImageOptions): Promise<StoredImage> {
    return this.#once(artefactRecipe(item), options, async (job, note) => {
      const artefact = await this.#servers.fetch(item, join(job.path, "artefact"), options);
      return importArtefact(this.#context, job, artefact, { ...item, note }, options);
    });
  }

  async #pull(
    source: { server: string; alias: string; mirrored?: boolean },
    options: MakeImageOptions,
  ): Promise<StoredImage> {
    const items = await this.#servers.streamItems(source, options);
    for (const [index, item] of items.entries()) {
      try {
        // Better a tree for both types of guest than a disk for VMs alone, while there is something else to try.
        const boot = items.length === 1 ? undefined : "direct";
        return await this.#download({ ...item, checksum: sha256Sum(item.sha256), boot }, options);
      } catch (error) {
        // A disk that cannot be read here (another file system) may have a root archive beside it.
        if (!hasCode(error, "Unsupported") || index === items.length - 1) throw error;
      }
    }
    throw new StrataError("Internal", "a simplestreams image had no item");
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
    const jail = jailOf(job);
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

  #memory(recipe: Recipe): string {
    return join(this.#directory("sources"), `${keyOf(recipe)}.json`);
  }

  async #remembered(recipe: Recipe): Promise<StoredImage | undefined> {
    const known = await readJson(this.#memory(recipe), memorySchema);
    const stored = known && (await this.get(known.digest));
    return stored && known.origin ? { ...stored, origin: known.origin } : stored;
  }

  async #require(digest: string): Promise<Description> {
    const description = await describeEntry(this.#imageDir, digest);
    if (description) return description;
    throw new StrataError(
      "NotFound",
      `the image ${digest.slice(0, 19)} is not on this host; make it again here`,
    );
  }

  /** One verification for all who ask meanwhile; who asked first may give up without failing the others. */
  async #verifyOnce(
    key: string,
    signal: AbortSignal,
    verify: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    let running = this.#verified.get(key);
    if (!running) {
      running = verify(new AbortController().signal);
      this.#verified.set(key, running);
      running.catch(() => this.#verified.delete(key)); // so that the next call tries again
    }
    await unlessAborted(running, signal);
  }

  async #job(signal: AbortSignal): Promise<JobDirectory> {
    return openJob(this.#directory("tmp"), signal);
  }
}

function keyOf(recipe: Recipe): string {
  return hash("sha256", canonicalJson({ ...recipe, importVersion } as Json));
}

function debianRecipe({ type, suite, packages }: Extract<ImageSource, { type: "debian" }>): Recipe {
  return { type, suite, packages: debianPackages(packages), recipeVersion };
}

function artefactRecipe({ format, checksum, below, boot }: ArtefactForm & { checksum: Checksum }): Recipe {
  const sum = { [checksum.algorithm]: checksum.digits };
  return { type: "artefact", format, ...sum, ...(below && { below }), ...(boot && { boot }) };
}

const sha256Sum = (digits: string): Checksum => ({ algorithm: "sha256", digits });

function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  if (signal.aborted) reject(signal.reason);
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  return Promise.race([work, promise]).finally(() => signal.removeEventListener("abort", abort));
}
