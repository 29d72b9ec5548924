/**
 * Two things that people call the console. What the guest prints on /dev/console is logged by LXC's monitor and can be
 * read here. Attaching gives /dev/tty1, whose terminal is handed to lxc-console itself: were it /dev/console, the
 * monitor would stand in between, and one slow reader would stop it.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { type FileHandle, open } from "node:fs/promises";
import { Duplex } from "node:stream";
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Console } from "../driver.ts";
import { GuestFiles, watchDir } from "./guest-files.ts";
import { commandFor, type LxcAccess } from "./lxc-access.ts";
import { sealed } from "./sealed.ts";

const chunkBytes = 64 * 1024;

export function lxcConsole(access: LxcAccess): Console<JsonObject> {
  const taken = new Set<Uid>();
  return {
    async attach(handle, signal) {
      signal.throwIfAborted();
      const uid = await access.runningUid(handle);
      if (taken.has(uid)) throw new StrataError("Conflict", "somebody else is attached to this console");
      taken.add(uid);
      try {
        // -e -1: no key combination ends the session.
        const command = await commandFor(access, "lxcConsole", uid, ["-t", "1", "-e", "-1"]);
        const { file, args } = sealed(command);
        const child = spawn(file, args, { env: {}, cwd: "/", stdio: ["pipe", "pipe", "pipe"] });
        child.once("exit", () => taken.delete(uid));
        return streamOf(child, signal);
      } catch (error) {
        taken.delete(uid);
        throw error;
      }
    },
    async *log(handle, { tailBytes, follow }, signal) {
      const files = new GuestFiles(access.lxcPath, access.uidOf(handle));
      if (!(await files.exists())) throw new StrataError("NotFound", "the container does not exist");
      yield* readLog(files, tailBytes, follow, signal);
    },
  };
}

function streamOf(child: ChildProcess, signal: AbortSignal): Duplex {
  const { stdin, stdout, stderr } = child;
  let complaint = "";
  const stream = new Duplex({
    read: () => void stdout?.resume(),
    write(chunk: Uint8Array, _encoding, done) {
      if (stdin?.write(chunk)) done();
      else stdin?.once("drain", () => done());
    },
    final(done) {
      stdin?.end();
      done();
    },
    destroy(error, done) {
      child.kill("SIGKILL");
      done(error);
    },
  });
  stdout?.on("data", (chunk: Uint8Array) => {
    if (!stream.push(chunk)) stdout.pause();
  });
  stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaint = (complaint + text).slice(-2_000);
  });
  stdin?.on("error", () => {});
  const failed = (detail: string) =>
    stream.destroy(new StrataError("Unavailable", "the console cannot be reached", { detail }));
  child.once("error", (error) => failed(error.message));
  child.once("close", (code) => {
    if (code === 0 || stream.destroyed) stream.push(null);
    else failed(complaint);
  });
  const abort = () => stream.destroy();
  signal.addEventListener("abort", abort, { once: true });
  stream.once("close", () => signal.removeEventListener("abort", abort));
  return stream;
}

/** LXC moves a full log to `log.1` and begins a new one: positions are kept by inode. */
async function* readLog(
  files: GuestFiles,
  tailBytes: number,
  follow: boolean,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let wake = () => {};
  let changed = false;
  const end = watchDir(files.consoleDir, () => {
    changed = true;
    wake();
  });
  signal.addEventListener("abort", () => wake(), { once: true });
  try {
    const tail = await readTail(files, tailBytes);
    if (tail.bytes.length > 0) yield tail.bytes;
    let { position } = tail;
    while (follow && !signal.aborted) {
      changed = false;
      for await (const { bytes, next } of readOn(files, position)) {
        position = next;
        if (bytes.length > 0) yield bytes;
      }
      if (changed || signal.aborted) continue;
      if (!(await files.exists())) return;
      await new Promise<void>((resolve) => {
        wake = resolve;
        if (changed || signal.aborted) resolve();
      });
    }
  } finally {
    end();
  }
}

interface Position {
  inode: number;
  offset: number;
}

/** The last bytes of both files together, and where to go on. */
async function readTail(
  files: GuestFiles,
  tailBytes: number,
): Promise<{ bytes: Buffer; position: Position }> {
  const parts: Buffer[] = [];
  let left = tailBytes;
  let position: Position = { inode: 0, offset: 0 };
  for (const path of [files.consoleLog, `${files.consoleLog}.1`]) {
    const file = await openIfThere(path);
    if (file === undefined) continue;
    try {
      const { size, ino } = await file.stat();
      if (path === files.consoleLog) position = { inode: ino, offset: size };
      const length = Math.min(left, size);
      const { buffer, bytesRead } = await file.read(Buffer.alloc(length), 0, length, size - length);
      parts.unshift(buffer.subarray(0, bytesRead));
      left -= bytesRead;
    } finally {
      await file.close();
    }
  }
  return { bytes: Buffer.concat(parts), position };
}

/** What was written after `position`: the rest of a file that was moved meanwhile, then the current one. */
async function* readOn(files: GuestFiles, from: Position): AsyncGenerator<{ bytes: Buffer; next: Position }> {
  let position = from;
  const old = await openIfThere(`${files.consoleLog}.1`);
  const current = await openIfThere(files.consoleLog);
  try {
    for (const file of [old, current]) {
      if (file === undefined) continue;
      const { ino } = await file.stat();
      if (file === old && ino !== from.inode) continue;
      if (ino !== position.inode) position = { inode: ino, offset: 0 };
      for (;;) {
        const { buffer, bytesRead } = await file.read(
          Buffer.alloc(chunkBytes),
          0,
          chunkBytes,
          position.offset,
        );
        if (bytesRead === 0) break;
        position = { inode: ino, offset: position.offset + bytesRead };
        yield { bytes: buffer.subarray(0, bytesRead), next: position };
      }
    }
  } finally {
    await old?.close();
    await current?.close();
  }
}

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path, "r");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw cause;
  }
}
