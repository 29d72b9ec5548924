/**
 * What is done with an instance whose database writes all the time, for the tests that kill something meanwhile: how each
 * operation is asked for, when it has come to an end, and what then must be true of what it made.
 */
import { join } from "node:path";
import { expect } from "vitest";
import { run } from "../src/host/run.ts";
import { backupKind } from "../src/kinds/backup.ts";
import { imageKind } from "../src/kinds/image.ts";
import { type Instance, instanceKind } from "../src/kinds/instance.ts";
import { snapshotKind } from "../src/kinds/snapshot.ts";
import { type Volume, volumeKind } from "../src/kinds/volume.ts";
import { rowsOnDisk } from "./rows-on-disk.ts";
import {
  acknowledgedRow,
  databaseReader,
  databasesAtStart,
  databaseWriter,
  disksInside,
  expectSound,
  type Rows,
  startId,
  untilWritten,
} from "./sqlite-guest.ts";
import { type TestDaemon, until } from "./test-daemon.ts";

export type GuestType = "container" | "vm";

export interface Operation {
  /** The instance that it is done with. */
  readonly source: string;
  /** Once, before all rounds. */
  prepare(): Promise<void>;
  /** Asks for it. Rejects when nobody answered. */
  ask(round: number): Promise<unknown>;
  /** Waits until it is done, or it is clear that it was never asked for. */
  settle(round: number): Promise<"complete" | "absent">;
  /** Of a complete one: it has all rows up to `sure`, those that were acknowledged when it was asked for. */
  check(round: number, sure: number): Promise<void>;
  /** Back to where the next round can begin. */
  undo(round: number): Promise<void>;
  /** Whether it starts its source anew by itself. */
  readonly restarts?: true;
  /** Whose QEMU is killed during it; absent: its source's. */
  victim?(round: number): string;
}

const project = "default";

/** The guests of such tests, and what is needed to look at them. */
export class DurableScene {
  readonly daemon: TestDaemon;
  readonly type: GuestType;
  readonly scratch: string;

  constructor(daemon: TestDaemon, type: GuestType, scratch: string) {
    this.daemon = daemon;
    this.type = type;
    this.scratch = scratch;
  }

  instance(name: string): Promise<Instance> {
    return this.daemon.client.require(instanceKind, { project, name });
  }

  volume(name: string): Promise<Volume> {
    return this.daemon.client.require(volumeKind, { project, name });
  }

  /** An instance with the database on its root and on a volume; what is made may grow while it is mounted. */
  async makeSource(name: string): Promise<void> {
    const { client } = this.daemon;
    const spec = {
      type: this.type,
      image: "database",
      diskMib: 128,
      memoryMib: 128,
      userData: databaseWriter,
    };
    await client.create(instanceKind, { project, name, spec: { ...spec, power: "stopped" } });
    const disk =
      this.type === "vm" ? { sizeMib: 64, fileSystem: "ext4" } : { sizeMib: 320, fileSystem: "xfs" };
    const volume = { ...disk, instance: name, path: "/mnt/data" };
    await client.create(volumeKind, { project, name: `${name}-data`, spec: volume });
    await client.patch(instanceKind, { project, name }, { spec: { power: "running" } });
    await untilWritten(await this.running(name), 20);
  }

  async running(name: string): Promise<Instance> {
    const runs = async () => (await this.instance(name)).status.state === "running";
    await until(`${name} runs`, runs, 180_000, 50);
    return this.instance(name);
  }

  async ready(kind: typeof snapshotKind | typeof imageKind | typeof backupKind, name: string) {
    const settled = async () => {
      const found = await this.daemon.client.get(kind as typeof snapshotKind, { project, name });
      if (found?.status.state === "failed") throw new Error(`${name}: ${found.status.message}`);
      return !found || found.status.state === "ready";
    };
    await until(`${name} is ready or absent`, settled, 120_000, 50);
    const found = await this.daemon.client.get(kind as typeof snapshotKind, { project, name });
    return found ? "complete" : "absent";
  }

  /** Rows in a new volume of that snapshot or backup, which goes away again. */
  async rowsRestored(name: string, source: object, like: string): Promise<number> {
    const { client, settings } = this.daemon;
    const { sizeMib, fileSystem } = (await this.volume(like)).spec;
    await client.create(volumeKind, { project, name, spec: { sizeMib, fileSystem, source } as never });
    const available = async () => (await this.volume(name)).status.state === "available";
    await until(`${name} is restored`, available, 60_000, 50);
    const { uid } = (await this.volume(name)).metadata;
    const rows = await rowsOnDisk(join(settings.stateDir, "volumes", uid, "data.raw"), this.scratch);
    await client.delete(volumeKind, { project, name });
    return rows;
  }
}

export type OperationName = (typeof operationNames)[number];
export const operationNames = [
  "snapshot",
  "clone",
  "image",
  "backup",
  "growth",
  "attach",
  "rollback",
] as const;

export function operationOf(name: OperationName, scene: DurableScene): Operation {
  const source = `${name}-src`;
  const makers: Record<OperationName, (scene: DurableScene, source: string) => Operation> = {
    snapshot,
    clone,
    image,
    backup,
    growth,
    attach,
    rollback,
  };
  return makers[name](scene, source);
}

function snapshot(scene: DurableScene, source: string): Operation {
  const { client } = scene.daemon;
  const name = (round: number) => `snap-${round}`;
  return {
    source,
    prepare: () => scene.makeSource(source),
    ask: (round) => client.create(snapshotKind, { project, name: name(round), spec: { instance: source } }),
    settle: (round) => scene.ready(snapshotKind, name(round)),
    async check(round, sure) {
      const from = { snapshot: name(round), volume: `${source}-data` };
      expect(await scene.rowsRestored(`of-${name(round)}`, from, `${source}-data`)).toBeGreaterThanOrEqual(
        sure,
      );
    },
    undo: (round) => gone(scene, snapshotKind, name(round)),
  };
}

function clone(scene: DurableScene, source: string): Operation {
  const { client } = scene.daemon;
  const name = (round: number) => `clone-${round}`;
  const taken = "clone-base";
  let rows = 0;
  let machine: object;
  return {
    source,
    async prepare() {
      await scene.makeSource(source);
      rows = await acknowledgedRow(await scene.instance(source));
      await client.create(snapshotKind, { project, name: taken, spec: { instance: source } });
      expect(await scene.ready(snapshotKind, taken)).toBe("complete");
      machine = (await client.require(snapshotKind, { project, name: taken })).status.machine ?? {};
    },
    ask(round) {
      const spec = { ...machine, source: { snapshot: taken } };
      return client.create(instanceKind, { project, name: name(round), spec: spec as never });
    },
    async settle(round) {
      const found = await client.get(instanceKind, { project, name: name(round) });
      if (!found) return "absent";
      await scene.running(name(round));
      return "complete";
    },
    async check(round) {
      const made = await scene.running(name(round));
      const found = await databasesAtStart(made);
      expect(found.data).toBeGreaterThanOrEqual(rows);
      await untilWritten(made, found.root + 1);
      await expectSound(made);
    },
    async undo(round) {
      await gone(scene, instanceKind, name(round));
      await gone(scene, volumeKind, `${name(round)}-${source}-data`);
    },
    victim: name,
  };
}

function image(scene: DurableScene, source: string): Operation {
  const { client } = scene.daemon;
  const name = (round: number) => `image-${round}`;
  return {
    source,
    prepare: () => scene.makeSource(source),
    ask: (round) =>
      client.create(imageKind, {
        project,
        name: name(round),
        spec: { source: { type: "instance", instance: source } },
      }),
    settle: (round) => scene.ready(imageKind, name(round)),
    async check(round, sure) {
      const of = `of-${name(round)}`;
      const spec = {
        type: "container",
        image: name(round),
        diskMib: 128,
        memoryMib: 64,
        userData: databaseReader,
      };
      await client.create(instanceKind, { project, name: of, spec: spec as never });
      expect((await databasesAtStart(await scene.running(of))).root).toBeGreaterThanOrEqual(sure);
      await gone(scene, instanceKind, of);
    },
    undo: (round) => gone(scene, imageKind, name(round)),
  };
}

function backup(scene: DurableScene, source: string): Operation {
  const { client } = scene.daemon;
  const name = (round: number) => `backup-${round}`;
  return {
    source,
    prepare: () => scene.makeSource(source),
    ask: (round) =>
      client.create(backupKind, {
        project,
        name: name(round),
        spec: { volume: `${source}-data`, repository: "nas" },
      }),
    settle: (round) => scene.ready(backupKind, name(round)),
    async check(round, sure) {
      const from = { backup: name(round) };
      expect(await scene.rowsRestored(`of-${name(round)}`, from, `${source}-data`)).toBeGreaterThanOrEqual(
        sure,
      );
    },
    undo: (round) => gone(scene, backupKind, name(round)),
  };
}

function growth(scene: DurableScene, source: string): Operation {
  const { client } = scene.daemon;
  const ref = { project, name: `${source}-data` };
  let sizeMib = 0;
  return {
    source,
    async prepare() {
      await scene.makeSource(source);
      sizeMib = (await scene.volume(ref.name)).spec.sizeMib;
    },
    ask: () => client.patch(volumeKind, ref, { spec: { sizeMib: sizeMib + 16 } }),
    async settle() {
      const grown = async () => {
        const { spec, status } = await scene.volume(ref.name);
        return status.sizeMib === spec.sizeMib && status.state === "attached";
      };
      await until(`${ref.name} has its size`, grown, 120_000, 50);
      const { spec } = await scene.volume(ref.name);
      const outcome = spec.sizeMib > sizeMib ? "complete" : "absent";
      expect([sizeMib, sizeMib + 16]).toContain(spec.sizeMib);
      sizeMib = spec.sizeMib;
      return outcome;
    },
    async check() {
      const { uid } = (await scene.volume(ref.name)).metadata;
      const path = join(scene.daemon.settings.stateDir, "volumes", uid, "data.raw");
      expect((await run("stat", ["--format", "%s", path])).stdout.trim()).toBe(`${sizeMib * 1024 ** 2}`);
    },
    undo: async () => {},
  };
}

/** Attached and detached by turns. */
function attach(scene: DurableScene, source: string): Operation {
  const { client } = scene.daemon;
  const ref = { project, name: "plug" };
  let attached = false;
  return {
    source,
    async prepare() {
      await scene.makeSource(source);
      await client.create(volumeKind, { ...ref, spec: { sizeMib: 64, fileSystem: "ext4" } });
    },
    ask: () => client.patch(volumeKind, ref, { spec: { instance: attached ? null : source } }),
    async settle() {
      const settled = async () => {
        const { spec, status, metadata } = await scene.volume(ref.name);
        if (status.observedGeneration !== metadata.generation) return false;
        return status.state === (spec.instance ? "attached" : "available");
      };
      await until("the volume is attached or available", settled, 120_000, 50);
      const now = (await scene.volume(ref.name)).spec.instance !== undefined;
      const outcome = now === attached ? "absent" : "complete";
      attached = now;
      return outcome;
    },
    check: async () => {},
    async undo() {
      const instance = await scene.running(source);
      // Its data volume: where that is mounted, and in a virtual machine the disk as well.
      const own = scene.type === "vm" ? 2 : 1;
      const seen = async () => (await disksInside(instance)).length === own + (attached ? 1 : 0);
      await until(`the volume is ${attached ? "" : "not "}there inside`, seen, 60_000, 100);
      if (attached) return;
      const { uid } = (await scene.volume(ref.name)).metadata;
      const path = join(scene.daemon.settings.stateDir, "volumes", uid, "data.raw");
      expect((await run("losetup", ["-j", path])).stdout).toBe("");
    },
  };
}

function rollback(scene: DurableScene, source: string): Operation {
  const { client } = scene.daemon;
  const ref = { project, name: "rollback-base" };
  let sure = 0;
  let kept: Rows | undefined;
  let asked = 0;
  let start = "";
  const state = () => client.require(snapshotKind, ref);
  return {
    source,
    restarts: true,
    async prepare() {
      await scene.makeSource(source);
      sure = await acknowledgedRow(await scene.instance(source));
      await client.create(snapshotKind, { ...ref, spec: { instance: source } });
      expect(await scene.ready(snapshotKind, ref.name)).toBe("complete");
    },
    async ask() {
      start = await startId(await scene.instance(source));
      await client.patch(snapshotKind, ref, { spec: { rollbacks: asked + 1 } });
    },
    async settle() {
      const done = async () => {
        const { spec, status } = await state();
        return spec.rollbacks === status.rollbacks && status.state === "ready";
      };
      await until("it is as it was", done, 120_000, 50);
      const { rollbacks } = (await state()).spec;
      const outcome = rollbacks > asked ? "complete" : "absent";
      asked = rollbacks;
      return outcome;
    },
    async check() {
      const instance = await scene.running(source);
      await untilStartedAnew(instance, start);
      const found = await databasesAtStart(instance);
      expect(found.data).toBeGreaterThanOrEqual(sure);
      expect([0, 1], JSON.stringify(found)).toContain(found.root - found.data);
      kept ??= found;
      expect(found).toEqual(kept);
    },
    undo: async () => {},
  };
}

async function untilStartedAnew(instance: Instance, startBefore: string): Promise<void> {
  const anew = async () => !["", startBefore].includes(await startId(instance));
  await until(`${instance.metadata.name} has started anew`, anew, 120_000, 50);
}

async function gone(
  scene: DurableScene,
  kind: typeof snapshotKind | typeof imageKind | typeof backupKind | typeof instanceKind | typeof volumeKind,
  name: string,
): Promise<void> {
  const one = kind as typeof snapshotKind;
  const absent = async () => {
    const found = await scene.daemon.client.get(one, { project, name });
    if (found && found.metadata.deletedAt === undefined) {
      await scene.daemon.client.delete(one, { project, name }).catch(() => {}); // in use: once more
    }
    return !found;
  };
  await until(`${name} is gone`, absent, 60_000, 50);
}
