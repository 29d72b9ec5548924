/**
 * How long a snapshot and a clone of a volume take, beside qemu-img's ways, on a file system that shares blocks (xfs) and on
 * one that does not (ext4). The volume is mounted, as for a container, and 200 MiB of it are written. Needs root, loop
 * devices, xfsprogs and qemu-utils.
 *
 *   node bench/storage.ts [--rounds 7]
 */
import { mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { systemClock } from "../src/core/clock.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import { run } from "../src/host/run.ts";
import { median } from "./statistics.ts";

const { values } = parseArgs({ options: { rounds: { type: "string", default: "7" } } });
const rounds = Number(values.rounds);
const signal = new AbortController().signal;
const ids = { idBase: 1_500_000, idCount: 65_536 };
const noImage = () => Promise.reject(new Error("no image is needed"));

const directory = await mkdtemp("/var/tmp/strata-bench-storage-");
try {
  for (const host of ["xfs", "ext4"] as const) await measure(host);
} finally {
  await rm(directory, { recursive: true });
}

async function measure(host: "xfs" | "ext4"): Promise<void> {
  const image = join(directory, `${host}.img`);
  const mount = join(directory, host);
  await sh('truncate -s 8G "$1"; mkfs.$2 -q "$1"; mkdir "$3"; mount -o loop "$1" "$3"', image, host, mount);
  const disks = createDisks({
    directory: join(mount, "volumes"),
    images: { containerTree: noImage, vmDisk: noImage },
  });
  try {
    const volume = { uid: "origin", sizeMib: 512, fileSystem: "ext4" } as const;
    const tree = await disks.mountData(volume, ids, signal);
    const write =
      'cd "$1"; exec setpriv --reuid "$2" --regid "$2" --clear-groups dd if=/dev/urandom of=data bs=1M count=200 conv=fsync status=none';
    await sh(write, tree, String(ids.idBase));
    const raw = join(mount, "volumes", "origin", "data.raw");
    const qcow2 = join(mount, "peer.qcow2");
    await run("qemu-img", ["convert", "-f", "raw", "-O", "qcow2", raw, qcow2]);
    const ways: Record<string, (round: number) => Promise<unknown>> = {
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
    for (const uid of await disks.list()) await disks.remove(uid, signal);
    await sh('umount "$1"', mount);
  }
}

async function sh(script: string, ...args: string[]): Promise<void> {
  await run("sh", ["-euc", script, "sh", ...args], { timeoutMs: 300_000 });
}
