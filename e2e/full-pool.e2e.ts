/**
 * A storage pool fills while a container writes to a volume in it, by the command line: the writer waits, everybody is told,
 * nothing that was acknowledged is lost, also when the daemon is killed meanwhile, and it goes on when there is space.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { run } from "../src/host/run.ts";
import { eventKind } from "../src/kinds/event.ts";
import { snapshotKind } from "../src/kinds/snapshot.ts";
import { type StoragePool, storagePoolKind } from "../src/kinds/storage-pool.ts";
import { type Volume, volumeKind } from "../src/kinds/volume.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { PoolScene } from "./pool-scene.ts";
import { TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
let before: Snapshot;
let daemon: TestDaemon;
let scene: PoolScene;
let path: string;

beforeAll(async () => {
  before = await takeSnapshot();
  scene = await PoolScene.create();
  path = await scene.fileSystem("small", "ext4", 320);
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  await daemon.ok(["launch", "tiny", "box", "--type", "container", "--memory", "256MiB", "--disk", "128MiB"]);
}, 200_000);

afterAll(async () => {
  await scene.unfill(path).catch(() => {});
  await daemon?.dispose();
  await scene.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 180_000);

const pool = (): Promise<StoragePool> => daemon.client.require(storagePoolKind, { name: "small" });
const volume = (name: string): Promise<Volume> => daemon.client.require(volumeKind, { project, name });
const isFull = async () =>
  (await pool()).status.conditions.some(({ type, status }) => type === "Full" && status === "true");

/** What was removed in the volume has gone back to the pool. */
async function emptied(): Promise<void> {
  const file = join(path, `${(await volume("rows")).metadata.uid}.raw`);
  await until(
    "the volume is empty",
    async () => (await stat(file)).blocks * 512 < 60 * 1024 ** 2,
    30_000,
    200,
  );
}

function inside(script: string) {
  return daemon.ok(["exec", "box", "--", "sh", "-ec", script], { timeoutMs: 120_000 });
}

it("is created where it can be, and not half where it cannot", async () => {
  for (const [where, why] of [
    ["srv/pool", /must be an absolute path/],
    ["/srv/../pool", /must be an absolute path/],
    [join(scene.directory, "missing"), /does not exist; make the directory first/],
    [daemon.settings.stateDir, /Strata's own directory/],
  ] as const) {
    const { status, stderr } = await daemon.strata(["pool", "create", "small", where]);
    expect(stderr).toMatch(why);
    expect(status).not.toBe(0);
    expect((await daemon.client.list(storagePoolKind, {})).items).toEqual([]);
  }
  const needy = await daemon.strata(["pool", "create", "small", path, "--reflink", "required"]);
  expect(needy.stderr).toContain("is on ext4, where files cannot share blocks");
  await daemon.ok(["pool", "create", "small", path, "--max-overcommit", "3"]);
  const inner = await daemon.strata(["pool", "create", "inner", join(path, "lost+found")]);
  expect(inner.stderr).toContain('is inside storage pool "small"');
});

it("refuses to promise more than it may, with the numbers", async () => {
  await daemon.ok(["volume", "create", "rows", "--size", "300MiB", "--pool", "small", "--instance", "box"]);
  const more = await daemon.strata(["volume", "create", "more", "--size", "900MiB", "--pool", "small"]);
  expect(more.stderr).toMatch(
    /may promise 8\d\d(\.\d)? MiB \(3 times that\), 300 MiB are promised, and this asks for 900 MiB/,
  );
  const used = await daemon.strata(["pool", "delete", "small", "--yes"]);
  expect(used.stderr).toContain('volume "rows" of project "default" uses it');
  await until("it is attached", async () => (await volume("rows")).status.state === "attached", 30_000);
});

it("lets a writer wait when it fills, says so, and lets it go on; every acknowledged row is there", async () => {
  await scene.fill(path, 130);
  // On its own, because its session ends with the daemon. A row is acknowledged once its sum is on disk as well.
  const row =
    "dd if=/dev/urandom of=row$row bs=1M count=1 conv=fsync; sha256sum row$row | dd of=sum$row conv=fsync";
  const rows = `cd /mnt/rows; for row in $(seq 150); do ${row}; done`;
  await inside(`setsid sh -ec '${rows}' > /dev/null 2>&1 < /dev/null &`);
  await until("it is full", isFull, 60_000, 100);
  expect((await volume("rows")).status.message).toBe('writers wait: storage pool "small" has no space left');
  const shown = await daemon.ok(["pool", "show", "small"]);
  expect(shown.stdout).toContain("writers wait");
  expect((await daemon.ok(["pool", "list"])).stdout).toMatch(/small .*█/);
  expect((await inside("ls /mnt/rows | wc -l")).stdout.trim(), "reading goes on").toMatch(/^\d+$/);
  expect(await scene.freeMib(path)).toBeGreaterThan(10);
  const snapshot = await daemon.strata(["snapshot", "create", "rows", "monday", "--timeout", "15"]);
  expect(snapshot.stderr).toContain("no space left");
  await daemon.ok(["snapshot", "delete", "monday", "--yes"]);
  await until(
    "the snapshot is gone",
    async () => (await daemon.client.list(snapshotKind, { project })).items.length === 0,
    20_000,
  );

  // Whoever was held by a daemon that was killed is held by the next.
  await daemon.kill();
  await daemon.start();
  await until("it is full still", isFull, 30_000, 100);
  await scene.unfill(path);
  await until("it has space", async () => !(await isFull()), 30_000, 100);
  await until(
    "all rows are written",
    async () => (await inside("cat /mnt/rows/sum* | wc -l")).stdout.trim() === "150",
    90_000,
    200,
  );
  expect((await inside("cd /mnt/rows; cat sum* | sha256sum -c | grep -c OK")).stdout.trim()).toBe("150");
  await inside("rm /mnt/rows/row* /mnt/rows/sum*");
  await emptied();
  const reasons = (await daemon.client.list(eventKind, { project })).items.map(({ spec }) => spec.reason);
  expect(reasons).toEqual(expect.arrayContaining(["WritersWait", "WritersGoOn", "StoragePoolFull"]));
});

it("loses nothing of a burst that nobody waited for, and a container whose writer waits can be stopped", async () => {
  await scene.fill(path, 130);
  const burst = inside(
    "yes 0123456789abcde | head -c 209715200 > /mnt/rows/burst; dd if=/dev/null of=/mnt/rows/burst bs=1 seek=209715200 conv=fsync 2>/dev/null; sha256sum < /mnt/rows/burst",
  );
  await until("it is full", isFull, 60_000, 50);
  await scene.unfill(path);
  const wanted = await run("sh", ["-c", "yes 0123456789abcde | head -c 209715200 | sha256sum"]);
  expect((await burst).stdout).toBe(wanted.stdout);
  await inside("rm /mnt/rows/burst");
  await emptied();

  await scene.fill(path, 130);
  const stuck = inside("cat /dev/zero > /mnt/rows/zeros").catch(() => {});
  await until("it is full again", isFull, 60_000, 50);
  await daemon.ok(["stop", "box"], { timeoutMs: 60_000 });
  await stuck;
  await daemon.ok(["volume", "detach", "rows"]);
  await scene.unfill(path);
  const file = join(path, `${(await volume("rows")).metadata.uid}.raw`);
  const check = await run("e2fsck", ["-f", "-n", file], { expected: [0, 4] });
  expect(check.stdout).not.toMatch(/error|corrupt/i);
  await daemon.ok(["volume", "delete", "rows", "--yes"]);
  await until(
    "it is gone",
    async () => (await daemon.client.list(volumeKind, { project })).items.length === 1,
    20_000,
  );
  await daemon.ok(["pool", "delete", "small", "--yes"]);
  await until(
    "the pool is gone, with its mark",
    async () =>
      (await daemon.client.list(storagePoolKind, {})).items.length === 0 &&
      (await run("ls", [path])).stdout.trim() === "lost+found",
    20_000,
  );
});
