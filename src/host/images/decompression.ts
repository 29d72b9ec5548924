/** Unpacks gzip, xz and zstd as a stream, told apart by their first bytes; anything else passes unchanged. */
import { spawn } from "node:child_process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGunzip, createZstdDecompress } from "node:zlib";
import { StrataError } from "../../core/errors.ts";
import { dyingWithUs } from "./contained-process.ts";

export type Packing = "none" | "gzip" | "xz" | "zstd";

const magics: readonly [Packing, readonly number[]][] = [
  ["gzip", [0x1f, 0x8b]],
  ["xz", [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00]],
  ["zstd", [0x28, 0xb5, 0x2f, 0xfd]],
];
/** What xz -9 needs is 65 MiB; more would be somebody's attempt to exhaust the host. */
const xzMemory = "--memlimit-decompress=256MiB";
const maxAddressSpace = `--as=${1024 ** 3}`;

export function packingOf(start: Uint8Array): Packing {
  return magics.find(([, magic]) => magic.every((byte, index) => start[index] === byte))?.[0] ?? "none";
}

/** @throws Invalid (while reading) when the packed data is damaged or incomplete. */
export function unpackStream(
  source: AsyncIterable<Uint8Array>,
  packing: Packing,
  signal: AbortSignal,
): AsyncIterable<Uint8Array> {
  switch (packing) {
    case "none":
      return source;
    case "gzip":
      return throughTransform(source, createGunzip(), packing, signal);
    case "zstd":
      return throughTransform(source, createZstdDecompress(), packing, signal);
    case "xz":
      return throughXz(source, signal);
  }
}

async function* throughTransform(
  source: AsyncIterable<Uint8Array>,
  transform: NodeJS.ReadWriteStream & Readable,
  packing: Packing,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  let sourceError: unknown;
  const guarded = (async function* () {
    try {
      yield* source;
    } catch (error) {
      sourceError = error;
      throw error;
    }
  })();
  const done = pipeline(Readable.from(guarded, { objectMode: false }), transform, { signal });
  done.catch(() => {});
  try {
    yield* transform as AsyncIterable<Uint8Array>;
    await done;
  } catch (error) {
    signal.throwIfAborted();
    if (sourceError !== undefined) throw sourceError;
    throw damaged(packing, error);
  } finally {
    transform.destroy();
    await done.catch(() => {});
  }
}

async function* throughXz(
  source: AsyncIterable<Uint8Array>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array, void, void> {
  // As nobody, without any capability: liblzma reads a stranger's data here.
  const nobody = [
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--bounding-set=-all",
  ];
  const privileged = process.getuid?.() === 0;
  const [program, argv] = dyingWithUs("prlimit", [
    maxAddressSpace,
    "--core=0",
    ...(privileged ? ["setpriv", ...nobody] : []),
    "xz",
    "--decompress",
    "--stdout",
    "--quiet",
    xzMemory,
  ]);
  const child = spawn(program, argv, {
    env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    stdio: ["pipe", "pipe", "ignore"],
  });
  const kill = () => child.kill("SIGKILL");
  signal.addEventListener("abort", kill, { once: true });
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", (cause) =>
      reject(new StrataError("Unavailable", "cannot run xz (package xz-utils)", { cause })),
    );
    child.once("close", (code) => resolve(code ?? 128));
  });
  ended.catch(() => {});
  let sourceError: unknown;
  const fed = pipeline(Readable.from(source, { objectMode: false }), child.stdin).catch((error) => {
    if (error?.code !== "EPIPE" && error?.code !== "ERR_STREAM_PREMATURE_CLOSE") sourceError = error;
    kill();
  });
  try {
    yield* child.stdout;
    const status = await ended;
    await fed;
    signal.throwIfAborted();
    if (sourceError !== undefined) throw sourceError;
    if (status !== 0) throw damaged("xz");
  } finally {
    signal.removeEventListener("abort", kill);
    kill();
    await ended.catch(() => {});
  }
}

function damaged(packing: Packing, cause?: unknown): StrataError {
  return new StrataError("Invalid", `the ${packing} data is damaged or incomplete`, { cause });
}
