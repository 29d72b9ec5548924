/**
 * Volumes' disks for real: files with a file system, loop devices, shifted mounts, growth, kill -9 in the middle.
 * STRATA_DISK_KILLS says how many kills, STRATA_SEED when.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { checkRestored } from "../src/host/backups/restored-disk.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import { volumeMountsScript } from "../src/host/disks/data-disks.ts";
import type { Disks } from "../src/host/disks/disks.ts";
import { run } from "../src/host/run.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";

const signal = new AbortController().signal;
const ids = { idBase: 1_500_000, idCount: 65_536 };
const kills = Number(process.env.STRATA_DISK_KILLS ?? 15);
const seed = Number(process.env.STRATA_SEED ?? 5);
let directory: string;
let before: Snapshot;
let disks: Disks;

beforeAll(async () => {
  before = await takeSnapshot();
  directory = await mkdtemp("/var/tmp/strata-data-disks-");
  disks = createDisks({ directory, images: noImages });
});
afterAll(async () => {
  for (const uid of await disks.list()) await disks.remove(uid, signal);
  await rm(directory, { recursive: true });
  expect(await findLeaks(before, [directory])).toEqual([]);
});

const noImages = {
  containerTree: () => Promise.reject(new Error("no image is needed")),
  vmDisk: () => Promise.reject(new Error("no image is needed")),
};

async function sh(script: string, ...args: string[]): Promise<string> {
  return (await run("sh", ["-euc", script, "sh", ...args])).stdout.trim();
}

/** As the guest's own root, for whom alone the mount is. Descriptor 9 leads to the file `told`. */
function inside(tree: string, script: string, told = "/dev/null"): Promise<string> {
  const user = ["--reuid", ids.idBase, "--regid", ids.idBase, "--clear-groups"].join(" ");
  return sh(`cd "$1"; exec 9>>"$3"; exec setpriv ${user} sh -euc "$2"`, tree, script, told);
}

describe.each(["ext4", "xfs"] as const)("a volume with %s", (fileSystem) => {
  const volume = (uid: string, sizeMib = 512) => ({ uid: `${fileSystem}${uid}`, sizeMib, fileSystem });

  it("is a mount whose owners are shifted, and the same bytes as a disk", async () => {
    const request = volume("both");
    const tree = await disks.mountData(request, ids, signal);
    expect(await disks.mountData(request, ids, signal)).toBe(tree);
    expect((await stat(tree)).uid).toBe(ids.idBase);
    await inside(tree, "echo kept > file");
    await sh('chown "$2" "$1/file"', tree, String(ids.idBase + 7));

    const path = await disks.lendData(request, signal);
    expect(await sh('losetup -j "$1"', path)).toBe("");
    // As a virtual machine would: its own ids, nothing shifted.
    const mnt = join(directory, "mnt");
    const options = fileSystem === "xfs" ? "loop,nouuid" : "loop";
    await sh('mkdir -p "$2"; mount -o "$3" "$1" "$2"', path, mnt, options);
    expect(await sh('stat -c %u "$1/file"; cat "$1/file"; echo more > "$1/file"', mnt)).toBe("7\nkept");
    await expect(disks.mountData(request, ids, signal)).rejects.toMatchObject({ code: "Conflict" });
    await sh('umount "$1"; rmdir "$1"', mnt);

    expect(await sh('cat "$1/file"', await disks.mountData(request, ids, signal))).toBe("more");
  });

  it("grows while it is mounted and written to, and does not shrink", async () => {
    const tree = await disks.mountData(volume("grown", 320), ids, signal);
    const mayGrow = fileSystem === "xfs" || (await hasSysResource());
    const writer = inside(tree, "for i in $(seq 200); do echo $i >> rows; sync rows; done");
    const growth = disks.mountData(volume("grown", 1024), ids, signal);
    if (mayGrow) await growth;
    else await expect(growth).rejects.toMatchObject({ code: "Unsupported" });
    await writer;
    if (!mayGrow) {
      await disks.releaseData(`${fileSystem}grown`, signal);
      await disks.mountData(volume("grown", 1024), ids, signal);
    }
    expect(Number(await sh('df --output=size -m "$1" | tail -1', tree))).toBeGreaterThan(800);
    expect(await sh('wc -l < "$1/rows"', tree)).toBe("200");
    await expect(disks.mountData(volume("grown", 512), ids, signal)).rejects.toMatchObject({
      code: "Invalid",
      message: expect.stringContaining("cannot shrink"),
    });
  });

  it("that a virtual machine has damaged is not mounted", async () => {
    const path = await disks.lendData(volume("damaged"), signal);
    await sh('dd if=/dev/urandom of="$1" bs=1M count=64 conv=notrunc status=none', path);
    await expect(disks.mountData(volume("damaged"), ids, signal)).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("damaged"),
    });
  });
});

describe.each(["ext4", "xfs"] as const)("a snapshot of %s", (fileSystem) => {
  it("taken under a writer holds every row that was acknowledged before, and is whole", async () => {
    const volume = { uid: `${fileSystem}rows`, sizeMib: 512, fileSystem };
    const tree = await disks.mountData(volume, ids, signal);
    const progress = join(directory, `${fileSystem}.acknowledged`);
    // A row counts once it is on disk; what is acknowledged is told outside of the volume.
    const rows = `i=0; while [ ! -e stop ]; do i=$((i + 1)); echo "$i $(echo $i | sha256sum)" >> rows; sync rows; echo $i >&9; done`;
    await sh('touch "$1"', progress);
    const writer = inside(tree, rows, progress);
    const acknowledged = async () => Number((await sh('tail -n 1 "$1"', progress)) || 0);
    const taken: { uid: string; atLeast: number; heldMs: number }[] = [];
    for (const number of [1, 2, 3]) {
      const before = await acknowledged();
      await until(async () => (await acknowledged()) > before + 20);
      const uid = `${fileSystem}snap${number}`;
      const [atLeast, begun] = [await acknowledged(), systemClock.monotonicMs()];
      expect(await disks.copyData(volume.uid, uid, signal)).toMatchObject({ frozen: true });
      taken.push({ uid, atLeast, heldMs: Math.round(systemClock.monotonicMs() - begun) });
    }
    await inside(tree, "touch stop");
    await writer;
    console.log(`${fileSystem}: ${JSON.stringify(taken)} of ${await acknowledged()} rows`);
    const check =
      'while read -r row sum rest; do [ "$(echo $row | sha256sum | cut -d" " -f1)" = $sum ] || exit 1; last=$row; done < rows; echo $last';
    // As from a backup: whoever has such a file does not know that it was frozen, and not closed.
    const fromBackup = { ...volume, uid: `${fileSystem}restored` };
    const [{ uid: first = "" } = {}] = taken;
    const outside = join(directory, "restored.raw");
    const fill = (path: string) =>
      sh('cp --sparse=always "$1" "$2"', join(directory, first, "data.raw"), path);
    await fill(outside);
    expect(await checkRestored(outside, fileSystem, signal)).toBeUndefined();
    await rm(outside);
    await disks.fillData(fromBackup, async (path) => void (await fill(path)), signal);
    taken.push({ uid: fromBackup.uid, atLeast: taken[0]?.atLeast ?? 0, heldMs: 0 });
    for (const { uid, atLeast } of taken) {
      const copy = await disks.mountData({ ...volume, uid }, ids, signal);
      expect(Number(await inside(copy, check))).toBeGreaterThanOrEqual(atLeast);
    }
    expect(Number(await inside(tree, check))).toBe(await acknowledged());
  });
});

it("writers go on after a keeper was killed while they were held", async () => {
  const request = { uid: "held", sizeMib: 64, fileSystem: "ext4" } as const;
  const tree = await disks.mountData(request, ids, signal);
  await run("fsfreeze", ["--freeze", tree]);
  const writer = inside(tree, "echo written > file; sync file; cat file");
  await createDisks({ directory, images: noImages }).recover();
  expect(await writer).toBe("written");
});

it("fifty copies at once take little more room than one where blocks can be shared", async () => {
  const mount = join(directory, "reflink");
  await sh(
    'truncate -s 4G "$1.img"; mkfs.xfs -q -m reflink=1 "$1.img"; mkdir -p "$1"; mount -o loop "$1.img" "$1"',
    mount,
  );
  try {
    const sharing = createDisks({ directory: join(mount, "volumes"), images: noImages });
    const path = await sharing.lendData({ uid: "origin", sizeMib: 256 }, signal);
    await sh('dd if=/dev/urandom of="$1" bs=1M count=200 conv=notrunc,fsync status=none', path);
    const used = async () => Number(await sh('df --output=used -m "$1" | tail -1', mount));
    const [before, begun] = [await used(), systemClock.monotonicMs()];
    await Promise.all(
      Array.from({ length: 50 }, (_, number) => sharing.copyData("origin", `copy${number}`, signal)),
    );
    const tookMs = Math.round(systemClock.monotonicMs() - begun);
    await sh('sync -f "$1"', mount);
    const grownMib = (await used()) - before;
    console.log(`50 copies of 200 MiB: ${grownMib} MiB more, ${tookMs} ms`);
    expect(grownMib).toBeLessThan(40);
    await sh('cmp "$1/origin/data.raw" "$1/copy49/data.raw"', join(mount, "volumes"));
  } finally {
    await sh('umount "$1"; rm -r "$1" "$1.img"', mount);
  }
});

it("goes into the mounts of a running process and out again, unless it is used there", async () => {
  const tree = await disks.mountData({ uid: "plugged", sizeMib: 64, fileSystem: "ext4" }, ids, signal);
  // A guest's mounts: a root of its own, in which the host's mounts are not.
  const root = join(directory, "root");
  await sh('mkdir -p "$1"', root);
  const script =
    'mount -t tmpfs root "$1"; mkdir "$1/old" "$1/bin"; cp /bin/busybox "$1/bin"; cd "$1"; pivot_root . old; exec /bin/busybox sh -c "/bin/busybox umount -l /old; read x; cd /srv/data; read x"';
  const guest = spawn("unshare", ["--mount", "--propagation", "private", "sh", "-euc", script, "sh", root], {
    stdio: ["pipe", "ignore", "inherit"],
  });
  const pid = String(guest.pid);
  const mounts = () => sh('grep -c srv/data "/proc/$1/mountinfo" || true', pid);
  try {
    await until(async () => (await sh('grep -c . "/proc/$1/mountinfo"', pid)) === "1");
    for (let repeat = 0; repeat < 2; repeat++) {
      await run("perl", [volumeMountsScript, "plug", pid, tree, "/srv/data", String(ids.idBase)]);
    }
    expect(await mounts()).toBe("1");
    expect((await stat(`/proc/${pid}/root/srv`)).uid).toBe(ids.idBase);
    guest.stdin?.write("\n");
    await until(async () => (await sh('readlink "/proc/$1/cwd"', pid)) === "/srv/data");
    const unplug = () => run("perl", [volumeMountsScript, "unplug", pid, tree], { expected: [0, 16] });
    expect((await unplug()).status).toBe(16);
    await expect(disks.releaseData("plugged", signal)).rejects.toMatchObject({ code: "Conflict" });
    guest.kill("SIGKILL");
    await once(guest, "exit");
    await disks.releaseData("plugged", signal);
    expect(await sh('losetup -j "$1"', join(directory, "plugged", "data.raw"))).toBe("");
  } finally {
    guest.kill("SIGKILL");
    await rm(root, { recursive: true, force: true });
  }
});

it(`is complete or absent after ${kills} kills at any moment`, { timeout: 900_000 }, async () => {
  const random = seededRandom(seed);
  const child = fileURLToPath(new URL("data-disks-child.ts", import.meta.url));
  for (let round = 0; round < kills; round++) {
    const uid = `killed${round % 3}`;
    const process_ = spawn(process.execPath, [child, directory, uid], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const ended = once(process_, "exit");
    await once(process_.stdout, "data");
    await systemClock.sleep(randomInt(random, 150));
    process_.kill("SIGKILL");
    await ended;
    await disks.releaseData(uid, signal);
    const tree = await disks.mountData({ uid, sizeMib: 256, fileSystem: "ext4" }, ids, signal);
    expect(Number(await sh('df --output=size -m "$1" | tail -1', tree))).toBeGreaterThan(200);
    expect(
      await sh(
        'grep -c "/$1/tree " /proc/self/mountinfo; grep -c "/$1/plain " /proc/self/mountinfo || true',
        uid,
      ),
    ).toBe("1\n0");
    await disks.remove(uid, signal);
  }
});

/** What the kernel asks for to grow a mounted ext4; not every container or sandbox lets its root have it. */
async function hasSysResource(): Promise<boolean> {
  const mask = /^CapEff:\s+([0-9a-f]+)$/m.exec(await readFile("/proc/self/status", "utf8"))?.[1] ?? "0";
  return ((BigInt(`0x${mask}`) >> 24n) & 1n) === 1n;
}

async function until(condition: () => Promise<boolean>): Promise<void> {
  for (const deadline = systemClock.monotonicMs() + 10_000; !(await condition()); ) {
    expect(systemClock.monotonicMs()).toBeLessThan(deadline);
    await systemClock.sleep(20);
  }
}
