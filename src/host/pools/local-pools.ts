import { open, readdir, rename, rm, stat, statfs } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { type PoolPlace, poolMark, readMark, uidOfPoolFile } from "../disks/data-files.ts";
import type { PoolFacts, PoolRequest, Pools, PoolUsage } from "./pools.ts";
import { verifyPath, verifyPool } from "./verify-pool.ts";

/** `own`: directories of the daemon, in which and around which there is no pool. */
export function createPools(options: { own: readonly string[] }): Pools {
  return new LocalPools(options.own);
}

class LocalPools implements Pools {
  readonly #own: readonly string[];
  /** What was proven in this process's life. */
  readonly #proven = new Map<string, PoolFacts & { device: number }>();

  constructor(own: readonly string[]) {
    this.#own = own;
  }

  async open(request: PoolRequest, signal: AbortSignal): Promise<PoolFacts> {
    const { path, uid, prepared } = request;
    await verifyPath(path, this.#own);
    const mark = await readMark(path);
    if (prepared && mark === undefined) {
      const why = `${path} has no ${poolMark}; is its file system mounted?`;
      throw new StrataError("Unavailable", `the pool is not there: ${why}`);
    }
    if (mark !== undefined && mark !== uid) {
      const help = `remove ${join(path, poolMark)} if no other daemon uses it`;
      throw new StrataError("Conflict", `${path} is the directory of another pool (${mark}); ${help}`);
    }
    const device = (await stat(path).catch(() => undefined))?.dev;
    const proven = this.#proven.get(uid);
    if (mark !== undefined && proven?.device === device && proven !== undefined) return proven;
    const facts = await verifyPool(request, signal);
    if (mark === undefined) await writeMark(request);
    this.#proven.set(uid, { ...facts, device: device ?? 0 });
    return facts;
  }

  async usage({ path }: PoolPlace): Promise<PoolUsage> {
    const { bsize, blocks, bfree, bavail } = await statfs(path);
    let allocatedBytes = 0;
    for (const name of await readdir(path)) {
      if (uidOfPoolFile(name) === undefined) continue;
      // It may have gone meanwhile.
      allocatedBytes += ((await stat(join(path, name)).catch(() => undefined))?.blocks ?? 0) * 512;
    }
    return {
      capacityBytes: blocks * bsize,
      usedBytes: (blocks - bfree) * bsize,
      freeBytes: bavail * bsize,
      allocatedBytes,
    };
  }

  async close({ path, uid }: PoolPlace): Promise<void> {
    this.#proven.delete(uid);
    if ((await readMark(path)) !== uid) return;
    const files = (await readdir(path)).filter((name) => uidOfPoolFile(name) !== undefined);
    if (files.length > 0) {
      const some = files.slice(0, 3).join(", ");
      throw new StrataError("Conflict", `there are files of volumes in ${path} still: ${some}`);
    }
    await rm(join(path, poolMark), { force: true });
  }
}

async function writeMark({ uid, name, path }: PoolPlace): Promise<void> {
  const mark = join(path, poolMark);
  {
    await using file = await open(`${mark}.new`, "w", 0o600);
    await file.writeFile(`${JSON.stringify({ version: 1, uid, name })}\n`);
    await file.sync();
  }
  await rename(`${mark}.new`, mark);
}
