/**
 * How long a snapshot and a clone of a volume, and the import of an image, take beside the ways of qemu-img, docker and
 * lxc-copy, on a file system that shares blocks (xfs) and on one that does not (ext4). The volume is mounted, as for a
 * container, and 200 MiB of it are written, as in the containers of the others. The image is the tests' root archive of 21
 * MiB. Rounds are interleaved. Needs root, loop devices, xfsprogs, qemu-utils, docker.io and lxc.
 *
 *   node bench/storage.ts [--rounds 5]
 */
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { tinyImage } from "../e2e/tiny-image.ts";
import { systemClock } from "../src/core/clock.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import { createImageStore } from "../src/host/images/create-image-store.ts";
import { run } from "../src/host/run.ts";
import { median } from "./statistics.ts";
import { dockerWays, lxcWays, type Way } from "./storage-peers.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "5" } } });
const rounds = Number(values.rounds);
const signal = new AbortController().signal;
const ids = { idBase: 1_500_000, idCount: 65_536 };
const noImage = () => Promise.reject(new Error("no image is needed"));

const writtenMib = 200;
const archive = await tinyImage();
const directory = await mkdtemp("/var/tmp/strata-bench-storage-");
try {
  for (const host of ["xfs", "ext4"] as const) await measure(host);
} finally {
  await rm(directory, { recursive: true });
}

async function measure(host: "xfs" | "ext4"): Promise<void> {
  const image = join(directory, `${host}.img`);
  const mount = join(directory, host);
  await sh('truncate -s 12G "$1"; mkfs.$2 -q "$1"; mkdir "$3"; mount -o loop "$1" "$3"', image, host, mount);
  const docker = await dockerWays(mount, archive, writtenMib);
  const disks = createDisks({
    directory: join(mount, "volumes"),
    images: { containerTree: noImage, vmDisk: noImage },
  });
  try {
    const volume = { uid: "origin", sizeMib: 512, fileSystem: "ext4" } as const;
    const tree = await disks.mountData(volume, ids, signal);
    const write =
      'cd "$1"; exec setpriv --reuid "$2" --regid "$2" --clear-groups dd if=/dev/urandom of=data bs=1M count=$3 conv=fsync status=none';
    await sh(write, tree, String(ids.idBase), String(writtenMib));
    const raw = join(mount, "volumes", "origin", "data.raw");
    const qcow2 = join(mount, "peer.qcow2");
    await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, qcow2]);
    const ways: Record<string, Way> = {
      "Strata snapshot, mounted and frozen": (round) => disks.copyData("origin", `snap${round}`, signal),
      "Strata clone of a snapshot": (round) => disks.copyData("snap0", `clone${round}`, signal),
      "qemu-img snapshot -c (qcow2, detached)": (round) =>
        run("qemu-img", ["snapshot", "-c", `s${round}`, qcow2]),
      "qemu-img create -b (overlay)": (round) =>
        run("qemu-img", [
          "create",
          "-q",
          "-f",
          "qcow2",
          "-b",
          qcow2,
          "-F",
          "qcow2",
          join(mount, `o${round}`),
        ]),
      "qemu-img convert (full copy)": (round) =>
        run("qemu-img", ["convert", "-f", "raw", "-O", "raw", raw, join(mount, `full${round}`)]),
      ...docker.snapshots,
      ...(await lxcWays(mount, archive, writtenMib)),
      "Strata image import": (round) => importImage(join(mount, `images${round}`)),
      ...docker.imports,
      "tar --extract (what lxc-create does)": (round) => extract(join(mount, `tree${round}`)),
    };
    const times = new Map<string, number[]>();
    for (let round = 0; round < rounds; round++) {
      for (const [name, way] of Object.entries(ways)) {
        await sh('sync -f "$1"', mount);
        const begun = systemClock.monotonicMs();
        await way(round);
        times.set(name, [...(times.get(name) ?? []), systemClock.monotonicMs() - begun]);
      }
    }
    for (const [name, all] of times) {
      console.log(
        `${host}  ${name}: median ${median(all).toFixed(0)} ms, at most ${Math.max(...all).toFixed(0)} ms`,
      );
    }
  } finally {
    await docker.end();
    for (const uid of await disks.list()) await disks.remove(uid, signal);
    await sh('umount "$1"', mount);
  }
}

/** Into a store without it: checked, hashed file by file, unpacked, and on disk when it returns. */
function importImage(imageDir: string): Promise<unknown> {
  const store = createImageStore({ imageDir, idBase: ids.idBase });
  const openUpload = async () => createReadStream(archive);
  return store.make(
    { type: "upload", upload: "tiny", format: "tar" },
    { signal, onProgress() {}, openUpload },
  );
}

async function extract(into: string): Promise<unknown> {
  await mkdir(into);
  return run("tar", ["--extract", "--file", archive, "--directory", into, "--numeric-owner"]);
}

async function sh(script: string, ...args: string[]): Promise<void> {
  await run("sh", ["-euc", script, "sh", ...args], { timeoutMs: 300_000 });
}
