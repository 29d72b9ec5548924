/**
 * Virtual machines with QEMU, under KVM where that is proven to work and under TCG (emulation) where not.
 *
 * Invariants:
 * - One directory a guest (guest-files.ts) says that it exists; it is made first and removed last.
 * - QEMU is confined before its first instruction (confinement.ts) and gets no path of ours (command-line.ts).
 * - Guests need no daemon: they run, end, and leave the reason of their end to be read without one.
 * - Nothing polls. The control group's own notification says that a guest ended; QEMU's monitor for commands is connected
 *   to only for as long as a command takes, so two drivers over the same guests (a daemon and its successor) do not
 *   compete. Only pauses for want of space need an ear all the time, on a monitor of their own (storage-pause.ts).
 */
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../../core/clock.ts";
import { assert, describeError, StrataError } from "../../core/errors.ts";
import { isUid, type Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import type { Logger } from "../../core/logger.ts";
import type { Random } from "../../core/random.ts";
import type { Cgroups } from "../../host/cgroups.ts";
import type { HostConfig } from "../../host/host-config.ts";
import type { KvmProof } from "../../host/probes/kvm.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import type {
  Cards,
  Drift,
  GuestDriver,
  GuestSpec,
  ObservedGuest,
  Resize,
  Snapshots,
  Volumes,
} from "../driver.ts";
import { HintQueue } from "../hint-queue.ts";
import { AcceleratorChoice } from "./accelerator-choice.ts";
import { placeCards } from "./card-places.ts";
import { keepTrimmed } from "./console-log.ts";
import { type ChainFile, readDiskChain } from "./disk-chain.ts";
import { beginCopies, completeCopies, forgetCopies, hasCopies } from "./disk-copies.ts";
import { GuestExec } from "./guest-exec.ts";
import {
  GuestFiles,
  type GuestRecord,
  guestsDirectory,
  listGuests,
  type PutBack,
  type RunRecord,
} from "./guest-files.ts";
import { GuestLifecycle, type LifecycleOptions, type Sight } from "./guest-lifecycle.ts";
import { HotCards } from "./hot-cards.ts";
import { HotResize } from "./hot-resize.ts";
import { HotVolumes } from "./hot-volumes.ts";
import { readMachineDrift } from "./machine-drift.ts";
import { mountedFrom } from "./mounted-disks.ts";
import { type QemuConfig, qemuConfigSchema } from "./qemu-config.ts";
import { qemuFingerprint } from "./qemu-fingerprint.ts";
import { putBackMemory, recoverLoading, startGuest } from "./resume.ts";
import { writeSeedImage } from "./seed-image.ts";
import { SerialConsole } from "./serial-console.ts";
import { recoverStill, type StillParts, whileStill } from "./still-guest.ts";
import { continueAfterPauses } from "./storage-pause.ts";
import { validateGuest } from "./validate-guest.ts";

export interface QemuDriverOptions {
  host: HostConfig;
  cgroups: Cgroups;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Proves KVM by a boot; asked once, and again after it threw (then TCG is used). */
  proveKvm(signal: AbortSignal): Promise<KvmProof>;
}

/** All there is to know: the rest is in the guest's directory. */
export type QemuHandle = { version: 1; uid: Uid };

/** QEMU's user ids: from this far above the host's base, below it are the ids that containers' own are shifted to. */
const processUidOffset = 65_536;
const processUidCount = 65_536;

// Of the process, not of one driver: a driver and its successor may exist side by side for a moment.
const guestLock = new KeyedLock();
const processUidLock = new KeyedLock();

export function createQemuDriver(options: QemuDriverOptions): GuestDriver<QemuConfig, QemuHandle> {
  return new QemuDriver(options);
}

class QemuDriver implements GuestDriver<QemuConfig, QemuHandle> {
  readonly name = "qemu";
  readonly config = qemuConfigSchema as GuestDriver<QemuConfig>["config"];
  readonly handleVersion = 1;
  readonly console: SerialConsole;
  readonly exec: GuestExec;
  readonly cards: Cards<QemuHandle>;
  readonly resize: Resize<QemuHandle>;
  readonly volumes: Volumes<QemuHandle>;
  readonly snapshots: Snapshots<QemuHandle>;
  readonly drift: Drift<QemuHandle>;
  readonly #options: QemuDriverOptions;
  readonly #lifecycle: LifecycleOptions;
  readonly #accelerators: AcceleratorChoice;
  readonly #listeners = new Set<(uid: Uid) => void>();
  /** Ends the watch over each running guest's control group and console. */
  readonly #watches = new Map<Uid, () => void>();
  readonly #recovering = new Set<Uid>();

  constructor(options: QemuDriverOptions) {
    this.#options = options;
    this.#accelerators = new AcceleratorChoice(options);
    this.#lifecycle = {
      ...options,
      namespace: options.host.namespace,
      accelerator: (signal) => this.#accelerators.choose(signal),
    };
    this.console = new SerialConsole({
      clock: options.clock,
      filesOf: (handle) => this.#filesOf(handle),
      isRunning: async (files) => (await this.#guest(files).look()).state === "running",
    });
    this.cards = {
      attach: (handle, nic, signal) =>
        this.#changing(handle, signal, (guest) => new HotCards(guest, options).attach(nic, signal)),
      detach: (handle, card, signal) =>
        this.#changing(handle, signal, (guest) => new HotCards(guest, options).detach(card, signal)),
    };
    this.resize = {
      live: { cpus: true, memory: "both" },
      apply: (handle, size, signal) =>
        this.#changing(handle, signal, (guest) => new HotResize(guest, this.#lifecycle).apply(size, signal)),
    };
    const hotVolumes = (guest: GuestLifecycle) =>
      new HotVolumes(guest, options.clock, (serial, signal) =>
        mountedFrom(guest.files.socket("agent"), serial, options, signal),
      );
    this.volumes = {
      takes: "disk",
      attach: (handle, volume, signal) =>
        this.#changing(handle, signal, (guest) => hotVolumes(guest).attach(volume, signal)),
      detach: (handle, volume, signal) =>
        this.#changing(handle, signal, (guest) => hotVolumes(guest).detach(volume, signal)),
    };
    this.snapshots = {
      keptStillBy: "driver",
      whileStill: async (handle, use, signal) => {
        signal.throwIfAborted();
        return this.#still(this.#filesOf(handle), use, signal);
      },
      copies: {
        begin: (handle, request, signal) =>
          this.#withGuest(this.#filesOf(handle), (guest) =>
            beginCopies(guest, this.#stillParts, request, signal),
          ),
        memory: {
          putBack: (handle, memory) =>
            this.#withGuest(this.#filesOf(handle), (guest) => putBackMemory(guest, memory)),
          leave: (handle) => this.#withGuest(this.#filesOf(handle), ({ files }) => files.removePutBack()),
        },
        complete: async (id, signal) => {
          const [guest] = await this.#copiedAs(id);
          if (guest) await completeCopies(guest, options.clock, id, signal);
          return guest !== undefined;
        },
        forget: async (id) => {
          for (const guest of await this.#copiedAs(id)) {
            await guestLock.run(guest.files.directory, () => forgetCopies(guest, options.clock, id));
          }
        },
      },
    };
    this.drift = {
      read: async (handle, request, signal) => {
        signal.throwIfAborted();
        const files = this.#filesOf(handle);
        return readMachineDrift(files, request, (use) => this.#still(files, use, signal), signal);
      },
    };
    this.exec = new GuestExec({ ...options, guestOf: (handle) => this.#guest(this.#filesOf(handle)) });
  }

  async fingerprint(signal: AbortSignal): Promise<Fingerprint> {
    return qemuFingerprint((inner) => this.#accelerators.prove(inner), signal);
  }

  async list(): Promise<ObservedGuest<QemuHandle>[]> {
    const uids = await listGuests(this.#options.host);
    const found = await Promise.all(
      uids.map((uid) =>
        this.inspect(uid).catch((error) => {
          // One that cannot be looked at must not hide the others.
          this.#options.logger.error({ uid, error: describeError(error) }, "cannot look at a guest");
          return undefined;
        }),
      ),
    );
    return found.filter((guest) => guest !== undefined);
  }

  async inspect(uid: Uid): Promise<ObservedGuest<QemuHandle> | undefined> {
    const guest = this.#guest(this.#files(uid));
    let sight = await guest.look();
    if (sight.state === "ended") {
      // It is over, or a start that holds the lock has not come to the first process yet.
      await this.#settle(guest);
      sight = await guest.look();
    }
    if (sight.state === "running") this.#watch(guest);
    return observed(uid, sight, await guest.files.readPutBack());
  }

  async create(spec: GuestSpec<QemuConfig>, signal: AbortSignal): Promise<QemuHandle> {
    signal.throwIfAborted();
    const valid = validateGuest(spec);
    const files = this.#files(valid.uid);
    await guestLock.run(files.directory, async () => {
      await files.make();
      const guest = this.#guest(files);
      const sight = await guest.look();
      if (sight.state === "running") return;
      await guest.lockedSettle();
      await this.#writeRecord(files, valid, signal);
    });
    return handleOf(valid.uid);
  }

  async start(handle: QemuHandle, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const files = this.#filesOf(handle);
    await guestLock.run(files.directory, async () => {
      const record = await files.readGuest();
      if (record === undefined) {
        throw new StrataError("NotFound", `the virtual machine ${files.uid} does not exist on this host`);
      }
      const guest = this.#guest(files);
      await recoverLoading(guest, this.#stillParts);
      if ((await guest.look()).state !== "running") {
        await guest.lockedSettle();
        await startGuest(guest, this.#stillParts, record, signal);
      }
      if (record.spec.nics.length > 1) await new HotCards(guest, this.#options).complete(signal);
      this.#watch(guest);
    });
    this.#emit(files.uid);
  }

  async stop(handle: QemuHandle, { graceMs }: { graceMs: number }, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const files = this.#filesOf(handle);
    await guestLock.run(files.directory, async () => {
      const guest = this.#guest(files);
      const sight = await guest.look();
      if (sight.state === "running") await guest.lockedStop(sight.run, graceMs, signal);
      else await guest.lockedSettle();
      this.#unwatch(files.uid);
    });
    this.#emit(files.uid);
  }

  async destroy(handle: QemuHandle, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const files = this.#filesOf(handle);
    await guestLock.run(files.directory, async () => {
      await this.#guest(files).lockedDestroy();
      this.#unwatch(files.uid);
    });
    this.#emit(files.uid);
  }

  get #stillParts(): StillParts {
    const locked = (guest: GuestLifecycle, task: () => Promise<void>) =>
      guestLock.run(guest.files.directory, task);
    return { ...this.#options, locked };
  }

  #still<Result>(files: GuestFiles, use: (signal: AbortSignal) => Promise<Result>, signal: AbortSignal) {
    return this.#withGuest(files, (guest) => whileStill(guest, this.#stillParts, use, signal));
  }

  /** With its lock, and not in the midst of a start that was cut off. */
  #withGuest<Result>(files: GuestFiles, use: (guest: GuestLifecycle) => Promise<Result>): Promise<Result> {
    const guest = this.#guest(files);
    return guestLock.run(files.directory, async () => {
      await recoverLoading(guest, this.#stillParts);
      return use(guest);
    });
  }

  /** Guests whose disks are being copied under this id, or were and it is not forgotten. */
  async #copiedAs(id: Uid): Promise<GuestLifecycle[]> {
    const guests = (await listGuests(this.#options.host)).map((uid) => this.#guest(this.#files(uid)));
    const found = await Promise.all(guests.map((guest) => hasCopies(guest, id)));
    return guests.filter((_guest, index) => found[index]);
  }

  async #changing(
    handle: QemuHandle,
    signal: AbortSignal,
    change: (guest: GuestLifecycle) => Promise<void>,
  ): Promise<void> {
    signal.throwIfAborted();
    await this.#withGuest(this.#filesOf(handle), change);
  }

  events(signal: AbortSignal): AsyncIterable<{ uid: Uid }> {
    const hints = new HintQueue(signal);
    if (signal.aborted) return hints;
    const listener = (uid: Uid) => hints.push(uid);
    this.#listeners.add(listener);
    signal.addEventListener("abort", () => this.#listeners.delete(listener), { once: true });
    // Those that run already are found by looking at each; one that ended meanwhile is settled and hinted at.
    this.list().catch((error) => {
      this.#options.logger.warn({ error: describeError(error) }, "cannot look at all virtual machines");
    });
    return hints;
  }

  /** Writes what changed: the seed before the record that goes with it. */
  async #writeRecord(files: GuestFiles, spec: GuestSpec<QemuConfig>, signal: AbortSignal): Promise<void> {
    const known = await files.readGuest();
    if (known && isDeepStrictEqual(known.spec, spec)) return;
    if (!known || !isDeepStrictEqual(known.spec.seed, spec.seed)) {
      await writeSeedImage(files.seed, spec.seed, files.directory, signal);
    }
    // Read before a QEMU ever had the disk in its hands: what a disk says of itself afterwards is not believed.
    const disk =
      known && isDeepStrictEqual(known.spec.root, spec.root)
        ? known.disk
        : await readDiskChain(diskOf(spec), signal);
    const places = placeCards(spec.nics, known?.places ?? {});
    if (known) return files.writeGuest({ spec, disk, places, processUid: known.processUid });
    const { host } = this.#options;
    await processUidLock.run(guestsDirectory(host), async () => {
      await files.writeGuest({ spec, disk, places, processUid: await this.#freeProcessUid() });
    });
  }

  async #freeProcessUid(): Promise<number> {
    const { host } = this.#options;
    const records = await Promise.all((await listGuests(host)).map((uid) => this.#files(uid).readGuest()));
    const taken = new Set(records.map((record: GuestRecord | undefined) => record?.processUid));
    const first = host.idBase + processUidOffset;
    for (let candidate = first; candidate < first + processUidCount; candidate++) {
      if (!taken.has(candidate)) return candidate;
    }
    throw new StrataError(
      "CapacityExceeded",
      `this host has ${processUidCount} virtual machines, one for each user id that is set aside for QEMU`,
    );
  }

  async #settle(guest: GuestLifecycle): Promise<void> {
    const { uid, directory } = guest.files;
    await guestLock.run(directory, async () => {
      if ((await guest.look()).state !== "ended") return;
      await guest.lockedSettle();
      this.#unwatch(uid);
    });
    this.#emit(uid);
  }

  /** Settles and hints as soon as the last process is gone. */
  #watch(guest: GuestLifecycle): void {
    const { uid } = guest.files;
    this.#recoverStill(guest);
    if (this.#watches.has(uid)) return;
    const onChange = (populated: boolean) => {
      if (populated) return;
      this.#unwatch(uid);
      this.#settle(guest).catch((error) => {
        this.#options.logger.error({ uid, error: describeError(error) }, "cannot clean up after a guest");
        this.#emit(uid);
      });
    };
    const { logger, clock, cgroups } = this.#options;
    try {
      const unwatch = cgroups.watch(guest.group, onChange);
      const endTrimming = keepTrimmed(guest.files.consoleLog, clock, (error) => {
        logger.warn({ uid, error: describeError(error) }, "cannot shorten a console's log");
      });
      const endListening = continueAfterPauses(guest.files.socket("events"), { clock, logger, title: uid });
      this.#watches.set(uid, () => {
        unwatch();
        endTrimming();
        endListening();
      });
    } catch (error) {
      logger.debug({ uid, error: describeError(error) }, "cannot watch a guest");
    }
    // It may have ended between the look and the watch.
    cgroups.isPopulated(guest.group).then(onChange, () => {});
  }

  /**
   * At each look: what kept the machine still, or loaded its memory, may have been killed, or QEMU not have answered when it
   * was to go on. With the lock, which whoever does so has meanwhile.
   */
  #recoverStill(guest: GuestLifecycle): void {
    const { uid } = guest.files;
    if (this.#recovering.has(uid)) return;
    this.#recovering.add(uid);
    this.#withGuest(guest.files, () => recoverStill(guest, this.#stillParts))
      .catch((error) => {
        const { logger } = this.#options;
        logger.warn({ uid, error: describeError(error) }, "a machine that was kept still may not go on");
      })
      .finally(() => this.#recovering.delete(uid));
  }

  #unwatch(uid: Uid): void {
    this.#watches.get(uid)?.();
    this.#watches.delete(uid);
  }

  #emit(uid: Uid): void {
    for (const listener of this.#listeners) listener(uid);
  }

  #files(uid: Uid): GuestFiles {
    return new GuestFiles(this.#options.host, uid);
  }

  #filesOf(handle: JsonObject): GuestFiles {
    const { uid } = handle;
    if (typeof uid === "string" && isUid(uid)) return this.#files(uid);
    throw new StrataError("Invalid", "the recorded handle of the virtual machine is not one of this driver");
  }

  #guest(files: GuestFiles): GuestLifecycle {
    return new GuestLifecycle(files, this.#lifecycle);
  }
}

function diskOf({ root }: GuestSpec<QemuConfig>): ChainFile {
  assert(root.type === "disk", "a virtual machine's root is a disk");
  return { path: root.path, format: root.format };
}

function handleOf(uid: Uid): QemuHandle {
  return { version: 1, uid };
}

function observed(
  uid: Uid,
  sight: Sight,
  putBack: PutBack | undefined,
): ObservedGuest<QemuHandle> | undefined {
  const handle = handleOf(uid);
  const memory = memoryOf("run" in sight ? sight.run : undefined, putBack);
  switch (sight.state) {
    case "absent":
      return undefined;
    case "created":
      return { uid, handle, state: "created" };
    case "running": {
      const { pid, run } = sight;
      return {
        ...{ uid, handle, state: "running", runId: run.runId },
        ...(pid === undefined ? {} : { pid }),
        ...memory,
      };
    }
    case "ended":
      return { uid, handle, state: "running", runId: sight.run.runId, ...memory };
    case "stopped": {
      const { run, exit } = sight;
      return { uid, handle, state: "stopped", runId: run.runId, exit, ...memory };
    }
  }
}

function memoryOf(
  run: RunRecord | undefined,
  putBack: PutBack | undefined,
): Pick<ObservedGuest<QemuHandle>, "memory"> {
  if (putBack) return { memory: { id: putBack.id, state: "waiting", message: "" } };
  if (!run?.memory || run.memory.state === "loading") return {};
  const { id, state, message } = run.memory;
  return { memory: { id, state, message } };
}
