/**
 * Which blocks of loop devices are written while they are watched, from the kernel's own record: every request that was
 * completed. What was complete before the watch began is in the file already, so whoever copies the file after `watchBlocks`
 * has returned, and then copies what changed, has all of it.
 */
import { type ChildProcessByStdio, spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface, type Interface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { fileURLToPath } from "node:url";
import { ownFile } from "../../core/own-files.ts";

const script = fileURLToPath(ownFile("src/host/disks/changed-blocks.pl"));
export const blockBytes = 64 * 1024;

/** In blocks of `blockBytes`. */
export interface BlockRun {
  first: number;
  count: number;
}

/** By device, as MAJOR:MINOR. */
export type Changes = ReadonlyMap<string, readonly BlockRun[]>;

/** Reads one answer. Undefined unless it is whole. */
export async function parseChanges(lines: AsyncIterator<string>): Promise<Changes | undefined> {
  const found = new Map<string, BlockRun[]>();
  for (;;) {
    const { value, done } = await lines.next();
    if (done) return undefined;
    if (value === "done") return found;
    const [, device = "", first, count] = /^(\d+:\d+) (\d+) (\d+)$/.exec(value) ?? [];
    if (first === undefined) return undefined;
    let runs = found.get(device);
    if (!runs) {
      runs = [];
      found.set(device, runs);
    }
    runs.push({ first: Number(first), count: Number(count) });
  }
}

export class WatchedBlocks {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #lines: Interface;
  readonly #answers: AsyncIterator<string>;

  constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout });
    this.#answers = this.#lines[Symbol.asyncIterator]();
  }

  /** By device, what was written since the last answer; undefined when nobody can tell any more. */
  changed(): Promise<Changes | undefined> {
    this.#child.stdin.write("?\n");
    return parseChanges(this.#answers);
  }

  /** It is watched from now on; false where that cannot be. */
  async isReady(): Promise<boolean> {
    return (await this.#answers.next()).value === "ready";
  }

  /** Nothing of it is left in the kernel when this returns. */
  async close(): Promise<void> {
    const { exitCode, signalCode, stdin } = this.#child;
    const ended = exitCode !== null || signalCode !== null ? undefined : once(this.#child, "close");
    stdin.end();
    await ended?.catch(() => {}); // it could not even be started
    this.#lines.close();
  }
}

/** Undefined where the kernel keeps no such record, or root may not have it. */
export async function watchBlocks(devices: readonly string[]): Promise<WatchedBlocks | undefined> {
  const args = ["--mount", "perl", script, String(blockBytes), ...devices];
  const child = spawn("unshare", args, {
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
    stdio: ["pipe", "pipe", "ignore"],
  });
  child.on("error", () => {}); // its output ends with it
  child.stdin.on("error", () => {});
  const watched = new WatchedBlocks(child);
  if (await watched.isReady()) return watched;
  await watched.close();
  return undefined;
}
