/** Volumes' disks for real: files with a file system, loop devices, shifted mounts, growth, kill -9 in the middle. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import { volumeMountsScript } from "../src/host/disks/data-disks.ts";
import type { Disks } from "../src/host/disks/disks.ts";
import { run } from "../src/host/run.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";

const signal = new AbortController().signal;
const ids = { idBase: 1_500_000, idCount: 65_536 };
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

/** As the guest's own root, for whom alone the mount is. */
function inside(tree: string, script: string): Promise<string> {
  const user = ["--reuid", ids.idBase, "--regid", ids.idBase, "--clear-groups"].join(" ");
  return sh(`cd "$1"; exec setpriv ${user} sh -euc "$2"`, tree, script);
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

it("is complete or absent after kill -9 at any moment", async () => {
  const random = seededRandom(5);
  const child = fileURLToPath(new URL("data-disks-child.ts", import.meta.url));
  for (let round = 0; round < 15; round++) {
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
