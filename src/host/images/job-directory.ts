/**
 * Work in progress: `tmp/NAME/`, locked through `tmp/NAME.lock` while its maker lives. Whatever is unlocked was left
 * by somebody who is gone. Several daemons may share an image directory, so one must not sweep away another's work.
 */
import { randomUUID } from "node:crypto";
import { mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { lockFile, tryLockFile } from "./file-lock.ts";

export interface JobDirectory extends AsyncDisposable {
  path: string;
}

export async function openJob(tmp: string, signal: AbortSignal): Promise<JobDirectory> {
  const path = join(tmp, randomUUID());
  const lock = await lockFile(`${path}.lock`, signal);
  // A sweep by another process may have come between making and locking the file.
  if (!(await stat(`${path}.lock`).catch(() => undefined))) {
    await lock.release();
    return openJob(tmp, signal);
  }
  await mkdir(path, { mode: 0o711 });
  return {
    path,
    async [Symbol.asyncDispose]() {
      await rm(path, { recursive: true, force: true });
      await rm(`${path}.lock`, { force: true });
      await lock.release();
    },
  };
}

/** Removes the directories of makers that are gone. */
export async function sweepJobs(tmp: string): Promise<void> {
  const names = new Set((await readdir(tmp)).map((name) => name.replace(/\.lock$/, "")));
  for (const name of names) {
    await using lock = await tryLockFile(join(tmp, `${name}.lock`));
    if (!lock) continue;
    await rm(join(tmp, name), { recursive: true, force: true });
    await rm(join(tmp, `${name}.lock`), { force: true });
  }
}
