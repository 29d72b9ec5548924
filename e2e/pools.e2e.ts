/**
 * Storage pools on small real file systems: what can be one, what snapshots cost there, and that writers of a container
 * and of a virtual machine wait when the pool fills in the middle, lose nothing, and go on when there is space.
 */
import { chmod, chown, mkdir, readdir, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import type { PoolPlace } from "../src/host/disks/data-files.ts";
import type { Disks } from "../src/host/disks/disks.ts";
import { createPools } from "../src/host/pools/local-pools.ts";
import type { PoolRequest } from "../src/host/pools/pools.ts";
import { run } from "../src/host/run.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { PoolScene, type SmallFileSystem } from "./pool-scene.ts";
import { QemuBench } from "./qemu-bench.ts";
import { openTestDriver } from "./qemu-test-driver.ts";
import { until } from "./test-daemon.ts";

const signal = new AbortController().signal;
const ids = { idBase: 1_500_000, idCount: 65_536 };
const noImage = () => Promise.reject(new Error("no image is needed"));
let before: Snapshot;
let scene: PoolScene;
let disks: Disks;
let state: string;
const paths = new Map<SmallFileSystem, string>();

beforeAll(async () => {
  before = await takeSnapshot();
  scene = await PoolScene.create();
  state = join(scene.directory, "state");
  await mkdir(state);
  disks = createDisks({
    directory: join(state, "volumes"),
    images: { containerTree: noImage, vmDisk: noImage },
    clock: systemClock,
  });
  for (const type of ["ext4", "xfs", "btrfs"] as const) {
    paths.set(type, await scene.fileSystem(type, type, 320));
  }
}, 60_000);

afterAll(async () => {
  for (const uid of await disks.list()) await disks.remove(uid, signal);
  await scene.dispose();
  expect(await findLeaks(before, [scene.directory])).toEqual([]);
}, 60_000);

const pools = () => createPools({ own: [state] });

function request(path: string, change: Partial<PoolRequest> = {}): PoolRequest {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return { uid: `p${name}`, name, path, type: "directory", reflink: "auto", prepared: false, ...change };
}

async function sh(script: string, ...args: string[]): Promise<string> {
  return (await run("sh", ["-euc", script, "sh", ...args], { timeoutMs: 120_000 })).stdout.trim();
}

/** As the guest's own root. */
function inside(tree: string, script: string): Promise<string> {
  const user = ["--reuid", ids.idBase, "--regid", ids.idBase, "--clear-groups"].join(" ");
  return sh(`cd "$1"; exec setpriv ${user} sh -euc "$2"`, tree, script);
}

describe("what can be a pool", () => {
  it.each([
    ["ext4", false],
    ["xfs", true],
    ["btrfs", true],
  ] as const)("%s is known, and whether files share blocks there is tried", async (type, reflink) => {
    const path = paths.get(type) ?? "";
    expect(await pools().open(request(path), signal)).toEqual({ fileSystem: type, reflink });
    expect(await pools().open(request(path, { prepared: true }), signal), "again").toMatchObject({ reflink });
    expect((await readdir(path)).filter((name) => name !== "lost+found")).toEqual(["strata-pool.json"]);
    const usage = await pools().usage(request(path));
    expect(usage.capacityBytes).toBeGreaterThan(200 * 1024 ** 2);
    expect(usage.allocatedBytes).toBe(0);
  });

  it("nothing else is, each with one reason, and nothing is left there", async () => {
    const ext4 = paths.get("ext4") ?? "";
    const at = (name: string) => join(scene.directory, name);
    await symlink(ext4, at("link"));
    await symlink(scene.directory, at("way"));
    for (const name of ["others", "writable", "plain", "above"]) await mkdir(at(name), { mode: 0o755 });
    await chown(at("others"), 1000, 1000);
    await mkdir(join(at("others"), "inner"), { mode: 0o755 });
    await chmod(at("writable"), 0o777);
    await mkdir(join(state, "inner"));
    await sh('echo text > "$1"', at("file"));
    const refused: [PoolRequest, string, RegExp][] = [
      [request(at("missing")), "Invalid", /missing does not exist; make the directory first/],
      [request(join(at("file"), "inner")), "Invalid", /leads through something that is no directory/],
      [request(at("file")), "Invalid", /is no directory/],
      [request(at("link")), "Invalid", /is a way over symbolic links to .*\/ext4; name that one/],
      [request(join(at("way"), "plain")), "Invalid", /is a way over symbolic links/],
      [request(join(state, "inner")), "Invalid", /is inside Strata's own directory/],
      [request(scene.directory), "Invalid", /holds Strata's own directory/],
      [request(at("others")), "Invalid", /can be changed by others: .* belongs to user 1000/],
      [
        request(join(at("others"), "inner")),
        "Invalid",
        /can be changed by others: .*\/others belongs to user 1000/,
      ],
      [request(at("writable")), "Invalid", /can be changed by others: .* is writable for them/],
      [request("/dev/shm"), "Unsupported", /is on tmpfs, which keeps nothing|can be changed by others/],
      [request("/proc/sys"), "Unsupported", /is on proc, which keeps nothing/],
      [request(ext4, { reflink: "required" }), "Unsupported", /is on ext4, where files cannot share blocks/],
      [request(ext4, { type: "nfs" }), "Unavailable", /is on ext4, not on NFS; is it mounted\?/],
      [request(ext4, { uid: "another" }), "Conflict", /is the directory of another pool \(pext4\)/],
      [
        request(at("plain"), { prepared: true }),
        "Unavailable",
        /has no strata-pool\.json; is its file system mounted\?/,
      ],
    ];
    for (const [asked, code, message] of refused) {
      const error = await pools()
        .open(asked, signal)
        .catch((failure) => failure);
      expect.soft([asked.path, error.message]).toEqual([asked.path, expect.stringMatching(message)]);
      if (asked.path !== "/dev/shm") expect.soft([asked.path, error.code]).toEqual([asked.path, code]);
    }
    expect(await readdir(at("plain"))).toEqual([]);
    expect(await readdir(at("writable"))).toEqual([]);
  });
});

describe.each(["ext4", "xfs", "btrfs"] as const)("a pool on %s", (type) => {
  const place = (): PoolPlace => request(paths.get(type) ?? "");
  const uid = (name: string) => `${type}${name}`;
  const volume = (name: string, more: object = {}) =>
    ({ uid: uid(name), sizeMib: 96, fileSystem: "ext4", pool: place(), ...more }) as const;

  it("holds volumes and their snapshots, which share blocks where they can, and nothing of them afterwards", async () => {
    await pools().open(request(place().path), signal);
    const tree = await disks.mountData(volume("data"), ids, signal);
    await inside(
      tree,
      "dd if=/dev/urandom of=rows bs=1M count=40 conv=fsync status=none; sha256sum rows > sum",
    );
    const free = await scene.freeMib(place().path);
    const begun = systemClock.monotonicMs();
    expect(await disks.copyData(uid("data"), uid("snap"), signal, place())).toMatchObject({ frozen: true });
    const tookMs = Math.round(systemClock.monotonicMs() - begun);
    await sh('sync -f "$1"', place().path);
    const taken = free - (await scene.freeMib(place().path));
    console.log(`${type}: snapshot of 40 MiB written: ${tookMs} ms, ${taken} MiB more`);
    if (type === "ext4") expect(taken).toBeGreaterThan(30);
    else expect(taken).toBeLessThan(10);
    const names = await readdir(place().path);
    expect(names).toEqual(expect.arrayContaining([`${uid("data")}.raw`, `${uid("snap")}.raw`]));
    const { allocatedBytes } = await pools().usage(place());
    expect(allocatedBytes).toBeGreaterThan(80 * 1024 ** 2);

    await inside(tree, "echo later > rows");
    const clone = { ...volume("clone"), sizeMib: 128 };
    await disks.copyData(uid("snap"), uid("clone"), signal, place());
    expect(await inside(await disks.mountData(clone, ids, signal), "sha256sum --check sum")).toBe("rows: OK");

    const other = paths.get(type === "ext4" ? "xfs" : "ext4") ?? "";
    await pools().open(request(other), signal);
    await expect(disks.lendData({ ...volume("data"), pool: request(other) }, signal)).rejects.toMatchObject({
      code: "Conflict",
    });
    for (const name of ["data", "snap", "clone"]) await disks.remove(uid(name), signal);
    expect((await readdir(place().path)).filter((name) => name.includes(".raw"))).toEqual([]);
  });

  it("that is not mounted is not taken for empty: nothing is made, lost or removed", async () => {
    const { path } = place();
    await disks.lendData(volume("away"), signal);
    await scene.unmount(path);
    for (const attempt of [
      () => disks.lendData(volume("away"), signal),
      () => disks.mountData(volume("away"), ids, signal),
      () => disks.lendData(volume("new"), signal),
      () => disks.copyData(uid("away"), uid("copy"), signal, place()),
      () => disks.remove(uid("away"), signal),
    ]) {
      await expect(attempt()).rejects.toMatchObject({
        code: "Unavailable",
        message: expect.stringContaining("is its file system mounted?"),
      });
    }
    expect(await readdir(path)).toEqual([]);
    await scene.mount(type, path);
    await disks.lendData(volume("away"), signal);

    await disks.lendData(volume("lost"), signal);
    const left: string[] = [];
    const lost = { has: (directory: string) => directory === path, left: (file: string) => left.push(file) };
    await scene.unmount(path);
    await disks.remove(uid("lost"), signal, lost);
    expect([left, await readdir(path)]).toEqual([[join(path, `${uid("lost")}.raw`)], []]);
    await scene.mount(type, path);
    expect(await readdir(path), "what is said to be lost is left as it is").toContain(`${uid("lost")}.raw`);
    await rm(join(path, `${uid("lost")}.raw`));
    await disks.remove(uid("away"), signal);
  });

  it("that is full refuses what does not fit, and nothing of it is left", async () => {
    const { path } = place();
    const tree = await disks.mountData(volume("data"), ids, signal);
    await inside(tree, "dd if=/dev/urandom of=rows bs=1M count=60 conv=fsync status=none");
    await scene.fill(path, 30);
    const full = volume("full", { allocation: "full" });
    await expect(disks.lendData(full, signal)).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("no space left"),
    });
    if (type === "ext4") {
      await expect(disks.copyData(uid("data"), uid("copy"), signal, place())).rejects.toMatchObject({
        code: "Unavailable",
        message: expect.stringContaining("no space left"),
      });
    }
    const files = (await readdir(path)).filter((name) => name.includes(".raw"));
    expect(files).toEqual([`${uid("data")}.raw`]);
    for (const name of ["data", "full", "copy"]) await disks.remove(uid(name), signal);
    await scene.unfill(path);
  });
});

it("a virtual machine is paused where the directory of its root fills, and goes on by itself", async () => {
  const place = paths.get("ext4") ?? "";
  const root = join(place, "root.qcow2");
  await run("qemu-img", ["create", "-q", "-f", "qcow2", root, "200M"]);
  const bench = await QemuBench.create();
  const driver = await openTestDriver(bench.host);
  try {
    const made = await bench.makeGuest();
    if (made.root.type !== "disk") throw new Error("a virtual machine has a disk");
    const spec = { ...made, root: { ...made.root, path: root } };
    await driver.start(await driver.create(spec, signal), signal);
    await bench.untilReady(spec.uid, 60_000);
    await scene.fill(place, 60);
    const fill = "yes 0123456789abcde | head -c 125829120 | dd of=/dev/vda bs=1M conv=fsync 2>/dev/null";
    const sum = "head -c 125829120 /dev/vda | sha256sum";
    const written = bench.ask(spec.uid, `${fill} && echo 3 > /proc/sys/vm/drop_caches && ${sum}`);
    await until("it is full", async () => (await scene.freeMib(place)) < 2, 60_000, 100);
    await scene.unfill(place);
    expect(await written).toBe(
      await sh("yes 0123456789abcde | head -c 125829120 | sha256sum").then((text) => `${text}\n`),
    );
  } finally {
    for (const guest of await driver.list()) await driver.destroy(guest.handle, signal);
    await bench.dispose();
    await rm(root);
  }
}, 150_000);

it("a virtual machine whose volume's pool fills is paused, loses nothing and goes on by itself", async () => {
  const pool = request(paths.get("xfs") ?? "");
  const path = await disks.lendData({ uid: "vmdisk", sizeMib: 200, pool }, signal);
  const bench = await QemuBench.create();
  const driver = await openTestDriver(bench.host);
  try {
    const volume = { type: "disk" as const, id: "vmdisk" as never, path };
    const spec = await bench.makeGuest({ volumes: [volume] });
    await driver.start(await driver.create(spec, signal), signal);
    await bench.untilReady(spec.uid, 60_000);
    const find = "disk=/dev/$(ls /sys/block | grep sd | head -n 1)";
    await scene.fill(pool.path, 60);
    // 150 MiB whose content is known, of which the pool has room for less than half.
    const written = bench.ask(
      spec.uid,
      `${find}; yes 0123456789abcde | head -c 157286400 | dd of=$disk bs=1M conv=fsync 2>/dev/null && echo written`,
    );
    await until("the pool is full", async () => (await scene.freeMib(pool.path)) < 2, 60_000, 100);
    await scene.unfill(pool.path);
    expect(await written).toBe("written\n");
    const wanted = await sh("yes 0123456789abcde | head -c 157286400 | sha256sum");
    expect(await sh('head -c 157286400 "$1" | sha256sum', path)).toBe(wanted);
  } finally {
    for (const guest of await driver.list()) await driver.destroy(guest.handle, signal);
    await bench.dispose();
    await disks.remove("vmdisk", signal);
  }
}, 150_000);
