/**
 * The named pipe that a balancer's log goes through. HAProxy holds both of its ends: there is always a reader, so while the
 * agent is away lines cost as much as ever, and what does not fit into the pipe is dropped. A line is written whole or not at
 * all, as POSIX promises of up to PIPE_BUF bytes (4096), and HAProxy's are shorter.
 */
import { lstat, mkdir, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { run } from "../run.ts";

/** Makes it unless it is there. Idempotent, also when two do so at once. */
export async function ensureLogPipe(path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  if (await isPipe(path)) return;
  await rm(path, { recursive: true, force: true });
  try {
    await run("mkfifo", ["-m", "600", path]);
  } catch (error) {
    if (!(await isPipe(path))) throw error;
  }
}

async function isPipe(path: string): Promise<boolean> {
  return (await lstat(path).catch(() => undefined))?.isFIFO() ?? false;
}
