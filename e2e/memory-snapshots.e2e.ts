/**
 * A virtual machine's memory in its snapshot, while a small database writes to its root and its volume and counts its rows in
 * a variable of a shell: put back, it goes on with the row that came next, in the same boot, and its disks have neither a
 * gap nor a row twice. The daemon is killed (SIGKILL) at seeded moments of taking it and of going back: STRATA_SEED repeats
 * a failure, STRATA_ROUNDS says how many times.
 */
import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { seededRandom } from "../src/core/random.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { type Snapshot as SnapshotResource, snapshotKind } from "../src/kinds/snapshot.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import { qemuPid } from "./guest-pid.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import {
  acknowledged,
  bootId,
  expectWhole,
  foundAtStart,
  longestStandstill,
  rowsWriter,
  untilAcknowledged,
} from "./rows-writer.ts";
import { removeAll, TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
const rounds = Number(process.env.STRATA_ROUNDS ?? 4);
const seed = Number(process.env.STRATA_SEED ?? 20261129);
let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage(), "-p", project]);
  const spec = { type: "vm", image: "tiny", diskMib: 128, memoryMib: 128, userData: rowsWriter } as const;
  await daemon.client.create(instanceKind, { project, name: "vm", spec: { ...spec, power: "stopped" } });
  const volume = { sizeMib: 64, fileSystem: "ext4", instance: "vm", path: "/mnt/data" } as const;
  await daemon.client.create(volumeKind, { project, name: "vm-data", spec: volume });
  await daemon.client.patch(instanceKind, { project, name: "vm" }, { spec: { power: "running" } });
});

afterAll(async () => {
  if (!daemon) return;
  await removeAll(daemon, project, [snapshotKind, instanceKind, volumeKind]);
  await daemon.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

const machine = (): Promise<Instance> => daemon.client.require(instanceKind, { project, name: "vm" });
const snapshot = (name: string): Promise<SnapshotResource> =>
  daemon.client.require(snapshotKind, { project, name });
const strata = (...args: string[]) => daemon.ok([...args, "-p", project], { timeoutMs: 120_000 });

async function memoryFiles(name: string): Promise<string[]> {
  const { uid } = (await snapshot(name)).metadata;
  const directory = join(daemon.settings.stateDir, "volumes", uid, "parts", `${uid}-memory`);
  for (const file of await readdir(directory)) {
    expect((await stat(join(directory, file))).mode & 0o777, file).toBe(0o600);
  }
  return (await readdir(directory)).sort();
}

it("goes on where it was, as often as it is put back", async () => {
  const source = await machine();
  const sure = await untilAcknowledged(source, 20);
  const boot = await bootId(source);
  const found = await foundAtStart(source);
  const taking = strata("snapshot", "create", "vm", "kept", "--instance", "--memory");
  const standstillMs = await longestStandstill(source, taking);
  const later = await acknowledged(source);
  const { status } = await snapshot("kept");
  expect(status).toMatchObject({ state: "ready", message: "", memoryBytes: expect.any(Number) });
  expect(await memoryFiles("kept")).toEqual(["memory.qcow2", "memory.qcow2.json"]);
  console.log(
    `the memory takes ${Math.round((status.memoryBytes ?? 0) / 1024 ** 2)} MiB, still for ${status.stillMs} ms, ` +
      `no new row for ${standstillMs} ms at most`,
  );
  for (let round = 1; round <= 2; round++) {
    await untilAcknowledged(source, later + 100);
    const begun = systemClock.monotonicMs();
    const { ahead, first } = await steppedBack(source, strata("snapshot", "rollback", "kept", "--yes"));
    console.log(
      `put back in ${Math.round(systemClock.monotonicMs() - begun)} ms, from row ${ahead} to ${first}`,
    );
    expect((await snapshot("kept")).status).toMatchObject({ memoryUse: "resumed", message: "" });
    expect(first).toBeGreaterThanOrEqual(sure);
    expect(first).toBeLessThan(ahead);
    expect(await bootId(source)).toBe(boot);
    await untilAcknowledged(source, later + 50);
    await expectWhole(source);
    expect(await foundAtStart(source)).toEqual(found);
  }
});

it("boots as another machine, and with another disk, and the snapshot says so", async () => {
  const source = await machine();
  const boot = await bootId(source);
  await strata("stop", "vm");
  await daemon.client.patch(instanceKind, { project, name: "vm" }, { spec: { memoryMib: 160 } });
  await strata("snapshot", "rollback", "kept", "--yes");
  expect((await snapshot("kept")).status.memoryUse).toBe("waiting");
  await strata("start", "vm");
  await until(
    "it is known",
    async () => (await snapshot("kept")).status.memoryUse !== "waiting",
    60_000,
    100,
  );
  expect((await snapshot("kept")).status).toMatchObject({
    memoryUse: "booted",
    message: expect.stringContaining("amount of memory"),
  });
  await until("it has started anew", async () => !["", boot].includes(await bootId(source)), 120_000, 50);
  const { root, data } = await foundAtStart(source);
  expect([0, 1]).toContain(root - data);
  await untilAcknowledged(source, root + 5);
  await expectWhole(source);
  await strata("stop", "vm");
  await daemon.client.patch(instanceKind, { project, name: "vm" }, { spec: { memoryMib: 128 } });
  await strata("snapshot", "rollback", "kept", "--yes");
  await strata("start", "vm");
  await until("it goes on", async () => (await snapshot("kept")).status.memoryUse === "resumed", 60_000, 100);
  expect(await bootId(source)).toBe(boot);
  await expectWhole(source);
});

it("is refused where there is no memory to keep, and missing where there is none at the moment", async () => {
  const draft = { project, name: "refused", spec: { volume: "vm-data", memory: true } };
  await expect(daemon.client.create(snapshotKind, draft)).rejects.toMatchObject({ code: "Invalid" });
  await strata("stop", "vm");
  await strata("snapshot", "create", "vm", "asleep", "--instance", "--memory");
  const { status } = await snapshot("asleep");
  expect(status).toMatchObject({ state: "ready", message: expect.stringContaining("did not run") });
  expect(status).not.toHaveProperty("memoryBytes");
  await strata("snapshot", "delete", "asleep", "--yes");
  await strata("start", "vm");
  await untilAcknowledged(await machine(), 1);
});

it(`through ${2 * rounds} kills of the daemon, it goes on or boots, and its disks are whole`, {
  timeout: 3_600_000,
}, async () => {
  console.log(`seed ${seed}`);
  const random = seededRandom(seed);
  const source = await machine();
  const ends: string[] = [];
  for (let round = 0; round < rounds; round++) {
    const name = `kill-${round}`;
    const sure = await untilAcknowledged(source, 1);
    const boot = await bootId(source);
    const spec = { instance: "vm", memory: true };
    await daemon.killWithin(random, 700, () => daemon.client.create(snapshotKind, { project, name, spec }));
    if (!(await daemon.client.get(snapshotKind, { project, name }))) continue;
    await until("it is taken", async () => (await snapshot(name)).status.state === "ready", 60_000, 50);
    const taken = (await snapshot(name)).status;
    expect(taken.memoryBytes, taken.message).toBeGreaterThan(0);
    await untilAcknowledged(source, sure + 50);
    expect(await bootId(source), "a snapshot restarts nothing").toBe(boot);

    await daemon.killWithin(random, 2_500, () =>
      daemon.client.patch(snapshotKind, { project, name }, { spec: { rollbacks: 1 } }),
    );
    if ((await snapshot(name)).spec.rollbacks === 0) continue;
    const isOver = ({ spec, status }: SnapshotResource) =>
      spec.rollbacks === status.rollbacks && status.memoryUse !== "waiting";
    await until("it is as it was", async () => isOver(await snapshot(name)), 60_000, 50);
    const { memoryUse, message } = (await snapshot(name)).status;
    ends.push(`${memoryUse} ${message}`);
    if (memoryUse === "resumed") {
      await untilAcknowledged(source, sure);
      expect(await bootId(source)).toBe(boot);
    } else {
      await until("it has started anew", async () => !["", boot].includes(await bootId(source)), 120_000, 50);
      const { root, data } = await foundAtStart(source);
      expect(data).toBeGreaterThanOrEqual(sure);
      expect([0, 1]).toContain(root - data);
    }
    await untilAcknowledged(source, (await acknowledged(source)) + 5);
    await expectWhole(source);
    await strata("snapshot", "delete", name, "--yes");
  }
  console.log(ends.join("\n"));
});

it("QEMU that is killed after it has gone on boots, and its disks are whole", async () => {
  const source = await machine();
  const boot = await bootId(source);
  const sure = await untilAcknowledged(source, 1);
  await strata("snapshot", "create", "vm", "last", "--instance", "--memory");
  await strata("snapshot", "rollback", "last", "--yes");
  expect(await bootId(source)).toBe(boot);
  const rows = await untilAcknowledged(source, sure + 5);
  process.kill(await qemuPid(source), "SIGKILL");
  await until("it has started anew", async () => !["", boot].includes(await bootId(source)), 120_000, 50);
  expect((await foundAtStart(source)).data).toBeGreaterThanOrEqual(rows);
  await expectWhole(source);
});

/** The last row before the source went back, and the first that is seen after that. */
async function steppedBack(
  source: Instance,
  work: Promise<unknown>,
): Promise<{ ahead: number; first: number }> {
  let over = false;
  const ended = work.finally(() => {
    over = true;
  });
  let ahead = 0;
  for (let first = Number.NaN; ; ) {
    const row = await acknowledged(source);
    if (row > 0 && row < ahead && Number.isNaN(first)) first = row;
    if (over) {
      await ended;
      return { ahead, first };
    }
    if (Number.isNaN(first)) ahead = Math.max(ahead, row);
  }
}
