/**
 * Root disks in `DIR/UID/`:
 *
 * - `disk.json`: for whom it was made. Written first, so that a half-made disk is never taken for another one. When a root
 *   is made anew, its file is made beside the old one first (NAME.anew), then named here, then put in the old one's place.
 * - container: `volume.img` (sparse, ext4 with a journal) mounted at `volume/`, in it `upper/` and `work/` over the
 *   image's tree, together mounted at `rootfs/`. The file system's size is the guest's limit, whatever holds the file.
 * - VM: `disk.qcow2`, an overlay over the image's base disk. The guest grows its file system at boot.
 *
 * Files appear under their name when complete (made as NAME.new and renamed), and mounts are looked up in the kernel's
 * own list, so each step can be repeated after a crash at any point. Mounts outlive the daemon, as guests do.
 */
import { chmod, chown, mkdir, readdir, rename, rm, stat, statfs, truncate } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { type Clock, systemClock } from "../../core/clock.ts";
import { assert, StrataError } from "../../core/errors.ts";
import { formatMib } from "../../core/units.ts";
import type { GuestRoot } from "../../drivers/driver.ts";
import { readJson, writeJson } from "../images/entry-files.ts";
import type { ImageStore, VmDisk } from "../images/image-store.ts";
import { explainNoSpace } from "../images/space-error.ts";
import { run } from "../run.ts";
import { copyFile } from "./copy-file.ts";
import { complete, DataDisks, exists, growUnmounted, type Stood } from "./data-disks.ts";
import { dropDataFile, findDataFile, type LostPools, type PoolPlace } from "./data-files.ts";
import {
  copyTogether,
  type DiskPart,
  dropParts,
  findMemory,
  partDirectories,
  partDirectory,
  restoreTogether,
} from "./disk-parts.ts";
import type { DataDiskRequest, Disks, IdRange, RootDiskRequest } from "./disks.ts";
import { type Freezer, systemFreezer } from "./freezing.ts";
import { mountFile, mountOverlay, mountPoints, unmount } from "./mounts.ts";
import { type CopyRequest, finishCopies, type PlannedCopy, planCopies } from "./planned-copies.ts";
import { recoverWriters } from "./recover-writers.ts";
import { makeFileSystem, makeOverlay } from "./root-files.ts";
import { absentAs, emptyMachineId, ensureLayer } from "./root-layer.ts";
import { type RootPart, readRoot, readRootDisk, requireOverlay } from "./root-part.ts";
import { boundUnwritten } from "./unwritten.ts";
import { roomOf, type VolumeRoom, WriteHolds } from "./write-holds.ts";

export interface DisksOptions {
  /** Made where it is missing. */
  directory: string;
  images: Pick<ImageStore, "containerTree" | "vmDisk">;
  clock?: Clock;
}

const fileNames = { vm: "disk.qcow2", container: "volume.img" } as const;
/** Ends the name of a file that is to take the other's place. */
const anew = ".anew";
const serialConsole: Record<string, string> = { x64: "ttyS0", arm64: "ttyAMA0" };

const requestSchema = z.object({
  version: z.literal(1),
  type: z.enum(["vm", "container"]),
  sizeMib: z.int(),
  imageDigest: z.string(),
  generation: z.int().min(0).default(0),
  /** The file made for it is complete and may still have to take the old one's place. */
  replacing: z.boolean().optional(),
});
type Described = z.infer<typeof requestSchema>;

export function createDisks(options: DisksOptions): Disks {
  return new LocalDisks(options);
}

class LocalDisks implements Disks {
  readonly #directory: string;
  readonly #images: DisksOptions["images"];
  readonly #clock: Clock;
  readonly #data: DataDisks;
  /** One change at a time to each disk. */
  readonly #busy = new Map<string, Promise<unknown>>();
  readonly #freezer: Freezer;
  /** Volumes whose writers wait for space. */
  readonly #holds: WriteHolds;

  constructor({ directory, images, clock = systemClock }: DisksOptions) {
    this.#directory = directory;
    this.#images = images;
    this.#clock = clock;
    this.#freezer = systemFreezer(clock);
    this.#data = new DataDisks(clock, this.#freezer);
    this.#holds = new WriteHolds((uid) => this.#pathOf(uid), this.#freezer);
  }

  ensureRoot(request: RootDiskRequest, signal: AbortSignal): Promise<GuestRoot> {
    return this.#exclusively(request.uid, async () => {
      try {
        await this.#ensureDescribed(request, signal);
        return request.type === "vm"
          ? await this.#ensureDisk(request, signal)
          : await this.#ensureTree(request, signal);
      } catch (error) {
        signal.throwIfAborted();
        throw explainNoSpace(error, "make a root disk", this.#directory);
      }
    });
  }

  lendData(request: DataDiskRequest, signal: AbortSignal): Promise<string> {
    return this.#onData("make a volume", request.uid, signal, (directory) =>
      this.#data.lend(directory, request, signal),
    );
  }

  mountData(request: DataDiskRequest, ids: IdRange, signal: AbortSignal): Promise<string> {
    return this.#onData("make a volume", request.uid, signal, (directory) =>
      this.#holds.whileThawed([request.uid], () => this.#data.mount(directory, request, ids, signal)),
    );
  }

  copyData(from: string | DiskPart, to: string, signal: AbortSignal, pool?: PoolPlace): Promise<Stood> {
    const uid = typeof from === "string" ? from : from.snapshot;
    const source = typeof from === "string" ? this.#pathOf(from) : this.#partOf(from);
    const still = (copy: () => Promise<void>) =>
      this.#exclusively(uid, async () => {
        if (!this.#holds.has(uid)) return this.#data.frozen(source, signal, copy);
        await copy();
        return { frozen: true, stillMs: 0 };
      });
    return this.#onData("copy a volume", to, signal, (directory) => {
      const writable = !this.#holds.has(uid);
      return this.#data.copy(source, { to: directory, pool }, { writable, still }, signal);
    });
  }

  dataFile(uid: string | DiskPart): Promise<string> {
    return findDataFile(typeof uid === "string" ? this.#pathOf(uid) : this.#partOf(uid));
  }

  async fillData(
    request: DataDiskRequest,
    fill: (path: string) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    await this.#onData("restore a volume", request.uid, signal, (directory) =>
      this.#data.fill(directory, request, fill, signal),
    );
  }

  copyTogether(disks: readonly string[], to: string, signal: AbortSignal): Promise<Stood> {
    return this.#onData("copy disks", to, signal, async () => {
      for (const disk of disks) await this.#exclusively(disk, () => this.#settle(disk, signal));
      const stillness = {
        clock: this.#clock,
        freezer: this.#freezer,
        isWritable: (disk: string) => !this.#holds.has(disk),
        alone: (use: () => Promise<void>) => this.#onAll(disks, () => this.#holds.whileThawed(disks, use)),
      };
      return copyTogether(this.#directory, disks, to, stillness, signal);
    });
  }

  planCopies(request: CopyRequest, to: string, signal: AbortSignal): Promise<PlannedCopy[]> {
    const disks = request.volume === undefined ? request.disks : [request.volume];
    return this.#onData("copy disks", to, signal, async () => {
      for (const disk of disks) await this.#exclusively(disk, () => this.#settle(disk, signal));
      return planCopies(this.#directory, request, to);
    });
  }

  memoryFile(snapshot: string): Promise<string> {
    return findMemory(this.#pathOf(snapshot));
  }

  async copyPlanned(copies: readonly { from: string; to: string }[], signal: AbortSignal): Promise<void> {
    for (const { from, to } of copies) await copyFile(from, to, signal);
  }

  finishCopies(request: CopyRequest, to: string, signal: AbortSignal): Promise<void> {
    return this.#onData("copy disks", to, signal, () => finishCopies(this.#directory, request, to));
  }

  restoreTogether(from: string, disks: readonly string[], signal: AbortSignal): Promise<void> {
    return this.#onAll(disks, async () => {
      try {
        for (const disk of disks) {
          await this.#settle(disk, signal);
          await this.#release(disk, signal);
        }
        const moves = await Promise.all(
          disks.map(async (disk) => {
            const part = this.#partOf({ snapshot: from, disk });
            return { from: (await exists(part)) ? part : this.#pathOf(from), to: this.#pathOf(disk) };
          }),
        );
        await restoreTogether(moves, signal);
      } catch (error) {
        signal.throwIfAborted();
        throw explainNoSpace(error, "put disks back to a snapshot", this.#directory);
      }
    });
  }

  async readRoot<Result>(
    part: DiskPart,
    imageDigest: string,
    use: (archive: AsyncIterable<Uint8Array>) => Promise<Result>,
    signal: AbortSignal,
  ): Promise<Result> {
    return readRoot(this.#rootPart(part, imageDigest), use, { clock: this.#clock, signal });
  }

  async readRootDisk<Result>(
    part: DiskPart,
    imageDigest: string,
    use: (disk: AsyncIterable<Uint8Array>) => Promise<Result>,
    signal: AbortSignal,
  ): Promise<Result> {
    return readRootDisk(this.#rootPart(part, imageDigest), use, signal);
  }

  #rootPart(part: DiskPart, imageDigest: string): RootPart {
    return { directory: this.#partOf(part), images: this.#images, imageDigest };
  }

  recover(): Promise<void> {
    return recoverWriters({
      ...{ directory: this.#directory, clock: this.#clock, freezer: this.#freezer, holds: this.#holds },
      disks: this,
      locked: (uid, change) => this.#exclusively(uid, change),
    });
  }

  releaseData(uid: string, signal: AbortSignal): Promise<void> {
    return this.#exclusively(uid, async () => {
      await this.#holds.thaw(uid);
      await this.#data.release(this.#pathOf(uid), signal);
    });
  }

  room(uid: string): Promise<VolumeRoom> {
    return roomOf(this.#pathOf(uid));
  }

  hold(uid: string, signal: AbortSignal): Promise<void> {
    return this.#exclusively(uid, () => this.#holds.hold(uid, signal));
  }

  letGo(uid: string): Promise<void> {
    return this.#exclusively(uid, () => this.#holds.thaw(uid));
  }

  async held(): Promise<readonly string[]> {
    return this.#holds.list();
  }

  remove(uid: string, signal: AbortSignal, lost?: LostPools): Promise<void> {
    return this.#exclusively(uid, async () => {
      const directory = this.#pathOf(uid);
      await this.#release(uid, signal);
      await dropDataFile(directory, lost);
      for (const part of await partDirectories(directory)) {
        for (const name of ["merged", "volume"]) await unmount(join(part, name), this.#clock, signal);
      }
      await dropParts(directory, lost);
      await rm(directory, { recursive: true, force: true });
    });
  }

  async list(): Promise<string[]> {
    const entries = await readdir(this.#directory, { withFileTypes: true }).catch(absentAs([]));
    return entries.filter((entry) => entry.isDirectory()).map((entry) => entry.name);
  }

  async usedBytes(uid: string): Promise<number> {
    const directory = this.#pathOf(uid);
    const places = [directory, ...(await partDirectories(directory))];
    let bytes = 0;
    for (const place of places) {
      for (const entry of await readdir(place, { withFileTypes: true }).catch(absentAs([]))) {
        if (!entry.isFile() && !entry.isSymbolicLink()) continue; // the rest are mount points
        bytes += ((await stat(join(place, entry.name)).catch(absentAs(undefined)))?.blocks ?? 0) * 512;
      }
    }
    return bytes;
  }

  async capacity(): Promise<{ totalMib: number; freeMib: number }> {
    await this.#ensureDirectory();
    const { bsize, blocks, bavail } = await statfs(this.#directory);
    const toMib = (count: number) => Math.floor((count * bsize) / 1024 ** 2);
    return { totalMib: toMib(blocks), freeMib: toMib(bavail) };
  }

  async #release(uid: string, signal: AbortSignal): Promise<void> {
    const directory = this.#pathOf(uid);
    await this.#holds.thaw(uid);
    await this.#data.release(directory, signal);
    for (const name of ["rootfs", "volume"]) await unmount(join(directory, name), this.#clock, signal);
  }

  /** With the lock of each of them; in one order, so that two never wait for each other. */
  #onAll<Result>(disks: readonly string[], change: () => Promise<Result>): Promise<Result> {
    return [...disks]
      .sort()
      .reduce<() => Promise<Result>>((inner, uid) => () => this.#exclusively(uid, inner), change)();
  }

  #onData<Result>(
    action: string,
    uid: string,
    signal: AbortSignal,
    change: (directory: string) => Promise<Result>,
  ): Promise<Result> {
    return this.#exclusively(uid, async () => {
      try {
        await this.#ensureDirectory();
        return await change(this.#pathOf(uid));
      } catch (error) {
        signal.throwIfAborted();
        throw explainNoSpace(error, action, this.#directory);
      }
    });
  }

  async #ensureDescribed(request: RootDiskRequest, signal: AbortSignal): Promise<void> {
    const { uid, type, sizeMib, imageDigest, generation = 0 } = request;
    const directory = this.#pathOf(uid);
    await this.#ensureDirectory();
    await mkdir(directory, { recursive: true, mode: 0o711 });
    const wanted: Described = { version: 1, type, sizeMib, imageDigest, generation };
    const known = await this.#settle(uid, signal);
    if (!known) return writeJson(this.#descriptionOf(uid), wanted);
    if (known.type === type && known.sizeMib === sizeMib) {
      if (known.generation < generation) return this.#replace(request, wanted, signal);
      if (known.generation === generation && known.imageDigest === imageDigest) return;
    }
    throw new StrataError(
      "Conflict",
      `the root disk ${uid} was made for a ${known.type} with ${formatMib(known.sizeMib)} from another request; remove it first`,
      { detail: `has ${JSON.stringify(known)}, wanted ${type} ${sizeMib} ${imageDigest} ${generation}` },
    );
  }

  /** Its description, once what was interrupted in the middle of `#replace` is done. */
  async #settle(uid: string, signal: AbortSignal): Promise<Described | undefined> {
    const known = await readJson(this.#descriptionOf(uid), requestSchema);
    if (known?.replacing) await this.#finishReplacement(uid, known, signal);
    return known;
  }

  /**
   * A new root in the place of the old one. The description decides: until it names the new one, the old one is
   * untouched; from then on the new file, which is complete, takes the old one's name, now or with the next call.
   */
  async #replace(request: RootDiskRequest, wanted: Described, signal: AbortSignal): Promise<void> {
    const { uid, type, sizeMib } = request;
    const path = join(this.#pathOf(uid), `${fileNames[type]}${anew}`);
    await rm(path, { force: true });
    if (type === "vm") {
      const base = await this.#baseOf(request, signal);
      await makeOverlay(base, `${path}.new`, sizeMib, signal);
    } else {
      await this.#images.containerTree(request.imageDigest, signal);
      await makeFileSystem(`${path}.new`, sizeMib, signal);
    }
    await complete(`${path}.new`, path);
    await this.#release(uid, signal);
    const replacing = { ...wanted, replacing: true };
    await writeJson(this.#descriptionOf(uid), replacing);
    await this.#finishReplacement(uid, replacing, signal);
  }

  async #finishReplacement(uid: string, known: Described, signal: AbortSignal): Promise<void> {
    await this.#release(uid, signal);
    const path = join(this.#pathOf(uid), fileNames[known.type]);
    if (await exists(`${path}${anew}`)) await rename(`${path}${anew}`, path);
    const { replacing: _done, ...described } = known;
    await writeJson(this.#descriptionOf(uid), described);
  }

  /** @throws Invalid when it does not fit. */
  async #baseOf({ sizeMib, imageDigest }: RootDiskRequest, signal: AbortSignal): Promise<VmDisk> {
    const base = await this.#images.vmDisk(imageDigest, signal);
    if (base.sizeMib <= sizeMib) return base;
    throw new StrataError(
      "Invalid",
      `the image needs a root disk of at least ${formatMib(base.sizeMib)}; ${formatMib(sizeMib)} were asked for`,
    );
  }

  async #ensureDisk(request: RootDiskRequest, signal: AbortSignal): Promise<GuestRoot> {
    const { uid, sizeMib, generation = 0 } = request;
    const base = await this.#baseOf(request, signal);
    const path = join(this.#pathOf(uid), "disk.qcow2");
    if (!(await exists(path))) {
      const next = `${path}.new`;
      if (request.source) {
        await rm(next, { force: true });
        const part = join(this.#partOf(request.source), "disk.qcow2");
        await requireOverlay(part, base.path);
        await copyFile(part, next, signal);
        await run("qemu-img", ["resize", "-q", "-f", "qcow2", next, `${sizeMib}M`], { signal });
      } else await makeOverlay(base, next, sizeMib, signal);
      await complete(next, path);
    }
    const { boot, firmware } = base;
    const disk = { type: "disk", path, format: "qcow2", ...(generation > 0 && { generation }) } as const;
    if (!boot) return { ...disk, ...(firmware && { firmware }) };
    const { root, ...files } = boot;
    const console = serialConsole[process.arch] ?? "ttyS0";
    return {
      ...disk,
      boot: { ...files, commandLine: `root=${root} rw console=${console} loglevel=4` },
    };
  }

  async #ensureTree(request: RootDiskRequest, signal: AbortSignal): Promise<GuestRoot> {
    const { uid, imageDigest, generation = 0 } = request;
    const { path: lower, idBase, idCount } = await this.#images.containerTree(imageDigest, signal);
    const directory = this.#pathOf(uid);
    const volume = join(directory, "volume");
    const rootfs = join(directory, "rootfs");
    const mounted = await mountPoints();
    if (!mounted.has(rootfs)) {
      // Set-user-id programs in there belong to guests' ids: only these ids may pass.
      await chown(directory, 0, idBase);
      await chmod(directory, 0o710);
      await mkdir(volume, { recursive: true, mode: 0o711 });
      await mkdir(rootfs, { recursive: true, mode: 0o711 });
      if (!mounted.has(volume)) {
        const image = await this.#ensureFileSystem(request, signal);
        await mountFile(image, volume, signal);
        await boundUnwritten(volume, image);
      }
      const upper = await ensureLayer(join(volume, "upper"), lower, idBase);
      const work = await ensureLayer(join(volume, "work"), lower, idBase);
      await mountOverlay({ lower, upper, work, target: rootfs }, signal);
    }
    const layers = { upper: join(volume, "upper"), lower };
    const tree = { type: "tree", path: rootfs, idBase, idCount, layers } as const;
    return generation > 0 ? { ...tree, generation } : tree;
  }

  async #ensureFileSystem({ uid, sizeMib, source }: RootDiskRequest, signal: AbortSignal): Promise<string> {
    const directory = this.#pathOf(uid);
    const path = join(directory, "volume.img");
    if (await exists(path)) return path;
    const next = `${path}.new`;
    await unmount(join(directory, "plain"), this.#clock, signal);
    await rm(next, { force: true });
    if (source) {
      await copyFile(join(this.#partOf(source), "volume.img"), next, signal);
      await truncate(next, sizeMib * 1024 ** 2);
      await growUnmounted(next, signal);
      await this.#forgetIdentity(next, join(directory, "plain"), signal);
    } else await makeFileSystem(next, sizeMib, signal);
    await complete(next, path);
    return path;
  }

  /** Two machines must not have one machine-id: without one, the guest's init makes its own at its first start. */
  async #forgetIdentity(image: string, plain: string, signal: AbortSignal): Promise<void> {
    await mkdir(plain, { recursive: true, mode: 0o700 });
    await mountFile(image, plain, signal);
    await emptyMachineId(join(plain, "upper"));
    await unmount(plain, this.#clock, signal);
  }

  #partOf(part: DiskPart): string {
    for (const uid of [part.snapshot, part.disk]) this.#pathOf(uid);
    return partDirectory(this.#directory, part);
  }

  #descriptionOf(uid: string): string {
    return join(this.#pathOf(uid), "disk.json");
  }

  #pathOf(uid: string): string {
    assert(/^[a-z0-9][a-z0-9-]{0,63}$/.test(uid), "a disk's uid is a plain name");
    return join(this.#directory, uid);
  }

  async #ensureDirectory(): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o711 });
  }

  #exclusively<T>(uid: string, change: () => Promise<T>): Promise<T> {
    const before = this.#busy.get(uid) ?? Promise.resolve();
    const mine = before.then(change, change);
    const settled = mine.then(
      () => {},
      () => {},
    );
    this.#busy.set(uid, settled);
    void settled.then(() => {
      if (this.#busy.get(uid) === settled) this.#busy.delete(uid);
    });
    return mine;
  }
}
