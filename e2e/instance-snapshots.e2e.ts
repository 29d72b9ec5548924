/**
 * Snapshots of whole instances while a small database writes to their root and to their volume: what is restored has every
 * row that was acknowledged before, of both disks from one moment; the source goes on; going back goes back. The daemon and
 * QEMU are killed (SIGKILL) at seeded moments of each operation: STRATA_SEED repeats a failure, STRATA_ROUNDS says how many times.
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { type Snapshot as SnapshotResource, snapshotKind } from "../src/kinds/snapshot.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import { qemuPid } from "./guest-pid.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import {
  acknowledged,
  bootId,
  expectFilled,
  expectWhole,
  foundAtStart,
  hostNameInside,
  longestStandstill,
  rowsFound,
  rowsOfImage,
  rowsWriterBeside,
  untilAcknowledged,
} from "./rows-writer.ts";
import { TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
const rounds = Number(process.env.STRATA_ROUNDS ?? 3);
const copyRounds = Number(process.env.STRATA_COPY_ROUNDS ?? 2);
const qemuRounds = Number(process.env.STRATA_QEMU_ROUNDS ?? 1);
const seed = Number(process.env.STRATA_SEED ?? 20261128);
/** Copying takes so long that much happens meanwhile. */
const vmFillMib = 400;
let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage(), "-p", project]);
  for (const [name, type] of [
    ["vm", "vm"],
    ["box", "container"],
  ] as const) {
    const fillMib = type === "vm" ? vmFillMib : 100;
    const volume = { sizeMib: 600, fileSystem: "ext4", instance: name, path: "/mnt/data" } as const;
    const userData = rowsWriterBeside(fillMib);
    const spec = { type, image: "tiny", diskMib: 128, memoryMib: 128, userData };
    await daemon.client.create(instanceKind, { project, name, spec: { ...spec, power: "stopped" } });
    await daemon.client.create(volumeKind, { project, name: `${name}-data`, spec: volume });
    await daemon.client.patch(instanceKind, { project, name }, { spec: { power: "running" } });
  }
});

afterAll(async () => {
  if (!daemon) return;
  if (daemon.pid() === undefined) await daemon.start();
  for (const { metadata } of (await daemon.client.list(snapshotKind, { project })).items) {
    await daemon.client.delete(snapshotKind, { project, name: metadata.name }).catch(() => {});
  }
  for (const { metadata } of await daemon.instances()) {
    await daemon.client.delete(instanceKind, { project, name: metadata.name }).catch(() => {});
  }
  await until("instances are gone", async () => (await daemon.instances()).length === 0, 60_000);
  for (const { metadata } of (await daemon.client.list(volumeKind, { project })).items) {
    await daemon.client.delete(volumeKind, { project, name: metadata.name }).catch(() => {});
  }
  await daemon.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

const instance = (name: string): Promise<Instance> => daemon.client.require(instanceKind, { project, name });
const snapshot = (name: string): Promise<SnapshotResource> =>
  daemon.client.require(snapshotKind, { project, name });

function strata(...args: string[]) {
  return daemon.ok([...args, "-p", project], { timeoutMs: 120_000 });
}

it.each([
  ["box", "frozen"],
  ["vm", "crash"], // there is no agent in the tiny guest
])("%s: nothing acknowledged is lost, and both disks are of one moment", async (name, consistency) => {
  const source = await instance(name);
  const sure = await untilAcknowledged(source, 20);
  const boot = await bootId(source);
  const begun = systemClock.monotonicMs();
  const standstillMs = await longestStandstill(
    source,
    strata("snapshot", "create", name, `${name}-one`, "--instance"),
  );
  const tookMs = Math.round(systemClock.monotonicMs() - begun);
  const later = await acknowledged(source);
  const taken = await snapshot(`${name}-one`);
  expect(taken.status).toMatchObject({ state: "ready", consistency, volumes: [{ name: `${name}-data` }] });
  expect(taken.status).not.toHaveProperty("cutOff");
  console.log(
    `${name}: taken in ${tookMs} ms, still for ${taken.status.stillMs} ms, no new row for ${standstillMs} ms at most`,
  );
  await untilAcknowledged(source, later + 5);
  expect(await bootId(source)).toBe(boot);

  await strata("snapshot", "restore", `${name}-one`, `${name}-twin`);
  const twin = await instance(`${name}-twin`);
  const found = await foundAtStart(twin);
  expect(found.data).toBeGreaterThanOrEqual(sure);
  expect(found.root).toBeLessThanOrEqual(later + 1);
  expect([0, 1], JSON.stringify(found)).toContain(found.root - found.data);
  await untilAcknowledged(twin, found.root + 5);
  for (const each of [source, twin]) await expectWhole(each);
  expect(await hostNameInside(twin)).toContain(`${name}-twin`);
  expect(twin.status.nic?.macAddress).not.toBe(source.status.nic?.macAddress);
  expect(await bootId(source)).toBe(boot);
  await strata("delete", `${name}-twin`, "--yes");

  const last = await acknowledged(source);
  expect(last).toBeGreaterThan(found.root + 1);
  await strata("snapshot", "rollback", `${name}-one`, "--yes");
  await until("it has started anew", async () => !["", boot].includes(await bootId(source)), 120_000, 50);
  expect(await foundAtStart(source)).toEqual(found);
  await untilAcknowledged(source, found.root + 5);
  await expectWhole(source);
});

it.each([
  ["box", "vm", "container"],
  ["vm", "container"],
])(
  "an image of the running %s starts as another type of guest too, with what was on its root",
  async (name, ...types) => {
    const source = await instance(name);
    const boot = await bootId(source);
    const sure = await acknowledged(source);
    await strata("image", "create", `of-${name}`, "--from-instance", name);
    const later = await acknowledged(source);
    expect(await bootId(source)).toBe(boot);
    for (const type of types) {
      const child = `${name}-as-${type}`;
      const spec = { type, image: `of-${name}`, diskMib: 128, memoryMib: 128, userData: rowsOfImage };
      await daemon.client.create(instanceKind, { project, name: child, spec: spec as never });
      const made = await (async () => {
        let rows = Number.NaN;
        await until(
          `${child} says what it found`,
          async () => {
            rows = await rowsFound(await instance(child));
            return !Number.isNaN(rows);
          },
          120_000,
          100,
        );
        return rows;
      })();
      expect(made, child).toBeGreaterThanOrEqual(sure);
      expect(made, child).toBeLessThanOrEqual(later + 1);
      await strata("delete", child, "--yes");
    }
  },
);

it(`through ${qemuRounds} kills of QEMU during a snapshot, the machine and what is taken of it are whole`, {
  timeout: 3_600_000,
}, async () => {
  const random = seededRandom(seed);
  const source = await instance("vm");
  for (let round = 0; round < qemuRounds; round++) {
    const name = `qemu-${round}`;
    const sure = await untilAcknowledged(source, 1);
    const boot = await bootId(source);
    await daemon.client.create(snapshotKind, { project, name, spec: { instance: "vm" } });
    const copying = round % 2 === 0;
    const pid = await qemuPid(source);
    if (copying) await untilCopying(name);
    await systemClock.sleep(randomInt(random, 250));
    if (copying) expect((await snapshot(name)).status.state, "it is killed while it copies").toBe("copying");
    process.kill(pid, "SIGKILL");
    await until("it has started anew", async () => !["", boot].includes(await bootId(source)), 120_000, 50);
    const restarted = await foundAtStart(source);
    expect(restarted.data).toBeGreaterThanOrEqual(sure);
    await expectWhole(source);
    await until("it is taken", async () => (await snapshot(name)).status.state === "ready", 60_000, 50);
    if (copying) {
      const { cutOff, message } = (await snapshot(name)).status;
      expect({ cutOff, message }).toEqual({ cutOff: 1, message: expect.stringContaining("later moment") });
    }
    await expectFilled(await volumeFile(name), vmFillMib);
    if (round === qemuRounds - 1) {
      await strata("snapshot", "restore", name, "vm-late");
      const twin = await instance("vm-late");
      const found = await foundAtStart(twin);
      expect(found.data).toBeGreaterThanOrEqual(sure);
      await untilAcknowledged(twin, found.root + 1);
      await expectWhole(twin);
      await strata("delete", "vm-late", "--yes");
    }
    await strata("snapshot", "delete", name, "--yes");
  }
});

it(`through ${copyRounds} kills of the daemon, QEMU copies to the end, and the next daemon finds it`, {
  timeout: 3_600_000,
}, async () => {
  const random = seededRandom(seed);
  const source = await instance("vm");
  const boot = await bootId(source);
  for (let round = 0; round < copyRounds; round++) {
    const name = `copied-${round}`;
    const sure = await untilAcknowledged(source, 1);
    await daemon.client.create(snapshotKind, { project, name, spec: { instance: "vm" } });
    await untilCopying(name);
    const { takenAt } = (await snapshot(name)).status;
    await systemClock.sleep(randomInt(random, 1_200));
    await daemon.kill();
    await daemon.start();
    await until("it is taken", async () => (await snapshot(name)).status.state === "ready", 60_000, 50);
    const { status } = await snapshot(name);
    expect({ takenAt: status.takenAt, cutOff: status.cutOff }).toEqual({ takenAt, cutOff: undefined });
    await expectFilled(await volumeFile(name), vmFillMib);
    await untilAcknowledged(source, sure + 1);
    expect(await bootId(source)).toBe(boot);
    if (round === copyRounds - 1) {
      await strata("snapshot", "restore", name, "vm-found");
      const twin = await instance("vm-found");
      expect((await foundAtStart(twin)).data).toBeGreaterThanOrEqual(sure);
      await expectWhole(twin);
      await strata("delete", "vm-found", "--yes");
    }
    await strata("snapshot", "delete", name, "--yes");
  }
});

it(`through ${2 * rounds} kills of the daemon, a snapshot, a twin or a rollback is complete or absent`, {
  timeout: 3_600_000,
}, async () => {
  console.log(`seed ${seed}`);
  const random = seededRandom(seed);
  await strata("stop", "vm");
  const source = await instance("box");
  for (let round = 0; round < rounds; round++) {
    const name = `kill-${round}`;
    const boot = await bootId(source);
    const sure = await acknowledged(source);
    await daemon.killWithin(random, 200, () =>
      daemon.client.create(snapshotKind, { project, name, spec: { instance: "box" } }),
    );
    const there = await daemon.client.get(snapshotKind, { project, name });
    if (!there) continue; // killed before anybody was promised anything
    await until("it is taken", async () => (await snapshot(name)).status.state === "ready", 60_000, 50);
    await untilAcknowledged(source, sure + 1);
    expect(await bootId(source), "a snapshot restarts nothing").toBe(boot);

    if (round % 3 === 0) {
      const spec = { ...(await snapshot(name)).status.machine, source: { snapshot: name } };
      await daemon.killWithin(random, 600, () =>
        daemon.client.create(instanceKind, { project, name, spec: spec as never }),
      );
      if (await daemon.client.get(instanceKind, { project, name })) {
        const found = await foundAtStart(await instance(name));
        expect(found.data).toBeGreaterThanOrEqual(sure);
        expect([0, 1]).toContain(found.root - found.data);
        await expectWhole(await instance(name));
        await strata("delete", name, "--yes");
      }
      expect(await bootId(source), "a twin does not touch its source").toBe(boot);
    } else {
      await daemon.killWithin(random, 900, () =>
        daemon.client.patch(snapshotKind, { project, name }, { spec: { rollbacks: 1 } }),
      );
      await until(
        "it is as it was",
        async () => {
          const { spec, status } = await snapshot(name);
          return spec.rollbacks === status.rollbacks;
        },
        60_000,
        50,
      );
      if ((await snapshot(name)).spec.rollbacks === 1) {
        await until(
          "it has started anew",
          async () => !["", boot].includes(await bootId(source)),
          60_000,
          50,
        );
        const found = await foundAtStart(source);
        expect(found.data).toBeGreaterThanOrEqual(sure);
        expect([0, 1]).toContain(found.root - found.data);
      }
    }
    await expectWhole(source);
    await strata("snapshot", "delete", name, "--yes");
  }
});

/** Of a snapshot: the copy of its volume. */
async function volumeFile(name: string): Promise<string> {
  const { metadata, status } = await snapshot(name);
  const [volume] = status.volumes ?? [];
  const part = `${metadata.uid}-${volume?.uid}`;
  return join(daemon.settings.stateDir, "volumes", metadata.uid, "parts", part, "data.raw");
}

async function untilCopying(name: string): Promise<void> {
  await until(
    "its moment is fixed",
    async () => (await snapshot(name)).status.state === "copying",
    60_000,
    20,
  );
}
