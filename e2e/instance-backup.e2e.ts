/**
 * Backups of whole instances while a small database writes to their root and to their volume: what is restored, on a machine
 * that has neither the instance nor its image any more, has every row that was acknowledged before, of both disks from one
 * moment; a backup whose daemon is killed is complete all the same.
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { type Backup, backupKind } from "../src/kinds/backup.ts";
import { backupRepositoryKind } from "../src/kinds/backup-repository.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
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
  for (const [name, type] of [
    ["vm", "vm"],
    ["box", "container"],
  ] as const) {
    const volume = { sizeMib: 64, fileSystem: "ext4", instance: name, path: "/mnt/data" } as const;
    const spec = { type, image: "tiny", diskMib: 128, memoryMib: 128, userData: rowsWriter };
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
  for (const kind of [instanceKind, volumeKind, imageKind, backupKind, backupRepositoryKind] as const) {
    const named = kind as typeof volumeKind;
    const left = async () =>
      (await daemon.client.list(named, { project })).items.filter(({ spec }) => spec.role !== "root");
    for (const { metadata } of await left()) {
      await daemon.client.delete(named, { project, name: metadata.name }).catch(() => {});
    }
    await until(`all ${kind.plural} are gone`, async () => (await left()).length === 0, 60_000, 100);
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
])("saves the running %s: its root and its volume as they are at one moment", async (name, consistency) => {
  const source = await instance(name);
  const sure = await untilAcknowledged(source, 20);
  await strata("backup", "create", name, `${name}-one`, "--instance");
  rows.set(name, { sure, later: await acknowledged(source) });
  const { status } = await backup(`${name}-one`);
  expect(status).toMatchObject({ state: "ready", consistency, volumes: [{ name: `data-${name}` }] });
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
  await strata("backup", "verify", "killed");
  expect((await backup("killed")).status.conditions).toMatchObject([{ type: "Verified", status: "true" }]);
  await strata("backup", "restore", "killed", "--as", "box-late");
  const found = await foundAtStart(await instance("box-late"));
  expect(found.data).toBeGreaterThanOrEqual(sure);
  expect([0, 1], JSON.stringify(found)).toContain(found.root - found.data);
  await strata("delete", "box-late", "--yes");
});

it("says what it is of, and what it is not for", async () => {
  expect(await refused("backup", "cat", "box-one", "/rows")).toMatch(/of an instance, of which single files/);
  expect(await refused("backup", "restore", "box-one", "--as", "x", "--volume", "none")).toMatch(
    /spec.source.volume.*"none".*data-box/s,
  );
  expect(await refused("backup", "restore", "box-one", "--as", "x", "--image", "tiny")).toMatch(
    /spec.image.*"tiny", which is there already and was not made of backup "box-one"/s,
  );
  await strata("backup", "restore", "box-one", "--volume", "data-box", "--as", "one-volume");
  await strata("volume", "delete", "one-volume", "--yes");
});

it.each(["box", "vm"])("restores %s without its instance, volume and image", async (name) => {
  const { sure = 0, later = 0 } = rows.get(name) ?? {};
  if (await daemon.client.get(imageKind, { project, name: "tiny" })) {
    for (const source of ["box", "vm"]) {
      await strata("delete", source, "--yes");
      await strata("volume", "delete", `data-${source}`, "--yes");
    }
    await strata("image", "delete", "tiny", "--yes");
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
