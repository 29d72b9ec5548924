/**
 * Runs a tool of the host on data that nobody vouches for (archives, disk images, file systems), so that a bug in the
 * tool gains nothing: its own user, mount, process, network and IPC namespaces; a root directory that holds the
 * host's programs read-only and the few paths it works on; ids 0–65535 shifted by `idBase`, so that "root" in there
 * owns nothing of the host's and cannot make device nodes. The mounts are made before the user namespace is entered,
 * so the tool cannot change them.
 *
 * Everything dies with the caller: the outer process gets SIGKILL when this process ends, its namespace's first
 * process when the outer one ends, and with that first process the kernel kills the rest and drops the mounts.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { StrataError } from "../../core/errors.ts";

export const idCount = 65536;

const path = "/usr/sbin:/usr/bin:/sbin:/bin";
const maxOutputChars = 4 * 1024 * 1024;
/** One arena for all threads: what glibc sets aside for each counts against a limit of the address space. */
const environment = { PATH: path, LANG: "C.UTF-8", MALLOC_ARENA_MAX: "1" };

export interface Bind {
  /** Of the host; a file or a directory. */
  from: string;
  /** In the tool's root directory, such as `/tree`. One level deep. */
  to: string;
  writable: boolean;
}

export interface ContainedOptions {
  /** An existing, empty directory: where the tool's root directory is mounted. Nothing is written to it. */
  jail: string;
  idBase: number;
  binds: readonly Bind[];
  signal: AbortSignal;
  /** Kills the tool after this long. */
  timeoutMs: number;
  stdin?: AsyncIterable<Uint8Array>;
  /** Address space and processor time that the tool may take. */
  maxMemoryMib?: number;
  maxCpuSeconds?: number;
}

export interface Ended {
  status: number;
  stdout: string;
  stderr: string;
}

/**
 * Nothing of a process's descendants outlives the process that calls this: prefix for spawn.
 * The comparison closes the gap before the death signal is set, in which the parent may have died already.
 */
export function dyingWithUs(command: string, args: readonly string[]): [string, string[]] {
  const check = '[ "$PPID" = "$1" ] || exit 1; shift; exec "$@"';
  return ["setpriv", ["--pdeathsig", "KILL", "sh", "-c", check, "sh", `${process.pid}`, command, ...args]];
}

/** Arguments of unshare for a process whose own mounts and children go away with it. */
export const ownNamespaces = ["--mount", "--pid", "--fork", "--kill-child=KILL"];

const enterJail = `set -eu
jail=$1 holder=$2; shift 2
mount -t tmpfs -o size=1m,mode=755,nosuid,nodev jail "$jail"
for directory in usr bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$directory" ]; then cp -P "/$directory" "$jail/$directory"
  elif [ -d "/$directory" ]; then
    mkdir "$jail/$directory"
    mount --bind "/$directory" "$jail/$directory"
    mount -o remount,bind,ro,nosuid,nodev "$jail/$directory"
  fi
done
mkdir -m 1777 "$jail/tmp"
while [ "$1" != -- ]; do
  from=$1 to=$jail$2 access=$3; shift 3
  if [ -d "$from" ]; then mkdir "$to"; else : > "$to"; fi
  mount --bind "$from" "$to"
  mount -o "remount,bind,$access,nosuid,nodev" "$to"
done
shift
cd "$jail"
mount -o remount,ro,nosuid,nodev "$jail"
nsenter --user="/proc/$holder/ns/user" --setuid 0 --setgid 0 -- chroot . "$@"
exit $?`; // no exec: changing ids would clear the death signal of the namespace's first process

/**
 * Runs `command` to its end and returns status and output, whatever the status. A tool that ends without reading all
 * its input is no error by itself.
 * @throws what the input stream throws; Timeout; the signal's reason; Internal when the jail cannot be made.
 */
export async function runContained(
  command: string,
  args: readonly string[],
  options: ContainedOptions,
): Promise<Ended> {
  const { jail, idBase, binds, signal, timeoutMs } = options;
  signal.throwIfAborted();
  await using namespace = await holdUserNamespace(idBase);
  const limits = [
    "prlimit",
    ...(options.maxMemoryMib === undefined ? [] : [`--as=${options.maxMemoryMib * 1024 ** 2}`]),
    ...(options.maxCpuSeconds === undefined ? [] : [`--cpu=${options.maxCpuSeconds}`]),
    "--core=0",
  ];
  const [program, argv] = dyingWithUs("unshare", [
    ...ownNamespaces,
    "--net",
    "--ipc",
    "--uts",
    "sh",
    "-c",
    enterJail,
    "sh",
    jail,
    `${namespace.pid}`,
    ...binds.flatMap(({ from, to, writable }) => [from, to, writable ? "rw" : "ro"]),
    "--",
    ...limits,
    command,
    ...args,
  ]);
  const child = spawn(program, argv, { env: environment, stdio: ["pipe", "pipe", "pipe"] });
  const timeout = AbortSignal.timeout(timeoutMs);
  const stop = AbortSignal.any([signal, timeout]);
  const kill = () => child.kill("SIGKILL");
  stop.addEventListener("abort", kill, { once: true });
  const ended = collect(child, command);
  ended.catch(() => {});
  try {
    await feed(child, options.stdin, stop);
    const result = await ended;
    signal.throwIfAborted();
    if (timeout.aborted) {
      throw new StrataError("Timeout", `${command} did not finish within ${timeoutMs} ms`);
    }
    return result;
  } finally {
    stop.removeEventListener("abort", kill);
    kill();
    await ended.catch(() => {}); // nothing of it may still write when this returns
  }
}

/** A user namespace with ids shifted by idBase, alive until disposed or until this process ends. */
export async function holdUserNamespace(idBase: number): Promise<AsyncDisposable & { pid: number }> {
  const holder = spawn("unshare", ["--user", "sh", "-c", "echo; exec cat >/dev/null"], {
    env: environment,
    stdio: ["pipe", "pipe", "ignore"],
  });
  const failed = once(holder, "error").then(([cause]) => {
    throw new StrataError("Unavailable", "cannot run unshare (package util-linux)", { cause });
  });
  const ended = new Promise<void>((resolve) => holder.once("close", () => resolve()));
  failed.catch(() => {});
  await Promise.race([once(holder.stdout, "data"), failed, ended]);
  if (holder.pid === undefined || holder.exitCode !== null) {
    throw new StrataError(
      "Unavailable",
      "this host does not allow user namespaces, which importing images needs",
    );
  }
  const map = `0 ${idBase} ${idCount}\n`;
  await writeFile(`/proc/${holder.pid}/uid_map`, map);
  await writeFile(`/proc/${holder.pid}/gid_map`, map);
  return {
    pid: holder.pid,
    async [Symbol.asyncDispose]() {
      holder.stdin.destroy();
      holder.stdout.destroy();
      await ended;
    },
  };
}

function collect(child: ChildProcess, command: string): Promise<Ended> {
  return new Promise((resolve, reject) => {
    let stdout = "";
    let stderr = "";
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      if (stdout.length > maxOutputChars) child.kill("SIGKILL");
    });
    child.stderr?.setEncoding("utf8").on("data", (text: string) => {
      stderr = (stderr + text).slice(-64 * 1024);
    });
    child.on("error", (cause) => reject(new StrataError("Unavailable", `cannot run ${command}`, { cause })));
    child.on("close", (code) => resolve({ status: code ?? 128, stdout, stderr }));
  });
}

async function feed(
  child: ChildProcess,
  input: AsyncIterable<Uint8Array> | undefined,
  signal: AbortSignal,
): Promise<void> {
  const { stdin } = child;
  if (!stdin) return;
  if (!input) {
    stdin.on("error", () => {});
    stdin.end();
    return;
  }
  try {
    await pipeline(Readable.from(input, { objectMode: false }), stdin, { signal });
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    // A tool that ended early says why by its status and messages.
    if (code === "EPIPE" || code === "ERR_STREAM_PREMATURE_CLOSE" || signal.aborted) return;
    throw error;
  }
}
