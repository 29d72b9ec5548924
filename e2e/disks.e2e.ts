/**
 * Root disks for real: loop devices, overlay mounts, qcow2 overlays, kill -9 in the middle. STRATA_DISK_KILLS says how many
 * kills, STRATA_SEED when.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { chmod, chown, mkdir, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import type { GuestRoot } from "../src/drivers/driver.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import type { Disks, RootDiskRequest } from "../src/host/disks/disks.ts";
import { mountPoints } from "../src/host/disks/mounts.ts";
import type { ImageStore } from "../src/host/images/image-store.ts";
import { ImagesBox, idBase, make, sh, signal, upload } from "./images-box.ts";
import { tinyImage } from "./tiny-image.ts";

const kills = Number(process.env.STRATA_DISK_KILLS ?? 6);
const seed = Number(process.env.STRATA_SEED ?? 7);
const rebuildKills = Number(process.env.STRATA_DISK_KILLS ?? 12);
let box: ImagesBox;
let images: ImageStore;
let disks: Disks;
let imageDigest: string;
let directory: string;

beforeAll(async () => {
  box = await ImagesBox.create();
  images = await box.store();
  imageDigest = (await make(images, upload(), await tinyImage())).digest;
  directory = join(box.directory, "volumes");
});
beforeEach(() => {
  disks = createDisks({ directory, images });
});
afterAll(async () => {
  for (const uid of await disks.list()) await disks.remove(uid, signal);
  expect(box.leaks()).toEqual([]);
  await box.remove();
});

function container(uid: string, sizeMib = 64): RootDiskRequest {
  return { uid, type: "container", sizeMib, imageDigest };
}

async function treeOf(request: RootDiskRequest): Promise<string> {
  const root = await disks.ensureRoot(request, signal);
  if (root.type !== "tree") throw new Error("a container's root is a tree");
  return root.path;
}

describe("a container's root", () => {
  it("is the image's tree, writable for its guest alone", async () => {
    const first = await treeOf(container("one"));
    const second = await treeOf(container("two"));
    await sh('printf changed > "$1/etc/hosts"; rm "$1/etc/group"; touch "$1/new"', first);
    expect(await sh('cat "$1/etc/hosts"', second)).toBe("127.0.0.1 localhost");
    expect(await readdir(second)).not.toContain("new");
    const { path: lower } = await images.containerTree(imageDigest, signal);
    expect(await sh('cat "$1/etc/hosts"', lower)).toBe("127.0.0.1 localhost");
    const { uid, gid, mode } = await stat(first);
    expect([uid, gid, mode & 0o7777]).toEqual([idBase, idBase, 0o755]);
    // Set-user-id programs of guests are out of reach for the users of this host.
    expect((await stat(join(directory, "one"))).mode & 0o7777).toBe(0o710);
    expect((await stat(join(directory, "one"))).gid).toBe(idBase);
  });

  it("is limited to its size", async () => {
    const tree = await treeOf(container("small", 32));
    await expect(sh('head -c 100M /dev/zero > "$1/big"', tree)).rejects.toMatchObject({
      detail: /No space left on device/,
    });
    expect(await disks.usedBytes("small")).toBeLessThan(40 * 1024 ** 2);
    await sh('rm "$1/big"; sync -f "$1"', tree);
  });

  it("gives freed space back to the host", async () => {
    const tree = await treeOf(container("freed", 256));
    await sh('head -c 100M /dev/urandom > "$1/big"; sync -f "$1"', tree);
    expect(await disks.usedBytes("freed")).toBeGreaterThan(100 * 1024 ** 2);
    await sh('rm "$1/big"; sync -f "$1"', tree);
    // ext4 discards after the commit, in the background.
    const deadline = systemClock.monotonicMs() + 20_000;
    while ((await disks.usedBytes("freed")) > 60 * 1024 ** 2) {
      expect(systemClock.monotonicMs()).toBeLessThan(deadline);
      await systemClock.sleep(50);
    }
  });

  it("is mounted again after a reboot, with what the guest wrote", async () => {
    const tree = await treeOf(container("kept"));
    await sh('printf kept > "$1/root/file"', tree);
    await sh('umount "$1"; umount "$2"', tree, join(directory, "kept", "volume"));
    expect(await treeOf(container("kept"))).toBe(tree);
    expect(await sh('cat "$1/root/file"', tree)).toBe("kept");
    await sh('umount "$1"', tree); // the overlay alone
    expect(await treeOf(container("kept"))).toBe(tree);
    expect(await sh('cat "$1/root/file"', tree)).toBe("kept");
  });

  it("is made once for many callers at the same time", async () => {
    const roots = await Promise.all(Array.from({ length: 5 }, () => treeOf(container("many"))));
    expect(new Set(roots).size).toBe(1);
    expect(await sh('grep -c " $1 " /proc/self/mountinfo', roots[0] ?? "")).toBe("1");
  });

  it("is there within moments", async () => {
    const times: number[] = [];
    for (let number = 0; number < 10; number++) {
      const before = systemClock.monotonicMs();
      await treeOf(container(`quick${number}`, 10_240));
      times.push(systemClock.monotonicMs() - before);
    }
    const median = times.sort((a, b) => a - b)[5] ?? 0;
    console.log(
      `container root: median ${median.toFixed(0)} ms of ${times.map((time) => time.toFixed(0)).join(" ")}`,
    );
    expect(median).toBeLessThan(400); // 60 on an idle machine
  });

  it("is gone after removal, loop device included", async () => {
    await treeOf(container("gone"));
    expect(await disks.list()).toContain("gone");
    await disks.remove("gone", signal);
    await disks.remove("gone", signal);
    expect(await disks.list()).not.toContain("gone");
    expect(box.leaks().filter((line) => line.includes("/gone"))).toEqual([]);
    expect(await disks.usedBytes("gone")).toBe(0);
  });

  it("is not removed under a running guest", async () => {
    const tree = await treeOf(container("busy"));
    const guest = spawn("sleep", ["100"], { cwd: tree });
    await once(guest, "spawn");
    await expect(disks.remove("busy", signal)).rejects.toMatchObject({
      code: "Unavailable",
      message: /still in use/,
    });
    expect(await readdir(tree)).toContain("bin");
    guest.kill("SIGKILL");
    await once(guest, "exit");
    await disks.remove("busy", signal);
  });

  it("is not another one's for another request", async () => {
    await treeOf(container("mine"));
    await expect(disks.ensureRoot(container("mine", 65), signal)).rejects.toMatchObject({ code: "Conflict" });
    await expect(disks.ensureRoot({ ...container("mine"), type: "vm" }, signal)).rejects.toMatchObject({
      code: "Conflict",
    });
    await expect(
      treeOf({ ...container("x"), imageDigest: `sha256:${"0".repeat(64)}` }),
    ).rejects.toMatchObject({
      code: "NotFound",
    });
    await disks.remove("x", signal);
  });

  it(`is completed by the next call when kill -9 interrupts one, ${kills} times`, {
    timeout: 900_000,
  }, async () => {
    const random = seededRandom(seed);
    const script = new URL("./disks-child.ts", import.meta.url).pathname;
    for (let round = 0; round < kills; round++) {
      const args = [script, box.imageDir, `${idBase}`, directory, imageDigest];
      const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      await Promise.race([once(child.stdout, "data"), once(child, "close")]);
      await systemClock.sleep(randomInt(random, 300));
      child.kill("SIGKILL");
      await once(child, "close");
      for (const uid of (await disks.list()).filter((name) => name.startsWith("killed"))) {
        const type = Number(uid.slice(6)) % 2 ? "vm" : "container";
        const root = await disks.ensureRoot({ ...container(uid, 256), type }, signal);
        if (root.type === "tree")
          expect(await sh('cat "$1/etc/hosts"', root.path)).toBe("127.0.0.1 localhost");
        else await sh('qemu-img check -q "$1"', root.path);
        await disks.remove(uid, signal);
      }
    }
    const mounted = [...(await mountPoints())].filter((point) => point.includes("/killed"));
    expect(mounted).toEqual([]);
  });
});

describe("a root that is made anew", () => {
  const types = ["container", "vm"] as const;

  it.each(types)("%s: what was written is gone; another image is another content", async (type) => {
    const request = { ...container("anew", 256), type };
    const first = await disks.ensureRoot(request, signal);
    if (first.type === "tree") await sh('touch "$1/mine"', first.path);
    else if (first.type === "disk") await sh('qemu-io -f qcow2 -c "write 0 1M" "$1" >/dev/null', first.path);
    const used = await disks.usedBytes("anew");
    const second = await disks.ensureRoot({ ...request, generation: 1 }, signal);
    expect(second).toMatchObject({ type: first.type, path: first.path, generation: 1 });
    if (second.type === "tree") expect(await readdir(second.path)).not.toContain("mine");
    else expect(await disks.usedBytes("anew")).toBeLessThan(used);
    expect(await disks.ensureRoot({ ...request, generation: 1 }, signal)).toEqual(second);
    const back = disks.ensureRoot(request, signal);
    await expect(back).rejects.toMatchObject({ code: "Conflict" });
    const small = { ...request, generation: 2, sizeMib: 10 };
    await expect(disks.ensureRoot(small, signal)).rejects.toMatchObject({ code: "Conflict" });
    await disks.remove("anew", signal);
  });

  it(`is the old one or the new one, whenever kill -9 comes, ${rebuildKills} times`, {
    timeout: 900_000,
  }, async () => {
    const random = seededRandom(seed);
    const script = new URL("./disks-child.ts", import.meta.url).pathname;
    const seen = { old: 0, new: 0 };
    for (let round = 0; round < rebuildKills; round++) {
      const type = types[round % 2] ?? "vm";
      const request = { ...container("anew", 256), type };
      const first = await disks.ensureRoot(request, signal);
      if (first.type === "tree") await sh('touch "$1/mine"; sync -f "$1"', first.path);
      else if (first.type === "disk")
        await sh('qemu-io -f qcow2 -c "write -P 7 0 64k" "$1" >/dev/null', first.path);
      const args = [script, box.imageDir, `${idBase}`, directory, imageDigest, type];
      const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
      const closed = once(child, "close");
      await Promise.race([once(child.stdout, "data"), closed]);
      await systemClock.sleep(randomInt(random, 120));
      child.kill("SIGKILL");
      await closed;
      disks = createDisks({ directory, images });
      // As it was, unless the description names the new one already.
      const old = await disks.ensureRoot(request, signal).catch(() => undefined);
      if (old) {
        expect(await isMine(old)).toBe(true);
        seen.old++;
      } else seen.new++;
      const next = await disks.ensureRoot({ ...request, generation: 1 }, signal);
      expect(await isMine(next)).toBe(false);
      expect((await readdir(join(directory, "anew"))).filter((name) => /anew|new$/.test(name))).toEqual([]);
      await disks.remove("anew", signal);
    }
    expect(seen.old + seen.new).toBe(rebuildKills);
    expect(seen.old).toBeGreaterThan(0);
  });

  async function isMine(root: GuestRoot): Promise<boolean> {
    if (root.type === "tree") return (await readdir(root.path)).includes("mine");
    await sh('qemu-img check -q "$1"', root.path);
    const read = await sh('qemu-io -r -f qcow2 -c "read -P 7 0 64k" "$1" || true', root.path);
    return !/verification failed/i.test(read);
  }
});

describe("a VM's root", () => {
  it("is an overlay of the wanted size over the shared base, with the image's kernel", async () => {
    const root = await disks.ensureRoot({ ...container("vm", 1024), type: "vm" }, signal);
    const base = await images.vmDisk(imageDigest, signal);
    expect(root).toEqual({
      type: "disk",
      path: join(directory, "vm", "disk.qcow2"),
      format: "qcow2",
      boot: {
        kernel: base.boot?.kernel,
        initrd: base.boot?.initrd,
        commandLine: `root=${base.boot?.root} rw console=ttyS0 loglevel=4`,
      },
    });
    const info = JSON.parse(await sh('qemu-img info --output=json "$1"', root.path));
    expect(info).toMatchObject({
      "virtual-size": 1024 ** 3,
      "backing-filename": base.path,
      "backing-filename-format": "qcow2",
    });
    expect(await disks.usedBytes("vm")).toBeLessThan(1024 ** 2);
    await disks.remove("vm", signal);
  });

  it("is refused when the image does not fit", async () => {
    await expect(disks.ensureRoot({ ...container("tight", 10), type: "vm" }, signal)).rejects.toMatchObject({
      code: "Invalid",
      message: /at least 128 MiB; 10 MiB were asked for/,
    });
    await disks.remove("tight", signal);
  });

  it("boots", async () => {
    const root = await disks.ensureRoot({ ...container("boots", 512), type: "vm" }, signal);
    if (root.type !== "disk" || !root.boot?.initrd)
      throw new Error("the tiny image has a kernel and an initrd");
    const { kernel, initrd, commandLine } = root.boot;
    const machine = [
      "-M",
      "q35",
      "-accel",
      "tcg",
      "-cpu",
      "max",
      "-m",
      "256",
      "-nodefaults",
      "-display",
      "none",
    ];
    const vm = spawn(
      "qemu-system-x86_64",
      [
        ...machine,
        "-serial",
        "stdio",
        "-drive",
        `file=${root.path},if=virtio,format=qcow2`,
        "-no-reboot",
      ].concat([
        "-kernel",
        kernel,
        "-initrd",
        initrd,
        "-append",
        `${commandLine} tsc_early_khz=2000000 no_timer_check`,
      ]),
      { stdio: ["pipe", "pipe", "inherit"] },
    );
    try {
      let output = "";
      for await (const text of vm.stdout.setEncoding("utf8")) {
        output += text;
        if (output.includes("# ") && output.includes("tiny: ready")) break;
      }
      expect(output).toContain("tiny: ready");
    } finally {
      vm.kill("SIGKILL");
      if (vm.exitCode === null) await once(vm, "close");
    }
    await disks.remove("boots", signal);
  });
});

describe("a full disk", () => {
  it("is one clear error", async () => {
    const full = join(box.directory, "full");
    await mkdir(full);
    await sh('mount -t tmpfs -o size=1m,mode=711 full "$1"', full);
    try {
      const small = createDisks({ directory: join(full, "volumes"), images });
      expect((await small.capacity()).totalMib).toBe(1);
      const failure = await small.ensureRoot(container("c", 10_240), signal).catch((error: unknown) => error);
      expect(failure).toMatchObject({
        code: "Unavailable",
        message: expect.stringMatching(/no space left to make a root disk/),
      });
      await small.remove("c", signal);
      expect(await small.list()).toEqual([]);
    } finally {
      await sh('umount "$1"', full);
    }
  });
});

it("runs a guest's own programs as its own root only", async () => {
  const tree = await treeOf(container("own"));
  // As anybody else on this host would try to.
  await sh('cp "$1/bin/busybox" "$1/bin/suid"', tree);
  await chown(join(tree, "bin/suid"), idBase, idBase);
  await chmod(join(tree, "bin/suid"), 0o4755);
  const attempt = sh('setpriv --reuid 65534 --regid 65534 --clear-groups "$1/bin/suid" id -u', tree);
  await expect(attempt).rejects.toMatchObject({ detail: /Permission denied/ });
});
