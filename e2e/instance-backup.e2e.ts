/**
 * Backups of whole instances while a small database writes to their root and to their volume: what is restored, on a machine
 * that has neither the instance nor its image any more, has every row that was acknowledged before, of both disks from one
 * moment; a backup whose daemon is killed is complete all the same.
 */
import { readdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Backup, backupKind } from "../src/kinds/backup.ts";
import { backupRepositoryKind } from "../src/kinds/backup-repository.ts";
import { backupScheduleKind } from "../src/kinds/backup-schedule.ts";
import { eventKind } from "../src/kinds/event.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { networkKind } from "../src/kinds/network.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import {
  acknowledged,
  expectWhole,
  foundAtStart,
  hostNameInside,
  rowsWriter,
  untilAcknowledged,
} from "./rows-writer.ts";
import { TestDaemon, until } from "./test-daemon.ts";
import { tinyImage } from "./tiny-image.ts";

const project = "default";
let before: Snapshot;
let daemon: TestDaemon;
/** By source: the last row that was acknowledged before its backup, and after it. */
const rows = new Map<string, { sure: number; later: number }>();

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage(), "-p", project]);
  const disk = join(await daemon.scratch("disks"), "tiny.qcow2");
  await strata("image", "export", "tiny", disk);
  await strata("image", "import", "own", disk, "--boot", "firmware");
  for (const [name, type, image, diskMib] of [
    ["vm", "vm", "tiny", 128],
    ["box", "container", "tiny", 128],
    ["own", "vm", "own", 512],
  ] as const) {
    const volume = { sizeMib: 64, fileSystem: "ext4", instance: name, path: "/mnt/data" } as const;
    const spec = { type, image, diskMib, memoryMib: 128, userData: rowsWriter };
    await daemon.client.create(instanceKind, { project, name, spec: { ...spec, power: "stopped" } });
    await daemon.client.create(volumeKind, { project, name: `data-${name}`, spec: volume });
    await daemon.client.patch(instanceKind, { project, name }, { spec: { power: "running" } });
  }
  const directory = join(daemon.settings.backupDirs[0] ?? "", "school");
  const key = join(await daemon.scratch("files"), "nas.key");
  await strata("backup-repository", "create", "nas", "--directory", directory, "--new-key", key);
}, 120_000);

afterAll(async () => {
  if (!daemon) return;
  if (daemon.pid() === undefined) await daemon.start();
  for (const kind of [
    ...[backupScheduleKind, instanceKind, volumeKind, imageKind, backupKind, backupRepositoryKind],
  ] as const) {
    const named = kind as typeof volumeKind;
    const left = async () =>
      (await daemon.client.list(named, { project })).items.filter(({ spec }) => spec.role !== "root");
    const gone = async () => {
      const items = await left();
      for (const { metadata } of items) {
        await daemon.client.delete(named, { project, name: metadata.name }).catch(() => {});
      }
      return items.length === 0;
    };
    await until(`all ${kind.plural} are gone`, gone, 60_000, 200);
  }
  await daemon.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

const instance = (name: string): Promise<Instance> => daemon.client.require(instanceKind, { project, name });
const backup = (name: string): Promise<Backup> => daemon.client.require(backupKind, { project, name });

function strata(...args: string[]) {
  return daemon.ok([...args, "-p", project], { timeoutMs: 120_000 });
}

async function refused(...args: string[]): Promise<string> {
  const { status, stderr } = await daemon.strata([...args, "-p", project], { timeoutMs: 120_000 });
  expect(status).not.toBe(0);
  return stderr;
}

it.each([
  ["box", "frozen"],
  ["vm", "crash"], // there is no agent in the tiny guest
  ["own", "crash"],
])("saves the running %s: its root and its volume as they are at one moment", async (name, consistency) => {
  const source = await instance(name);
  const sure = await untilAcknowledged(source, 20);
  await strata("backup", "create", name, `${name}-one`, "--instance");
  rows.set(name, { sure, later: await acknowledged(source) });
  const { status } = await backup(`${name}-one`);
  expect(status).toMatchObject({ state: "ready", consistency, volumes: [{ name: `data-${name}` }] });
  expect(status.root?.form).toBe(name === "own" ? "disk" : "archive");
  expect(status.readBytes).toBe((status.root?.readBytes ?? 0) + (status.volumes?.[0]?.readBytes ?? 0));
  console.log(`${name}: read ${status.readBytes}, new ${status.addedBytes} bytes, ${status.tookMs} ms`);
  const listed = (await strata("backup", "list")).stdout;
  expect(listed).toMatch(new RegExp(`${name}-one +ready +instance ${name} +nas`));
});

it("goes on with a backup that kill -9 interrupted, with the moment that it had fixed", async () => {
  const source = await instance("box");
  const sure = await acknowledged(source);
  await daemon.client.create(backupKind, {
    project,
    name: "killed",
    spec: { instance: "box", repository: "nas" },
  });
  await until("it is being saved", async () => (await backup("killed")).status.state === "saving", 30_000, 5);
  const { takenAt } = (await backup("killed")).status;
  await daemon.kill();
  await daemon.start();
  await until("it is complete", async () => (await backup("killed")).status.state === "ready", 60_000, 50);
  expect((await backup("killed")).status.takenAt).toBe(takenAt);
  await strata("backup", "restore", "killed", "--as", "box-late");
  const found = await foundAtStart(await instance("box-late"));
  expect(found.data).toBeGreaterThanOrEqual(sure);
  expect([0, 1], JSON.stringify(found)).toContain(found.root - found.data);
  await strata("delete", "box-late", "--yes");
});

/** Nothing of a test instance is there any more. */
async function expectNoTest(): Promise<void> {
  for (const kind of [instanceKind, volumeKind, imageKind, networkKind] as const) {
    const { items } = await daemon.client.list(kind as typeof volumeKind, { project });
    expect(items.map(({ metadata }) => metadata.name).filter((name) => name.startsWith("boot-test"))).toEqual(
      [],
    );
  }
}

it("a schedule saves the instance, reads what it saved, starts it where nothing is reached, and removes that", async () => {
  const schedule = { project, name: "nightly" };
  await strata(
    "backup-schedule",
    "create",
    "nightly",
    "box",
    "--instance",
    "--keep-last",
    "2",
    "--verify-boot",
  );
  const { uid } = (await daemon.client.require(backupScheduleKind, schedule)).metadata;
  const longAgo = { lastDueAt: "2026-01-01T00:00:00Z", lastVerifyAt: "2026-01-01T00:00:00Z" };
  await daemon.client.patchStatus(backupScheduleKind, schedule, uid, longAgo);
  await strata("backup-schedule", "suspend", "nightly");
  await strata("backup-schedule", "suspend", "nightly", "--off");
  let made = "";
  const networks: string[] = [];
  await until(
    "its backup has been started",
    async () => {
      const { items } = await daemon.client.list(backupKind, { project });
      const found = items.find(({ metadata }) => metadata.labels["strata/backup-schedule"] === "nightly");
      made = found?.metadata.name ?? "";
      const network = await daemon.client.get(networkKind, {
        project,
        name: `boot-test-${found?.metadata.uid}`,
      });
      if (network) networks.push(JSON.stringify(network.spec.internet));
      return found?.status.bootedAt !== undefined && found.status.bootTest === undefined;
    },
    120_000,
    50,
  );
  expect(new Set(networks)).toEqual(new Set(["false"]));
  expect(made).toMatch(/^nightly-/);
  const { spec, status } = await backup(made);
  expect(spec).toMatchObject({ instance: "box", verifications: 1, bootTests: 1 });
  expect(status).toMatchObject({ state: "ready", message: "", verifications: 1, bootTests: 1 });
  expect(status.conditions).toMatchObject([{ type: "Verified", status: "true", reason: "Booted" }]);
  const events = (await daemon.client.list(eventKind, { project })).items.filter(
    ({ spec }) => spec.subject.name === made,
  );
  expect(events.map(({ spec }) => spec.message).join("\n")).toMatch(/restored and started for a test/);
  await expectNoTest();
  await strata("backup-schedule", "delete", "nightly", "--yes");
});

it("a test start that kill -9 interrupted goes on, and nothing of it is left", async () => {
  const asked = daemon.strata(
    ["backup", "verify", "box-one", "--boot", "--boot-command", "test -s /rows", "-p", project],
    { timeoutMs: 120_000 },
  );
  const name = `boot-test-${(await backup("box-one")).metadata.uid}`;
  const there = async () => (await daemon.client.get(instanceKind, { project, name })) !== undefined;
  await until("the test instance is there", there, 60_000, 20);
  expect(await refused("backup", "delete", "box-one", "--yes")).toMatch(/just being started for a test/);
  await daemon.kill();
  await daemon.start();
  await asked;
  const over = async () => {
    const { status } = await backup("box-one");
    return status.bootTests === 1 && status.bootTest === undefined;
  };
  await until("the test is over", over, 120_000, 50);
  expect((await backup("box-one")).status.conditions).toMatchObject([
    { type: "Verified", status: "true", reason: "Booted" },
  ]);
  await expectNoTest();
});

it("a machine with a boot loader of its own is tested as it is", async () => {
  await strata("backup", "verify", "own-one");
  expect((await backup("own-one")).status).toMatchObject({
    ...{ verifications: 1, message: "" },
    conditions: [{ type: "Verified", status: "true", reason: "Restored" }],
  });
});

it("gives single files and volumes back, and says what is not in it", async () => {
  for (const name of ["box", "own"]) {
    const rowsOf = async (...of: string[]) =>
      (await strata("backup", "cat", `${name}-one`, "/rows", ...of)).stdout;
    const { sure = 0 } = rows.get(name) ?? {};
    for (const text of [await rowsOf(), await rowsOf("--volume", `data-${name}`)]) {
      expect(Number(text.split("\n")[sure - 1])).toBe(sure);
    }
  }
  expect(await refused("backup", "cat", "box-one", "/none")).toMatch(/there is no \/none in the backup/);
  expect(await refused("backup", "cat", "box-one", "/rows", "--volume", "x")).toMatch(
    /no volume "x" in backup "box-one".*data-box/,
  );
  expect(await refused("backup", "restore", "box-one", "--as", "x", "--volume", "none")).toMatch(
    /spec.source.volume.*"none".*data-box/s,
  );
  expect(await refused("backup", "restore", "box-one", "--as", "x", "--image", "tiny")).toMatch(
    /spec.image.*"tiny", which is there already and was not made of backup "box-one"/s,
  );
  await strata("backup", "restore", "box-one", "--volume", "data-box", "--as", "one-volume");
  await strata("volume", "delete", "one-volume", "--yes");
});

it.each(["box", "vm", "own"])("restores %s without its instance, volume and image", async (name) => {
  const { sure = 0, later = 0 } = rows.get(name) ?? {};
  if (await daemon.client.get(imageKind, { project, name: "tiny" })) {
    for (const source of ["box", "vm", "own"]) {
      await strata("delete", source, "--yes");
      await strata("volume", "delete", `data-${source}`, "--yes");
    }
    for (const image of ["tiny", "own"]) await strata("image", "delete", image, "--yes");
  }
  await strata("backup", "restore", `${name}-one`, "--as", `${name}-again`);
  const again = await instance(`${name}-again`);
  const found = await foundAtStart(again);
  expect(found.data).toBeGreaterThanOrEqual(sure);
  expect(found.root).toBeLessThanOrEqual(later + 1);
  expect([0, 1], JSON.stringify(found)).toContain(found.root - found.data);
  await untilAcknowledged(again, found.root + 5);
  await expectWhole(again);
  expect(await hostNameInside(again)).toContain(`${name}-again`);
  await strata("delete", `${name}-again`, "--yes");
  expect((await strata("image", "list")).stdout).toMatch(new RegExp(`backup ${name}-one`));
});

it("backups in a repository that is lost for good can go, and nothing in it is touched", async () => {
  const directory = join(daemon.settings.backupDirs[0] ?? "", "school");
  const away = join(await daemon.scratch("away"), "school");
  await rename(directory, away);
  const files = async () => (await readdir(away, { recursive: true })).sort();
  const before = await files();
  await strata("backup", "delete", "killed", "--yes");
  const told = async () => (await daemon.client.get(backupKind, { project, name: "killed" }))?.status.message;
  await until(
    "it says what would help",
    async () => /is gone.*backup-repository set nas --lost yes/.test((await told()) ?? ""),
    60_000,
    50,
  );
  const { metadata } = await backup("killed");
  expect(await refused("backup-repository", "delete", "nas", "--yes")).toMatch(/"nas".*"box-one"/);
  const deleted = await strata("backup-repository", "delete", "nas", "--lost", "--yes");
  expect(deleted.stdout).toMatch(/deleted nas, and what was said to be in it/);
  expect((await daemon.client.list(backupKind, { project })).items).toEqual([]);
  const left = async () => {
    const { items } = await daemon.client.list(eventKind, { project });
    return items.find(({ spec }) => spec.reason === "Forgotten" && spec.subject.uid === metadata.uid)?.spec;
  };
  await until("it is told what is left", async () => (await left()) !== undefined, 30_000, 50);
  expect((await left())?.message).toContain(
    `backup-${metadata.uid}-root, backup-${metadata.uid}-volume-data-box`,
  );
  expect(await files()).toEqual(before);
});
