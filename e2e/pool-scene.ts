/** Small file systems on loop devices, for tests of storage pools. */
import { mkdir, mkdtemp, rm, statfs } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../src/host/run.ts";

export type SmallFileSystem = "ext4" | "xfs" | "btrfs";

export class PoolScene {
  readonly directory: string;
  readonly #mounted: string[] = [];

  private constructor(directory: string) {
    this.directory = directory;
  }

  static async create(): Promise<PoolScene> {
    return new PoolScene(await mkdtemp("/var/tmp/strata-pools-"));
  }

  /** Mounted at the path that is returned. */
  async fileSystem(name: string, type: SmallFileSystem, sizeMib: number): Promise<string> {
    const image = join(this.directory, `${name}.img`);
    const path = join(this.directory, name);
    await run("truncate", ["--size", `${sizeMib}M`, image]);
    const quiet = { ext4: ["-q", "-m", "0"], xfs: ["-q", "-m", "reflink=1"], btrfs: ["-q"] }[type];
    await run(`mkfs.${type}`, [...quiet, image]);
    await mkdir(path, { recursive: true, mode: 0o755 });
    await this.mount(name, path);
    return path;
  }

  async mount(name: string, path: string): Promise<void> {
    await run("mount", ["-o", "loop", join(this.directory, `${name}.img`), path]);
    this.#mounted.push(path);
  }

  async unmount(path: string): Promise<void> {
    await run("umount", [path]);
    this.#mounted.splice(this.#mounted.indexOf(path), 1);
  }

  /** Takes space in a file system until `leaveMib` are left. */
  async fill(path: string, leaveMib: number): Promise<void> {
    const { bavail, bsize } = await statfs(path);
    const bytes = bavail * bsize - leaveMib * 1024 ** 2;
    await run("dd", [
      "if=/dev/zero",
      `of=${join(path, "filler")}`,
      "bs=1M",
      `count=${Math.floor(bytes / 1024 ** 2)}`,
    ]);
    await run("sync", ["--file-system", path]);
  }

  async unfill(path: string): Promise<void> {
    await rm(join(path, "filler"));
    await run("sync", ["--file-system", path]);
  }

  async freeMib(path: string): Promise<number> {
    const { bavail, bsize } = await statfs(path);
    return Math.floor((bavail * bsize) / 1024 ** 2);
  }

  async dispose(): Promise<void> {
    for (const path of [...this.#mounted].reverse()) await run("umount", [path]);
    await rm(this.directory, { recursive: true });
  }
}
