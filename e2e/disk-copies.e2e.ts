/**
 * Disks of a running virtual machine, copied where blocks are not shared: as they were at one moment, sparse, one overlay
 * deep, while the guest goes on and whatever is killed meanwhile.
 */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { newUid, type Uid } from "../src/core/ids.ts";
import { systemRandom } from "../src/core/random.ts";
import type { DiskCopies, GuestDriver, GuestSpec, GuestVolume } from "../src/drivers/driver.ts";
import { QmpClient } from "../src/drivers/qemu/qmp-client.ts";
import { run } from "../src/host/run.ts";
import { QemuBench } from "./qemu-bench.ts";
import { openTestDriver } from "./qemu-test-driver.ts";

const { signal } = new AbortController();
/** Enough that copying takes longer than what is done meanwhile. */
const writtenMib = 700;
let bench: QemuBench;
let driver: GuestDriver;
let volume: GuestVolume;
let spec: GuestSpec;

beforeAll(async () => {
  bench = await QemuBench.create();
  driver = await openTestDriver(bench.host);
  volume = await bench.volumes.disk(2048);
  const fill = ["if=/dev/urandom", `of=${volume.path}`, "bs=1M", `count=${writtenMib}`, "conv=notrunc"];
  await run("dd", [...fill, "seek=1", "status=none"], { timeoutMs: 60_000 });
  spec = await bench.makeGuest({ volumes: [volume] });
  await driver.start(await driver.create(spec, signal), signal);
  await bench.untilReady(spec.uid, 60_000);
}, 120_000);
afterAll(async () => {
  for (const guest of await driver.list()) await driver.destroy(guest.handle, signal);
  await bench.volumes.drop(volume);
  expect(await bench.leaks()).toEqual([]);
  await bench.dispose();
});

const handle = () => ({ version: driver.handleVersion, uid: spec.uid });
const rootPath = () => (spec.root.type === "disk" ? spec.root.path : "");

function copiesOf({ snapshots }: GuestDriver): DiskCopies<object> {
  if (snapshots?.keptStillBy !== "driver" || !snapshots.copies) throw new Error("QEMU copies disks");
  return snapshots.copies as DiskCopies<object>;
}

async function begin(id: Uid) {
  const disks = [rootPath(), volume.path].map((from) => ({ from, to: `${from}.${id}` }));
  const meanwhile = async () => {};
  return copiesOf(driver).begin(handle(), { id, disks, meanwhile }, signal);
}

/** As QEMU and the files themselves have it. */
async function depths(): Promise<{ machine: number; files: number }> {
  const path = join(bench.host.runDir, "qemu", spec.uid, "qmp.sock");
  const monitor = await QmpClient.connect(path, { clock: systemClock, connectTimeoutMs: 10_000 });
  try {
    const nodes = (await monitor.execute("query-named-block-nodes")) as Record<string, never>[];
    const root = nodes.find((node) => node["node-name"] === "root");
    return { machine: Number(root?.backing_file_depth), files: await depthOf(rootPath()) };
  } finally {
    monitor.close();
    await monitor.closed;
  }
}

async function depthOf(path: string): Promise<number> {
  const { stdout } = await run("qemu-img", ["info", "-U", "--backing-chain", "--output=json", path]);
  return (JSON.parse(stdout) as unknown[]).length - 1;
}

it("are as they were at that moment, sparse, and one overlay deep, however often", {
  timeout: 120_000,
}, async () => {
  for (let round = 0; round < 3; round++) {
    const id = newUid(systemRandom);
    await bench.writeVolume(spec.uid, volume, `before${round}`);
    const begun = await begin(id);
    expect(begun).toMatchObject({ guest: "frozen" });
    await bench.writeVolume(spec.uid, volume, `after${round}`);
    const copying = systemClock.monotonicMs();
    expect(await copiesOf(await openTestDriver(bench.host)).complete(id, signal)).toBe(true);
    const stillMs = begun.guest === "idle" ? Number.NaN : begun.stillMs;
    console.log(
      `still for ${stillMs} ms, copied in ${Math.round(systemClock.monotonicMs() - copying)} ms more`,
    );
    const copy = `${volume.path}.${id}`;
    expect((await run("head", ["-n", "1", copy])).stdout.trim()).toBe(`before${round}`);
    expect(await bench.readVolume(spec.uid, volume)).toBe(`after${round}`);
    // The rest was not written to, so it is the same.
    await run("cmp", ["-i", String(1024 ** 2), "--", volume.path, copy], { timeoutMs: 60_000 });
    const blocks = async (path: string) => (await stat(path)).blocks;
    expect((await blocks(copy)) / (await blocks(volume.path))).toBeCloseTo(1, 1);
    expect(await depthOf(`${rootPath()}.${id}`)).toBe(1);
    await run("qemu-img", ["check", "-q", `${rootPath()}.${id}`]);
    await copiesOf(driver).forget(id);
    expect(await depths()).toEqual({ machine: 1, files: 1 });
    await run("rm", [copy, `${rootPath()}.${id}`]);
  }
});

it("keep their volume in the machine, and are given up when they are forgotten", async () => {
  const id = newUid(systemRandom);
  await begin(id);
  await expect(driver.volumes?.detach(handle(), volume, signal)).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining("being copied"),
  });
  await copiesOf(driver).forget(id);
  expect(await copiesOf(driver).complete(id, signal)).toBe(false);
  expect(await depths()).toEqual({ machine: 1, files: 1 });
  await driver.volumes?.detach(handle(), volume, signal);
  await driver.volumes?.attach(handle(), volume, signal);
});
