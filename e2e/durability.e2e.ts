/**
 * A real database (SQLite) writes all the time, to the root and to a volume of a container and of a virtual machine, while these
 * are snapshotted, cloned, made into an image, backed up and grown: whatever is made of them is sound, and has every row that
 * was acknowledged when it was asked for.
 */
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { backupKind } from "../src/kinds/backup.ts";
import { backupRepositoryKind } from "../src/kinds/backup-repository.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { snapshotKind } from "../src/kinds/snapshot.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import {
  acknowledgedRow,
  databaseImage,
  databaseReader,
  databasesAtStart,
  databaseWriter,
  disksInside,
  expectSound,
  startId,
  untilWritten,
} from "./sqlite-guest.ts";
import { allowMany, removeAll, TestDaemon, until } from "./test-daemon.ts";

const project = "default";
const types = ["container", "vm"] as const;
type Type = (typeof types)[number];
let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await allowMany(daemon);
  await strata("image", "import", "database", await databaseImage(await daemon.scratch("files")));
  const key = join(await daemon.scratch("files"), "nas.key");
  const directory = join(daemon.settings.backupDirs[0] ?? "", "rows");
  await strata("backup-repository", "create", "nas", "--directory", directory, "--new-key", key);
  await Promise.all(
    types.map(async (type) => {
      await createStopped(type, type, databaseWriter);
      const volume = {
        sizeMib: type === "vm" ? 128 : 320,
        fileSystem: type === "vm" ? "ext4" : "xfs",
        instance: type,
        path: "/mnt/data",
      } as const;
      await daemon.client.create(volumeKind, { project, name: `${type}-data`, spec: volume });
      await start(type);
    }),
  );
});

afterAll(async () => {
  if (!daemon) return;
  await removeAll(daemon, project, [
    backupKind,
    backupRepositoryKind,
    snapshotKind,
    instanceKind,
    volumeKind,
  ]);
  await daemon.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

function strata(...args: string[]) {
  return daemon.ok([...args, "-p", project], { timeoutMs: 120_000 });
}
const instance = (name: string): Promise<Instance> => daemon.client.require(instanceKind, { project, name });

async function createStopped(name: string, type: Type, userData: string, image = "database"): Promise<void> {
  const spec = { type, image, diskMib: 192, memoryMib: 128, userData, power: "stopped" };
  await daemon.client.create(instanceKind, { project, name, spec: spec as never });
}

async function start(name: string): Promise<Instance> {
  await daemon.client.patch(instanceKind, { project, name }, { spec: { power: "running" } });
  await until(`${name} runs`, async () => (await instance(name)).status.state === "running", 120_000, 50);
  return instance(name);
}

/** A container whose volume is that one, with a writer that goes on where its database ends. */
async function startWith(volume: string): Promise<Instance> {
  const name = `with-${volume}`;
  await createStopped(name, "container", databaseWriter);
  await daemon.client.patch(
    volumeKind,
    { project, name: volume },
    { spec: { instance: name, path: "/mnt/data" } },
  );
  return start(name);
}

it.each(types)(
  "%s: everything that is made of it has what was acknowledged",
  { timeout: 120_000 },
  async (type) => {
    const source = await instance(type);
    const found: Record<string, string> = {};
    const note = (what: string, sure: number, rows: number) => {
      found[what] = `${sure} acknowledged, ${rows} found`;
      expect(rows, what).toBeGreaterThanOrEqual(sure);
    };
    let sure = await untilWritten(source, 50);
    const startedAs = await startId(source);

    await strata("snapshot", "create", type, `${type}-snap`, "--instance");
    const later = await acknowledgedRow(source);
    await strata("snapshot", "restore", `${type}-snap`, `${type}-clone`);
    const clone = await instance(`${type}-clone`);
    const cloned = await databasesAtStart(clone);
    note("clone of a snapshot, its volume", sure, cloned.data);
    expect(cloned.root).toBeLessThanOrEqual(later + 1);
    expect([0, 1], JSON.stringify(cloned)).toContain(cloned.root - cloned.data);
    await untilWritten(clone, cloned.root + 5);
    await expectSound(clone);
    await strata("delete", `${type}-clone`, "--yes");

    sure = await acknowledgedRow(source);
    await strata("snapshot", "create", `${type}-data`, `${type}-data-snap`);
    await strata("snapshot", "restore", `${type}-data-snap`, `${type}-copy`);
    note("clone of its volume", sure, (await databasesAtStart(await startWith(`${type}-copy`))).data);

    sure = await acknowledgedRow(source);
    await strata("image", "create", `${type}-image`, "--from-instance", type);
    await createStopped(`${type}-of-image`, "container", databaseReader, `${type}-image`);
    note("image of it", sure, (await databasesAtStart(await start(`${type}-of-image`))).root);

    sure = await acknowledgedRow(source);
    await strata("backup", "create", `${type}-data`, `${type}-backup`);
    await strata("backup", "restore", `${type}-backup`, "--as", `${type}-back`);
    note("backup of its volume", sure, (await databasesAtStart(await startWith(`${type}-back`))).data);

    sure = await acknowledgedRow(source);
    await strata("volume", "grow", `${type}-data`, "512MiB");
    const grown = await untilWritten(source, sure + 20);
    note("itself, grown", grown, (await expectSound(source)).data);
    expect(await disksInside(source)).toEqual(
      type === "vm" ? ["/mnt/data", "/sys/block/sda"] : ["/mnt/data"],
    );
    expect(await startId(source), "nothing of this restarts it").toBe(startedAs);
    console.log(`${type}: ${JSON.stringify(found, undefined, 2)}`);
  },
);
