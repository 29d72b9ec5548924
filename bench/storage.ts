/**
 * How long a snapshot and a clone of a volume, and the import of an image, take beside the ways of qemu-img, docker and
 * lxc-copy, on file systems that share blocks (xfs, btrfs) and on one that does not (ext4). The volume is mounted, as for a
 * container, and 200 MiB of it are written, as in the containers of the others. The image is the tests' root archive of 21
 * MiB, or the same as a qcow2. Rounds are interleaved, the first two are warm-up, and what a round has made goes away after
 * it, unmeasured; ratios are of pairs. Needs root, loop devices, xfsprogs, btrfs-progs, qemu-utils, docker.io, lxc and rsync.
 *
 *   node bench/storage.ts [--rounds 20] [--on xfs,ext4,btrfs]
 */
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { tinyImage } from "../e2e/tiny-image.ts";
import { systemClock } from "../src/core/clock.ts";
import { seededRandom } from "../src/core/random.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import type { Disks } from "../src/host/disks/disks.ts";
import { createImageStore } from "../src/host/images/create-image-store.ts";
import { run } from "../src/host/run.ts";
import { median, percentile, speedUp } from "./statistics.ts";
import { dockerWays, lxcCopy, qemuWays, type Way } from "./storage-peers.ts";

const { values } = parseArgs({
  options: {
    rounds: { type: "string", default: "20" },
    on: { type: "string", default: "xfs,ext4,btrfs" },
  },
});
const rounds = Number(values.rounds);
const warmUp = 2;
const signal = new AbortController().signal;
const ids = { idBase: 1_500_000, idCount: 65_536 };
const noImage = () => Promise.reject(new Error("no image is needed"));

const writtenMib = 200;
const archive = await tinyImage();
const directory = await mkdtemp("/var/tmp/strata-bench-storage-");
try {
  for (const host of values.on.split(",")) await measureOn(host);
} finally {
  await rm(directory, { recursive: true });
}

/** Ours first, then who is compared with it. */
type Contest = [Way, ...Way[]];

async function measureOn(host: string): Promise<void> {
  const image = join(directory, `${host}.img`);
  const mount = join(directory, host);
  await sh('truncate -s 12G "$1"; mkfs.$2 -q "$1"; mkdir "$3"; mount -o loop "$1" "$3"', image, host, mount);
  const docker = await dockerWays(mount, archive, writtenMib);
  const disks = createDisks({
    directory: join(mount, "volumes"),
    images: { containerTree: noImage, vmDisk: noImage },
  });
  try {
    const raw = await writtenVolume(disks, mount);
    const disk = await diskOfArchive(mount);
    const qemu = qemuWays(mount, raw, disk);
    await report(host, "snapshot", [
      copyWay(disks, "snapshot, mounted and frozen", "origin"),
      ...qemu.snapshot,
      docker.snapshot,
    ]);
    await disks.copyData("origin", "kept", signal);
    const lxc = await lxcCopy(mount, archive, writtenMib);
    await report(host, "clone", [copyWay(disks, "clone of a snapshot", "kept"), ...qemu.clone, lxc]);
    await report(host, "import", [importWay(mount, "tar", archive), docker.import, extractWay(mount)]);
    await report(host, "import", [importWay(mount, "qcow2", disk), ...qemu.import]);
  } finally {
    await docker.end();
    for (const uid of await disks.list()) await disks.remove(uid, signal);
    await sh('umount "$1"; rm "$2"', mount, image);
  }
}

async function report(host: string, what: string, contest: Contest): Promise<void> {
  const times = new Map<Way, number[]>(contest.map((way) => [way, []]));
  for (let round = 0; round < rounds + warmUp; round++) {
    for (const [way, all] of times) {
      await sh('sync -f "$1"', join(directory, host));
      const begun = systemClock.monotonicMs();
      await way.run(round);
      if (round >= warmUp) all.push(systemClock.monotonicMs() - begun);
    }
    for (const way of contest) await way.undo(round);
  }
  const [ours] = contest;
  const load = (await readFile("/proc/loadavg", "utf8")).split(" ")[0];
  console.log(`${host}, ${what}: ${rounds} rounds, load average ${load}`);
  for (const [way, all] of times) {
    const figures = `${median(all).toFixed(0)} | ${percentile(all, 0.95).toFixed(0)} | ${Math.min(...all).toFixed(0)}`;
    const { ratio, low, high } = speedUp(times.get(ours) ?? [], all, seededRandom(1));
    const faster = way === ours ? "" : `${ratio.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
    console.log(`| ${way.name} | ${figures} | ${faster} |`);
  }
}

/** @returns the raw disk of a volume that is mounted; a qcow2 of the same is beside it, for qemu-img. */
async function writtenVolume(disks: Disks, mount: string): Promise<string> {
  const volume = { uid: "origin", sizeMib: 512, fileSystem: "ext4" } as const;
  const tree = await disks.mountData(volume, ids, signal);
  const write =
    'cd "$1"; exec setpriv --reuid "$2" --regid "$2" --clear-groups dd if=/dev/urandom of=data bs=1M count=$3 conv=fsync status=none';
  await sh(write, tree, String(ids.idBase), String(writtenMib));
  const raw = join(mount, "volumes", "origin", "data.raw");
  await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, join(mount, "peer.qcow2")]);
  return raw;
}

async function diskOfArchive(mount: string): Promise<string> {
  const [tree, raw, disk] = ["disk-tree", "disk.raw", "disk.qcow2"].map((name) => join(mount, name));
  const script =
    'mkdir "$2"; tar --extract --file "$1" --directory "$2" --numeric-owner; truncate -s 128M "$3"; mke2fs -q -t ext4 -d "$2" "$3"; qemu-img convert -f raw -O qcow2 "$3" "$4"';
  await sh(script, archive, tree ?? "", raw ?? "", disk ?? "");
  return disk ?? "";
}

function copyWay(disks: Disks, name: string, from: string): Way {
  const uid = (round: number) => `${from}-copy${round}`;
  return {
    name: `Strata ${name}`,
    run: (round) => disks.copyData(from, uid(round), signal),
    undo: (round) => disks.remove(uid(round), signal),
  };
}

/** Into a store without it: checked, hashed file by file, unpacked, and on disk when it returns. */
function importWay(mount: string, format: "tar" | "qcow2", file: string): Way {
  const imageDir = (round: number) => join(mount, `images-${format}${round}`);
  return {
    name: `Strata import of a ${format}`,
    async run(round) {
      const store = createImageStore({ imageDir: imageDir(round), idBase: ids.idBase });
      await store.recover();
      const openUpload = async () => createReadStream(file);
      const options = { signal, project: "bench", onProgress() {}, openUpload };
      return store.make({ type: "upload", upload: "tiny", format }, options);
    },
    undo: (round) => rm(imageDir(round), { recursive: true, force: true }),
  };
}

function extractWay(mount: string): Way {
  const tree = (round: number) => join(mount, `tree${round}`);
  return {
    name: "tar --extract (what lxc-create does)",
    async run(round) {
      await mkdir(tree(round));
      return run("tar", ["--extract", "--file", archive, "--directory", tree(round), "--numeric-owner"]);
    },
    undo: (round) => rm(tree(round), { recursive: true, force: true }),
  };
}

async function sh(script: string, ...args: string[]): Promise<void> {
  await run("sh", ["-euc", script, "sh", ...args], { timeoutMs: 300_000 });
}
