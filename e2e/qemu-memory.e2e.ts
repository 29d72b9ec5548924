/**
 * A virtual machine's memory, kept with its disks: it goes on with all that had come while it ran, and only over the disks
 * that it knows. Whoever loads it is killed on the way, and the machine goes on or boots, but never goes on twice.
 */
import { once } from "node:events";
import { copyFile, open, readFile, rename, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { newUid } from "../src/core/ids.ts";
import { systemRandom } from "../src/core/random.ts";
import type { DiskCopies, ExecSession, GuestDriver, GuestSpec, GuestVolume } from "../src/drivers/driver.ts";
import { run } from "../src/host/run.ts";
import { QemuBench } from "./qemu-bench.ts";
import { openTestDriver } from "./qemu-test-driver.ts";

const { signal } = new AbortController();
let bench: QemuBench;
let driver: GuestDriver;
const volumes: GuestVolume[] = [];

beforeAll(async () => {
  bench = await QemuBench.create();
  driver = await openTestDriver(bench.host);
});
afterEach(async () => {
  for (const guest of await driver.list()) await driver.destroy(guest.handle, signal);
  for (const volume of volumes.splice(0)) await bench.volumes.drop(volume);
});
afterAll(async () => {
  expect(await bench.leaks()).toEqual([]);
  await bench.dispose();
});

function copiesOf({ snapshots }: GuestDriver) {
  if (snapshots?.keptStillBy !== "driver" || !snapshots.copies?.memory) throw new Error("QEMU keeps memory");
  return { ...(snapshots.copies as DiskCopies<object>), memory: snapshots.copies.memory };
}

const handleOf = ({ uid }: GuestSpec) => ({ version: driver.handleVersion, uid });
const stateOf = async ({ uid }: GuestSpec) => (await (await openTestDriver(bench.host)).inspect(uid))?.memory;
const think = ({ uid }: GuestSpec, word: string) => bench.ask(uid, `echo ${word} > /run/word`);
const thought = async ({ uid }: GuestSpec) => (await bench.ask(uid, "cat /run/word 2>/dev/null")).trim();

async function start(overrides: Partial<GuestSpec> = {}): Promise<GuestSpec> {
  const spec = await bench.makeGuest(overrides);
  await driver.start(await driver.create(spec, signal), signal);
  await bench.untilReady(spec.uid, 60_000);
  return spec;
}

const disksOf = ({ root }: GuestSpec): string[] => [
  ...(root.type === "disk" ? [root.path] : []),
  ...volumes.map(({ path }) => path),
];

/** Its memory and its disks, of a moment at which it had the word `then` in mind, and not `now`. */
async function keep(spec: GuestSpec): Promise<string> {
  await think(spec, "then");
  const path = bench.memoryPath();
  const id = newUid(systemRandom);
  const disks = disksOf(spec).map((from) => ({ from, to: `${from}.kept` }));
  const request = { id, disks, meanwhile: async () => {}, memory: { to: path } };
  const begun = await copiesOf(driver).begin(handleOf(spec), request, signal);
  expect(begun).toMatchObject({ guest: "frozen", memory: { sizeBytes: expect.any(Number) } });
  await copiesOf(driver).complete(id, signal);
  await copiesOf(driver).forget(id);
  if (begun.guest !== "idle") {
    const { size, mode } = await stat(path);
    expect(mode & 0o777).toBe(0o600);
    console.log(`still for ${begun.stillMs} ms, the memory takes ${Math.round(size / 1024 ** 2)} MiB`);
  }
  await think(spec, "now");
  return path;
}

async function putBack(spec: GuestSpec, path: string, id: string): Promise<void> {
  await driver.stop(handleOf(spec), { graceMs: 0 }, signal);
  for (const disk of disksOf(spec)) {
    await copyFile(`${disk}.kept`, `${disk}.new`);
    await rename(`${disk}.new`, disk);
  }
  await copiesOf(driver).memory.putBack(handleOf(spec), { id, path }, signal);
}

it("goes on with processors, memory, cards, volumes and commands that had come while it ran", async () => {
  const volume = await bench.volumes.disk();
  volumes.push(volume);
  const other = await bench.volumes.disk();
  const spec = await start();
  const handle = handleOf(spec);
  // The first place on the controller is free again afterwards.
  for (const each of [other, volume]) await driver.volumes?.attach(handle, each, signal);
  await driver.volumes?.detach(handle, other, signal);
  await bench.volumes.drop(other);
  const card = bench.card("another");
  await driver.cards?.attach(handle, card, signal);
  const size = { cpus: 2, memoryMib: 224 };
  await driver.resize?.apply(handle, size, signal);
  await bench.writeVolume(spec.uid, volume, "before");
  const session = await driver.exec?.run(handle, { command: ["cat"], env: {} }, signal);
  await bench.ask(spec.uid, "date -s @1000000000");
  const path = await keep(spec);
  await bench.writeVolume(spec.uid, volume, "after");
  await endOf(session);

  await putBack(spec, path, "grown");
  const changed = { ...spec, ...size, nics: [...spec.nics, card], volumes: [volume] };
  await driver.create(changed, signal);
  const begun = systemClock.monotonicMs();
  await driver.start(handle, signal);
  console.log(`went on after ${Math.round(systemClock.monotonicMs() - begun)} ms`);
  expect(await stateOf(spec)).toEqual({ id: "grown", state: "resumed", message: "" });
  expect(await thought(spec)).toBe("then");
  expect(await bench.readVolume(spec.uid, volume)).toBe("before");
  await bench.writeVolume(spec.uid, volume, "again");
  expect((await bench.observeSize(spec.uid)).cpus).toBe(2);
  expect(await bench.observeCards(spec.uid)).toContain(card.macAddress);
  expect(await bench.reachesCard(spec.uid, card)).toBe(true);
  const clock = Number(await bench.ask(spec.uid, "date +%s"));
  expect(Math.abs(clock - systemClock.now() / 1000), "its clock is set").toBeLessThan(5);
  // Nothing stands in the way of what comes and goes later.
  await driver.volumes?.detach(handle, volume, signal);
  await driver.cards?.detach(handle, card, signal);
  await driver.resize?.apply(handle, { cpus: 3, memoryMib: 256 }, signal);
  expect((await bench.observeSize(spec.uid)).cpus).toBe(3);
});

it("boots where a disk was written to, or the memory is damaged, and says so", async () => {
  const spec = await start();
  const path = await keep(spec);
  await putBack(spec, path, "written");
  const [root = ""] = disksOf(spec);
  await using file = await open(root, "r+");
  await file.write(Buffer.alloc(1), 0, 1, 4095);
  await driver.start(handleOf(spec), signal);
  expect(await stateOf(spec)).toMatchObject({ id: "written", state: "booted", message: /written to since/ });

  await bench.untilReady(spec.uid, 60_000);
  await putBack(spec, path, "damaged");
  // All but the head, which says where everything is.
  const { size } = await stat(path);
  const noise = ["if=/dev/urandom", `of=${path}`, "bs=64k", "conv=notrunc", "status=none"];
  await run("dd", [...noise, "seek=40", `count=${Math.floor(size / 65_536) - 80}`]);
  await driver.start(handleOf(spec), signal);
  const { state, message } = (await stateOf(spec)) ?? {};
  console.log(`damaged: ${message}`);
  expect({ state, message }).toEqual({ state: "booted", message: expect.stringMatching(/./) });
  await bench.untilReady(spec.uid, 60_000);
  expect(await thought(spec)).toBe("");
});

it("is kept where all disks share their blocks, and missing where nobody knows how the machine began", async () => {
  const spec = await start();
  const begin = async () => {
    const [id, to] = [newUid(systemRandom), bench.memoryPath()];
    const request = { id, disks: [], meanwhile: async () => {}, memory: { to } };
    const begun = await copiesOf(driver).begin(handleOf(spec), request, signal);
    expect(await copiesOf(driver).complete(id, signal)).toBe(true);
    expect(await copiesOf(driver).complete(id, signal)).toBe(true);
    await copiesOf(driver).forget(id);
    expect(await copiesOf(driver).complete(id, signal)).toBe(false);
    return { begun, there: await stat(to).catch(() => undefined) };
  };
  const { begun, there } = await begin();
  expect(begun).toMatchObject({ memory: { sizeBytes: expect.any(Number) } });
  expect(there?.size).toBeGreaterThan(1024 ** 2);
  const file = join(bench.host.stateDir, "qemu", spec.uid, "run.json");
  const { launched: _, ...earlier } = JSON.parse(await readFile(file, "utf8"));
  await writeFile(file, JSON.stringify(earlier));
  const without = await begin();
  expect(without.begun).toMatchObject({ memory: { missing: expect.stringContaining("earlier version") } });
  expect(without.there).toBeUndefined();
  expect((await driver.inspect(spec.uid))?.state).toBe("running");
});

it("goes on once at most, whenever who loads it is killed", { timeout: 600_000 }, async () => {
  const spec = await start();
  const path = await keep(spec);
  await copyFile(path, `${path}.then`);
  const ends: string[] = [];
  for (let round = 0; round < 8; round++) {
    const id = `round-${round}`;
    await putBack(spec, path, id);
    await killedWhileLoading(spec, round * 60);
    await driver.start(handleOf(spec), signal);
    await settled(spec);
    const { state, message } = (await stateOf(spec)) ?? {};
    ends.push(`${state} ${message}`);
    if (state !== "resumed") await bench.untilReady(spec.uid, 60_000);
    expect(await thought(spec)).toBe(state === "resumed" ? "then" : "");
    await think(spec, "since");
    // What was put back is used up.
    await driver.stop(handleOf(spec), { graceMs: 0 }, signal);
    await driver.start(handleOf(spec), signal);
    await bench.untilReady(spec.uid, 60_000);
    expect(await thought(spec)).toBe("");
  }
  console.log(ends.join("\n"));
  await run("cmp", ["--", path, `${path}.then`], { timeoutMs: 60_000 });
});

/** Kills a process that starts the guest, so long after it began to load the memory. */
async function killedWhileLoading({ uid, ...spec }: GuestSpec, afterMs: number): Promise<void> {
  const child = bench.startInChild({ uid, ...spec });
  const closed = once(child, "close");
  const file = join(bench.host.stateDir, "qemu", uid, "run.json");
  for (;;) {
    const text = await readFile(file, "utf8").catch(() => "");
    if (text.includes('"loading"') || child.exitCode !== null) break;
    await systemClock.sleep(5);
  }
  await systemClock.sleep(afterMs);
  child.kill("SIGKILL");
  await closed;
}

async function settled(spec: GuestSpec): Promise<void> {
  await driver.start(handleOf(spec), signal);
  expect(await stateOf(spec)).not.toMatchObject({ state: "waiting" });
}

async function endOf(session: ExecSession | undefined): Promise<void> {
  session?.stdin.end();
  await session?.exit;
}
