/**
 * Locks between processes that a kill -9 of the holder releases: flock(2) belongs to the open file description, which
 * this process shares with a short-lived `flock` child. The child takes the lock and ends; the lock stays with our
 * descriptor (close-on-exec, so no other child inherits it) until it is closed or this process is gone.
 */
import { spawn } from "node:child_process";
import { type FileHandle, open } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";

export interface FileLock extends AsyncDisposable {
  release(): Promise<void>;
}

/**
 * Waits for the exclusive lock on `path`; the file is made where it is missing and stays.
 * @throws the signal's reason when aborted meanwhile.
 */
export async function lockFile(path: string, signal: AbortSignal): Promise<FileLock> {
  const lock = await flock(path, ["--exclusive"], signal);
  if (!lock) throw new StrataError("Internal", "cannot lock an image", { detail: path });
  return lock;
}

/** The lock, or undefined when somebody holds it. */
export function tryLockFile(path: string): Promise<FileLock | undefined> {
  return flock(path, ["--exclusive", "--nonblock"]);
}

async function flock(path: string, flags: string[], signal?: AbortSignal): Promise<FileLock | undefined> {
  signal?.throwIfAborted();
  const file = await open(path, "a", 0o600);
  try {
    signal?.throwIfAborted();
    const taken = await takeLock(file, flags, signal);
    if (!taken) {
      await file.close();
      return undefined;
    }
  } catch (error) {
    await file.close();
    throw error;
  }
  let held = true;
  const release = async () => {
    if (!held) return;
    held = false;
    await file.close();
  };
  return { release, [Symbol.asyncDispose]: release };
}

function takeLock(file: FileHandle, flags: string[], signal?: AbortSignal): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn("flock", [...flags, "--conflict-exit-code", "75", "3"], {
      stdio: ["ignore", "ignore", "ignore", file.fd],
    });
    const abort = () => child.kill("SIGKILL");
    signal?.addEventListener("abort", abort, { once: true });
    child.on("error", (cause) =>
      reject(
        new StrataError("Unavailable", "the program flock (package util-linux) cannot be run", { cause }),
      ),
    );
    child.on("exit", (code) => {
      signal?.removeEventListener("abort", abort);
      if (signal?.aborted) return reject(signal.reason);
      if (code === 0) return resolve(true);
      if (code === 75) return resolve(false);
      reject(
        new StrataError("Internal", "cannot lock an image", { detail: `flock ended with status ${code}` }),
      );
    });
  });
}
