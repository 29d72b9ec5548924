/**
 * kill -9 at seeded moments of each operation on instances whose database writes all the time: of the daemon, with containers,
 * and of QEMU, with virtual machines. The source is never hurt, and what was asked for is complete or absent.
 *
 * How long an operation takes is measured first; each round then draws, for each operation, a moment within it. STRATA_SEED
 * repeats a failure, STRATA_ROUNDS says how often the daemon is killed, STRATA_QEMU_ROUNDS how often each QEMU.
 */
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { type Random, randomInt, seededRandom } from "../src/core/random.ts";
import { backupKind } from "../src/kinds/backup.ts";
import { backupRepositoryKind } from "../src/kinds/backup-repository.ts";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { snapshotKind } from "../src/kinds/snapshot.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import {
  DurableScene,
  type GuestType,
  type Operation,
  operationNames,
  operationOf,
} from "./durable-operations.ts";
import { qemuPid } from "./guest-pid.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import {
  acknowledgedRow,
  databaseImage,
  databasesAtStart,
  expectSound,
  startId,
  untilWritten,
} from "./sqlite-guest.ts";
import { allowMany, removeAll, TestDaemon, until } from "./test-daemon.ts";

const project = "default";
const rounds = Number(process.env.STRATA_ROUNDS ?? 3);
const qemuRounds = Number(process.env.STRATA_QEMU_ROUNDS ?? 1);
const seed = Number(process.env.STRATA_SEED ?? 20261129);
let before: Snapshot;
let daemon: TestDaemon;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  await allowMany(daemon);
  const files = await daemon.scratch("files");
  await daemon.ok(["image", "import", "database", await databaseImage(files), "-p", project]);
  const directory = join(daemon.settings.backupDirs[0] ?? "", "rows");
  const repository = ["backup-repository", "create", "nas", "--directory", directory];
  await daemon.ok([...repository, "--new-key", join(files, "nas.key"), "-p", project]);
});

afterAll(async () => {
  await removeAll(daemon, project, [
    backupKind,
    backupRepositoryKind,
    snapshotKind,
    instanceKind,
    volumeKind,
    imageKind,
  ]);
  await daemon.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 120_000);

/** One operation with its source, through all rounds. */
class Trial {
  readonly operation: Operation;
  readonly outcomes = { complete: 0, absent: 0 };
  readonly #scene: DurableScene;
  #takesMs = 0;
  #sure = 0;
  #start = "";

  constructor(scene: DurableScene, operation: Operation) {
    this.#scene = scene;
    this.operation = operation;
  }

  source() {
    return this.#scene.instance(this.operation.source);
  }

  /** Without a kill: how long it takes. */
  async measure(round: number): Promise<number> {
    await this.begin();
    const begun = systemClock.monotonicMs();
    await this.operation.ask(round);
    expect(await this.operation.settle(round)).toBe("complete");
    this.#takesMs = systemClock.monotonicMs() - begun;
    await this.operation.check(round, this.#sure);
    await this.operation.undo(round);
    return this.#takesMs;
  }

  /** A moment of it, and of what comes right after, in milliseconds since it was asked for. */
  moment(random: Random): number {
    return randomInt(random, Math.ceil(this.#takesMs * 1.1) + 20);
  }

  async begin(): Promise<void> {
    const source = await this.source();
    this.#sure = await acknowledgedRow(source);
    this.#start = await startId(source);
  }

  /** After a kill: `lost` says whether the source itself was killed. */
  async end(round: number, lost: boolean): Promise<void> {
    const { operation } = this;
    const outcome = await operation.settle(round);
    this.outcomes[outcome]++;
    if (lost) await this.#restarted();
    const source = await this.#scene.running(operation.source);
    const restarted = operation.restarts && outcome === "complete";
    if (lost && !restarted) {
      const found = await databasesAtStart(source);
      expect(found.data).toBeGreaterThanOrEqual(this.#sure);
      expect([0, 1], JSON.stringify(found)).toContain(found.root - found.data);
    }
    if (outcome === "complete") await operation.check(round, this.#sure);
    if (!lost && !restarted) {
      expect(await startId(source), "it was not started anew").toBe(this.#start);
      await untilWritten(source, this.#sure + 1);
    }
    await expectSound(source);
    await operation.undo(round);
  }

  /** Asked for, as a user would: what is killed so often waits longer each time before it starts again by itself. */
  async #restarted(): Promise<void> {
    const { source: name } = this.operation;
    const anew = async () => {
      const { status, spec } = await this.source();
      if (status.state === "backoff") {
        const restarts = spec.restarts + (spec.restarts === status.observedRestarts ? 1 : 0);
        await daemon.client.patch(instanceKind, { project, name }, { spec: { restarts } });
      }
      return !["", this.#start].includes(await startId(await this.source()));
    };
    await until(`${name} has started anew`, anew, 180_000, 100);
  }
}

async function trialsOf(type: GuestType): Promise<Trial[]> {
  const scene = new DurableScene(daemon, type, await daemon.scratch("disks"));
  const trials = operationNames.map((name) => new Trial(scene, operationOf(name, scene)));
  await Promise.all(trials.map(({ operation }) => operation.prepare()));
  // Twice: what the first makes for all (a disk of the image, the index of the repository) is no part of the operation.
  await Promise.all(trials.map((trial) => trial.measure(0)));
  const taken = await Promise.all(trials.map((trial) => trial.measure(1)));
  console.log(
    `seed ${seed}; ms: ${JSON.stringify(named(trials, (_, index) => Math.round(taken[index] ?? 0)))}`,
  );
  return trials;
}

function named<T>(trials: readonly Trial[], value: (trial: Trial, index: number) => T): Record<string, T> {
  return Object.fromEntries(trials.map((trial, index) => [operationNames[index], value(trial, index)]));
}

afterEach(() => removeAll(daemon, project, [backupKind, snapshotKind, instanceKind, volumeKind]));

describe("operations", () => {
  it(`of containers are complete or absent through ${rounds} kills of the daemon`, {
    timeout: 3_600_000,
  }, async () => {
    const random = seededRandom(seed);
    const trials = await trialsOf("container");
    for (let round = 2; round < rounds + 2; round++) {
      await Promise.all(trials.map((trial) => trial.begin()));
      const moments = trials.map((trial) => trial.moment(random));
      const latest = Math.max(...moments);
      // Each is asked for so long before the one kill.
      const asked = trials.map(async ({ operation }, index) => {
        await systemClock.sleep(latest - (moments[index] ?? 0));
        await operation.ask(round).catch(() => {});
      });
      await systemClock.sleep(latest);
      await daemon.kill();
      await daemon.start();
      await Promise.all(asked);
      await Promise.all(trials.map((trial) => inRound(round, trial, moments, trial.end(round, false))));
    }
    console.log(JSON.stringify(named(trials, ({ outcomes }) => outcomes)));
  });

  it(`of virtual machines are complete or absent through ${qemuRounds} kills of each QEMU`, {
    timeout: 3_600_000,
  }, async () => {
    const random = seededRandom(seed);
    const trials = await trialsOf("vm");
    const killed = { running: 0, gone: 0 };
    for (let round = 2; round < qemuRounds + 2; round++) {
      const moments = trials.map((trial) => trial.moment(random));
      await Promise.all(
        trials.map(async (trial, index) => {
          await trial.begin();
          const asked = trial.operation.ask(round);
          await systemClock.sleep(moments[index] ?? 0);
          const victim = trial.operation.victim?.(round) ?? trial.operation.source;
          const hit = await killQemu(victim);
          killed[hit ? "running" : "gone"]++;
          await asked;
          const lost = hit && victim === trial.operation.source;
          await inRound(round, trial, moments, trial.end(round, lost));
        }),
      );
    }
    console.log(JSON.stringify({ ...named(trials, ({ outcomes }) => outcomes), killed }));
  });
});

/** False when there is none at this moment. */
async function killQemu(name: string): Promise<boolean> {
  const instance = await daemon.client.get(instanceKind, { project, name });
  const pid = instance && (await qemuPid(instance).catch(() => undefined));
  if (pid === undefined) return false;
  try {
    process.kill(pid, "SIGKILL");
    return true;
  } catch {
    return false;
  }
}

async function inRound(
  round: number,
  { operation }: Trial,
  moments: readonly number[],
  end: Promise<void>,
): Promise<void> {
  await end.catch((cause: unknown) => {
    throw new Error(`${operation.source}, round ${round}, moments ${moments.join(" ")}, seed ${seed}`, {
      cause,
    });
  });
}
