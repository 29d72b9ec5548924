/**
 * Runs buildah where nothing of the host can be reached, so that neither a step that breaks out of buildah's own walls nor a
 * bug in buildah gains anything: namespaces of its own for users, mounts, processes, IPC and names; a root with the host's
 * programs, read-only, and of everything else only the store of one scope and a directory for its work; ids 0–65535 shifted
 * by `idBase`. No other root is mounted in there (pivot_root), so a step that walks out of its chroot is in this one. Its network is none, the host's, or one of its own: slirp4netns carries the connections it
 * makes, and nothing reaches it from outside, nor it the host's loopback.
 *
 * Everything is in one control group, and dies with the caller (see contained-process.ts).
 */
import { spawn } from "node:child_process";
import type { Readable } from "node:stream";
import { StrataError } from "../../../../core/errors.ts";
import type { Cgroups } from "../../../cgroups.ts";
import { dyingWithUs, holdUserNamespace, ownNamespaces } from "../../contained-process.ts";
import { LastText } from "./last-text.ts";

export type BuildNetwork = "own" | "host" | "none";

export interface JailOptions {
  /** An existing, empty directory: where the root directory is mounted. Nothing is written to it. */
  jail: string;
  /** Directories that are /store and /work in there, owned by `idBase`. What is in them was written by strangers. */
  store: string;
  work: string;
  /** Is /input in there, and read-only. */
  input: string;
  idBase: number;
  network: BuildNetwork;
  cgroups: Pick<Cgroups, "procsFiles" | "kill">;
  /** Exists; all processes are in it. */
  group: string;
}

export interface JailRun {
  args: readonly string[];
  signal: AbortSignal;
  /** Kills it after this long. */
  timeoutMs: number;
  /** Descriptor of the file that is its standard input. */
  stdin?: number;
  /** Of standard output and standard error, as they come. */
  onLine?: (line: string) => void;
}

export interface JailEnd {
  status: number;
  stdout: string;
  stderr: string;
}

const environment = { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" };
const maxTextChars = 4 * 1024 * 1024;
const maxLineChars = 64 * 1024;

/** Enters the groups and becomes the program. */
const enterGroups = 'while [ "$1" != -- ]; do echo 0 > "$1" || exit 1; shift; done; shift; exec "$@"';

const enterJail = `set -eu
jail=$1 holder=$2 store=$3 work=$4 input=$5 network=$6 owner=$7; shift 7
# Of this namespace's processes: by the host's, unshare would keep whichever process has the same number there
exec 4< "/proc/$holder/ns/user"
mount -t proc proc /proc
mount -t tmpfs -o size=64m,mode=755,nosuid,nodev jail "$jail"
for directory in usr bin sbin lib lib32 lib64 libx32; do
  if [ -L "/$directory" ]; then cp -P "/$directory" "$jail/$directory"
  elif [ -d "/$directory" ]; then
    mkdir "$jail/$directory"
    mount --bind "/$directory" "$jail/$directory"
    mount -o remount,bind,ro,nosuid,nodev "$jail/$directory"
  fi
done
cd "$jail"
mkdir -m 1777 tmp
mkdir -p proc sys dev etc/containers etc/ssl run root store work input var
mount -t tmpfs -o mode=755,size=1m,nosuid,noexec dev dev
for name in null zero full random urandom tty; do : > dev/$name; mount --bind /dev/$name dev/$name; done
ln -s /proc/self/fd dev/fd
mkdir dev/pts dev/mqueue dev/shm
mount -t tmpfs -o mode=1777,size=64m,nosuid,nodev shm dev/shm
ln -s ../work var/tmp
echo root:x:0:0:root:/root:/bin/sh > etc/passwd
echo root:x:0: > etc/group
echo '127.0.0.1 localhost' > etc/hosts
echo '{"default":[{"type":"insecureAcceptAnything"}]}' > etc/containers/policy.json
echo 'unqualified-search-registries = ["docker.io"]' > etc/containers/registries.conf
printf '[storage]\\ndriver = "overlay"\\nrunroot = "/run/containers"\\ngraphroot = "/store"\\n' > etc/containers/storage.conf
: > etc/containers/containers.conf
if [ -d /etc/ssl/certs ]; then
  mkdir etc/ssl/certs
  mount --bind /etc/ssl/certs etc/ssl/certs
  mount -o remount,bind,ro,nosuid,nodev etc/ssl/certs
fi
chown "$owner:$owner" tmp run root
mount --bind "$store" store
mount --bind "$work" work
mount --bind "$input" input
mount -o remount,bind,ro,nosuid,nodev input
enter=
case $network in
  host) cp -L /etc/resolv.conf etc/resolv.conf ;;
  none) : > etc/resolv.conf; : > net; unshare --net=net ip link set lo up; enter="nsenter --net=net" ;;
  own)
    echo nameserver 10.0.2.3 > etc/resolv.conf
    : > net; unshare --net=net true
    mkfifo ready
    slirp4netns --configure --mtu=65520 --disable-host-loopback --enable-sandbox --enable-seccomp \\
      --netns-type=path --ready-fd=3 net tap0 3> ready > /dev/null 2> slirp.log &
    if [ "$(head -c 1 ready)" != 1 ]; then echo "slirp4netns: $(tail -n 3 slirp.log)" >&2; exit 125; fi
    enter="nsenter --net=net" ;;
esac
mount -t proc proc proc
mkdir outside
pivot_root . outside
cd /
umount -l outside
rmdir outside
$enter nsenter --user=/proc/self/fd/4 --setuid 0 --setgid 0 -- \\
  unshare --mount --pid --fork --kill-child=KILL sh -c 'mount -t proc proc proc; exec "$@" 4<&-' sh "$@"
exit $?`; // no exec: the first process of the namespace ends last, and with it whatever was left

/**
 * Runs `buildah` to its end and returns status and output, whatever the status. Nothing of it goes on after that.
 * @throws Timeout; the signal's reason; Unavailable when the jail cannot be made.
 */
export async function runInJail(options: JailOptions, run: JailRun): Promise<JailEnd> {
  const { jail, store, work, input, idBase, network, cgroups, group } = options;
  const { args, signal, timeoutMs } = run;
  signal.throwIfAborted();
  await using namespace = await holdUserNamespace(idBase);
  const inside = ["env", "-i", `PATH=${environment.PATH}`, "LANG=C.UTF-8", "HOME=/root", "TMPDIR=/work"];
  const places = [jail, `${namespace.pid}`, store, work, input, network, `${idBase}`];
  const [program, argv] = dyingWithUs("sh", [
    ...["-c", enterGroups, "sh", ...cgroups.procsFiles(group), "--"],
    ...["nice", "-n", "10", "ionice", "-c", "3", "unshare", ...ownNamespaces, "--ipc", "--uts"],
    ...["sh", "-c", enterJail, "sh", ...places, ...inside, ...args],
  ]);
  const child = spawn(program, argv, { env: environment, stdio: [run.stdin ?? "ignore", "pipe", "pipe"] });
  const timeout = AbortSignal.timeout(timeoutMs);
  const stop = AbortSignal.any([signal, timeout]);
  const kill = () => child.kill("SIGKILL");
  stop.addEventListener("abort", kill, { once: true });
  try {
    const said = { stdout: new LastText(maxTextChars), stderr: new LastText(maxTextChars) };
    const ended = new Promise<number>((resolve, reject) => {
      child.once("error", (cause) => reject(new StrataError("Unavailable", "cannot run buildah", { cause })));
      child.once("close", (code) => resolve(code ?? 128));
    });
    for (const name of ["stdout", "stderr"] as const) {
      followLines(child[name] as Readable, (line) => {
        run.onLine?.(line);
        said[name].add(`${line}\n`);
      });
    }
    const status = await ended;
    signal.throwIfAborted();
    if (timeout.aborted) {
      throw new StrataError("Timeout", `${args.slice(0, 2).join(" ")} did not finish within ${timeoutMs} ms`);
    }
    return { status, stdout: said.stdout.text, stderr: said.stderr.text };
  } finally {
    stop.removeEventListener("abort", kill);
    kill();
    await cgroups.kill(group);
  }
}

/** A line without an end is told in pieces. */
function followLines(stream: Readable, onLine: (line: string) => void): void {
  let partial = "";
  stream.setEncoding("utf8").on("data", (text: string) => {
    const lines = (partial + text).split(/\r?\n|\r/);
    partial = lines.pop() ?? "";
    lines.forEach(onLine);
    if (partial.length <= maxLineChars) return;
    onLine(partial);
    partial = "";
  });
  stream.on("end", () => {
    if (partial !== "") onLine(partial);
  });
}
