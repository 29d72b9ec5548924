/**
 * Volumes' disks in `DIR/UID/`: `data.raw` (data-files.ts says where its bytes are), sparse, with a file system directly on it where one was asked for. A virtual
 * machine gets the file as a disk; a container gets the file system, mounted at `tree/` with the container's shifted ids.
 * The same bytes serve both, one after the other.
 *
 * Never both at once: what hands the file out first makes sure that no loop device of this host holds it any more, in
 * whatever mount namespace, and QEMU locks the file. A file system that was in a virtual machine's hands is checked in
 * full before this host's kernel reads it.
 *
 * Files appear under their name when complete (made as NAME.new and renamed), and mounts are looked up in the kernel's own
 * list, so each step can be repeated after a crash at any point.
 */
import { access, mkdir, open, rename, rm, stat, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import type { Clock } from "../../core/clock.ts";
import { assert, StrataError } from "../../core/errors.ts";
import { ownFile } from "../../core/own-files.ts";
import { formatMib } from "../../core/units.ts";
import { run } from "../run.ts";
import { copyAhead } from "./copy-ahead.ts";
import { copyFile, requireRoom } from "./copy-file.ts";
import { findDataFile, type PoolPlace, placeDataFile, placeOfData } from "./data-files.ts";
import type { DataDiskRequest, IdRange } from "./disks.ts";
import { type Freezer, whileFrozen } from "./freezing.ts";
import { loopOf } from "./loop-devices.ts";
import { mountPoints, unmount } from "./mounts.ts";
import { boundUnwritten } from "./unwritten.ts";
import { xfsFault } from "./xfs-check.ts";

/** Moves and shifts mounts; also used by drivers. */
export const volumeMountsScript = fileURLToPath(ownFile("src/host/disks/volume-mounts.pl"));

/** Making, checking and copying take as long as the volume is large. */
const longMs = 60 * 60_000;
/** For the kernel to let go of a loop device after the last unmount. */
const releaseMs = 5_000;
const releasePollMs = 20;

/** How writers were kept still: `frozen` where there was anything to freeze, and for how long. */
export interface Stood {
  frozen: boolean;
  stillMs: number;
}

/** All of it is called with the disk's lock held. */
export class DataDisks {
  readonly #clock: Clock;
  readonly #freezer: Freezer;

  constructor(clock: Clock, freezer: Freezer) {
    this.#clock = clock;
    this.#freezer = freezer;
  }

  /**
   * The file, made where it is missing and grown where it is smaller. Its file system grows with `mount`.
   * @throws Invalid when it is larger than asked for.
   */
  async ensure(directory: string, request: DataDiskRequest, signal: AbortSignal): Promise<string> {
    const { sizeMib, fileSystem, allocation } = request;
    const path = await placeDataFile(directory, request.pool);
    const found = await stat(path).catch(() => undefined);
    if (!found) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await orNothing(`${path}.new`, async () => {
        await makeSparse(`${path}.new`, sizeMib);
        if (allocation === "full") await allocate(`${path}.new`, sizeMib, signal);
        if (fileSystem !== undefined) await makeFileSystem(`${path}.new`, fileSystem, signal);
        await complete(`${path}.new`, path);
      });
      return path;
    }
    const bytes = sizeMib * 1024 ** 2;
    if (found.size > bytes) {
      const has = formatMib(Math.ceil(found.size / 1024 ** 2));
      throw new StrataError("Invalid", `the volume has ${has} and cannot shrink to ${formatMib(sizeMib)}`);
    }
    if (found.size < bytes) {
      if (allocation === "full") await allocate(path, sizeMib, signal);
      await using file = await open(path, "r+");
      await file.truncate(bytes);
      await file.sync();
    }
    return path;
  }

  /** The file for a virtual machine. @throws Conflict while this host's kernel has it mounted somewhere. */
  async lend(directory: string, request: DataDiskRequest, signal: AbortSignal): Promise<string> {
    const path = await this.ensure(directory, request, signal);
    await this.release(directory, signal);
    await writeFile(join(directory, "lent"), "");
    return path;
  }

  /** The file system's mount, with `ids`; it is as large as the file. Idempotent. */
  async mount(
    directory: string,
    request: DataDiskRequest,
    ids: IdRange,
    signal: AbortSignal,
  ): Promise<string> {
    const { fileSystem } = request;
    assert(fileSystem !== undefined, "only a file system can be mounted");
    const path = await this.ensure(directory, request, signal);
    const tree = join(directory, "tree");
    const plain = join(directory, "plain");
    if (!(await mountPoints()).has(tree)) {
      await unmount(plain, this.#clock, signal);
      await this.#untilFree(path, signal);
      await checkFileSystem(path, fileSystem, join(directory, "lent"), signal);
      if (fileSystem === "ext4") await growUnmounted(path, signal);
      await mkdir(plain, { recursive: true, mode: 0o700 });
      await mkdir(tree, { recursive: true, mode: 0o700 });
      // Copies of one file system may be mounted side by side.
      const own = fileSystem === "xfs" ? ",nouuid" : "";
      // What is freed goes back to the host, unless it is to stay the volume's.
      const discard = request.allocation === "full" ? "" : ",discard";
      await run("mount", ["-t", fileSystem, "-o", `loop,nodev,noatime${discard}${own}`, path, plain], {
        signal,
        timeoutMs: longMs,
      });
      const shift = [volumeMountsScript, "shift", plain, tree, String(ids.idBase), String(ids.idCount)];
      await run("perl", shift, { signal });
      if (request.allocation !== "full") await boundUnwritten(tree, path);
      await unmount(plain, this.#clock, signal);
      return tree;
    }
    await unmount(plain, this.#clock, signal);
    await growMounted(path, tree, fileSystem, signal);
    return tree;
  }

  /** Nothing on this host has it mounted afterwards. @throws Conflict while something uses it. */
  async release(directory: string, signal: AbortSignal): Promise<void> {
    // A mount that a killed predecessor had under way may come only now.
    const unmountAll = async () => {
      for (const name of ["plain", "tree"]) await unmount(join(directory, name), this.#clock, signal);
    };
    await unmountAll();
    // Its pool may be gone, and a loop device still be there.
    const path = await placeOfData(directory);
    if (path !== undefined) await this.#untilFree(path, signal, unmountAll);
  }

  /**
   * Keeps writers from the mounted file system while `use` runs, with all that they wrote on disk; a write that comes
   * meanwhile waits. Not `frozen` when it was not mounted, so that there was nothing to stop.
   */
  async frozen(directory: string, signal: AbortSignal, use: () => Promise<void>): Promise<Stood> {
    const tree = join(directory, "tree");
    const isMounted = (await mountPoints()).has(tree);
    const begun = this.#clock.monotonicMs();
    if (isMounted) await whileFrozen(this.#freezer, tree, signal, use);
    else await use();
    return { frozen: isMounted, stillMs: Math.round(this.#clock.monotonicMs() - begun) };
  }

  /**
   * A copy of its own in `to`; shares blocks where the host's file system can (btrfs, xfs). Existing is success. `still`
   * runs what it is given while nobody writes; most of what is written to is copied before that.
   */
  async copy(
    from: string,
    { to, pool }: { to: string; pool: PoolPlace | undefined },
    { writable, still }: { writable: boolean; still(use: () => Promise<void>): Promise<Stood> },
    signal: AbortSignal,
  ): Promise<Stood> {
    const source = await findDataFile(from);
    const path = await placeDataFile(to, pool);
    if (await exists(path)) return { frozen: false, stillMs: 0 };
    await mkdir(to, { recursive: true, mode: 0o700 });
    return orNothing(`${path}.new`, async () => {
      const copies = [{ from: source, to: `${path}.new` }];
      const tree = join(from, "tree");
      const trees = writable && (await mountPoints()).has(tree) ? [tree] : [];
      await using ahead = await copyAhead(copies, trees, signal);
      const stood = await still(async () => {
        for (const left of await ahead.complete(copies, signal)) await copyFile(left.from, left.to, signal);
      });
      if (await exists(join(from, "lent"))) await writeFile(join(to, "lent"), "");
      await complete(`${path}.new`, path);
      return stood;
    });
  }

  /** What was not made here is checked before the kernel mounts it, as what a virtual machine had. */
  async fill(
    directory: string,
    request: DataDiskRequest,
    fill: (path: string) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const path = await placeDataFile(directory, request.pool);
    if (!(await exists(path))) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await orNothing(`${path}.new`, async () => {
        await fill(`${path}.new`);
        await writeFile(join(directory, "lent"), "");
        await complete(`${path}.new`, path);
      });
    }
    await this.ensure(directory, request, signal);
  }

  /** `letGo`: before each further look. */
  async #untilFree(path: string, signal: AbortSignal, letGo = async () => {}): Promise<void> {
    for (const deadline = this.#clock.monotonicMs() + releaseMs; ; await letGo()) {
      if ((await loopOf(path, signal)) === undefined) return;
      if (this.#clock.monotonicMs() >= deadline) break;
      await this.#clock.sleep(releasePollMs, signal);
    }
    throw new StrataError(
      "Conflict",
      "the volume is still in use on its host; is a program in its last instance using it?",
      {
        detail: path,
      },
    );
  }
}

/** What a failure leaves at `next` would take space that is missed, for nothing. */
async function orNothing<Result>(next: string, make: () => Promise<Result>): Promise<Result> {
  await rm(next, { force: true });
  try {
    return await make();
  } catch (error) {
    await rm(next, { force: true });
    throw error;
  }
}

/** @throws Unsupported on a file system that cannot. */
async function allocate(path: string, sizeMib: number, signal: AbortSignal): Promise<void> {
  await requireRoom(sizeMib * 1024 ** 2 - (await stat(path)).blocks * 512, dirname(path));
  const args = ["--length", String(sizeMib * 1024 ** 2), path];
  const { status, stderr } = await run("fallocate", args, { signal, timeoutMs: longMs, expected: [0, 1] });
  if (status === 0) return;
  const detail = stderr.trim();
  if (!/not supported/i.test(detail)) throw new StrataError("Internal", "cannot run fallocate", { detail });
  throw new StrataError(
    "Unsupported",
    "the file system there cannot keep space for a volume; use allocation thin",
  );
}

async function makeSparse(path: string, sizeMib: number): Promise<void> {
  await using file = await open(path, "wx", 0o600);
  await file.truncate(sizeMib * 1024 ** 2);
}

async function makeFileSystem(path: string, fileSystem: "ext4" | "xfs", signal: AbortSignal): Promise<void> {
  if (fileSystem === "xfs") {
    await run("mkfs.xfs", ["-q", "-f", path], { signal, timeoutMs: longMs });
    return;
  }
  // A new sparse file reads as zeros: tables and journal need no writing, now or later.
  const options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard";
  await run("mke2fs", ["-q", "-F", "-t", "ext4", "-m", "0", "-E", options, path], {
    signal,
    timeoutMs: longMs,
  });
}

/**
 * A journal is replayed, and small damage mended, as at any boot. What a virtual machine had could hold anything: that is
 * checked in full, once, before the kernel mounts it. @throws Unavailable when it is damaged.
 */
async function checkFileSystem(
  path: string,
  fileSystem: "ext4" | "xfs",
  lent: string,
  signal: AbortSignal,
): Promise<void> {
  const full = await exists(lent);
  const options = { signal, timeoutMs: longMs };
  let sound = true;
  if (fileSystem === "ext4") {
    const args = ["-p", ...(full ? ["-f"] : []), path];
    sound = (await run("e2fsck", args, { ...options, expected: [0, 1, 2, 4, 8] })).status < 4;
  } else if (full) {
    sound = (await xfsFault(path, signal)) === undefined;
  }
  if (!sound) {
    throw new StrataError(
      "Unavailable",
      `the volume's ${fileSystem} is damaged or is none any more; attach it to a virtual machine to look at it, or restore a snapshot`,
      { detail: path },
    );
  }
  await rm(lent, { force: true });
}

/**
 * Without a mount, growing ext4 needs no more than the file. The tool wants a full check first, so it is only called when
 * there is something to grow into.
 */
export async function growUnmounted(path: string, signal: AbortSignal): Promise<void> {
  const options = { signal, timeoutMs: longMs };
  const { stdout } = await run("dumpe2fs", ["-h", path], options);
  const number = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+)$`, "m").exec(stdout)?.[1]);
  const blockBytes = number("Block size");
  const { size } = await stat(path);
  if ((number("Block count") + 1) * blockBytes > size) return;
  await run("e2fsck", ["-f", "-p", path], { ...options, expected: [0, 1] });
  await run("resize2fs", [path], options);
}

/**
 * Both tools change nothing when there is nothing to grow into.
 * @throws Unsupported where root may not (the kernel asks for CAP_SYS_RESOURCE to grow a mounted ext4).
 */
async function growMounted(
  path: string,
  tree: string,
  fileSystem: "ext4" | "xfs",
  signal: AbortSignal,
): Promise<void> {
  const loop = await loopOf(path, signal);
  if (loop === undefined) throw new StrataError("Internal", `the volume at ${tree} has no loop device`);
  await run("losetup", ["--set-capacity", loop], { signal });
  const options = { signal, timeoutMs: longMs };
  if (fileSystem === "xfs") {
    await run("xfs_growfs", ["-d", tree], options);
    return;
  }
  const { status, stderr } = await run("resize2fs", [loop], { ...options, expected: [0, 1] });
  if (status === 0) return;
  throw new StrataError(
    "Unsupported",
    "this host may not grow a mounted ext4; the volume has its new size from when it is attached next",
    { detail: stderr.trim() },
  );
}

/** On disk first: after a power failure a file must not bear its name without its content. */
export async function complete(next: string, path: string): Promise<void> {
  {
    await using file = await open(next, "r+");
    await file.datasync();
  }
  await rename(next, path);
}

export async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    (error) => {
      if (error.code === "ENOENT") return false;
      throw error;
    },
  );
}
