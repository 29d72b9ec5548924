/**
 * The life of one guest on this host: what its files and its control group say, and the steps between the states.
 *
 * The control group is the truth about what runs (process ids can be reused, a group of this guest's name cannot);
 * `run.json` is the truth about what was wanted. A run is recorded before anything of it is made and closed after all
 * of it is gone, so whatever happens in between, the next look finds an open run and knows what to take away.
 *
 * Methods whose name begins with "locked" are called with the guest's lock held.
 */
import { access, readFile, rm } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import type { Clock } from "../../core/clock.ts";
import { describeError, hasCode, StrataError } from "../../core/errors.ts";
import { encodeBase32 } from "../../core/ids.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import type { Logger } from "../../core/logger.ts";
import { ownFile } from "../../core/own-files.ts";
import type { Random } from "../../core/random.ts";
import type { Cgroups } from "../../host/cgroups.ts";
import { run } from "../../host/run.ts";
import type { ExitReason } from "../driver.ts";
import type { Accelerator, Waiting } from "./command-line.ts";
import { explainEnd, lastWords } from "./confinement.ts";
import type { GuestFiles, GuestRecord, Launched, RunRecord } from "./guest-files.ts";
import { ensureKvmAccess } from "./kvm-access.ts";
import { launchQemu } from "./launch.ts";
import { QmpClient } from "./qmp-client.ts";
import { cgroupLimits } from "./resource-limits.ts";
import { ensureTunAccess, joinFurtherPort, makeLoosePort, makePort, removeFurtherPort } from "./tap-ports.ts";

export interface LifecycleOptions {
  cgroups: Cgroups;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Of all guests' control groups. */
  namespace: string;
  /** Proven to work on this host. */
  accelerator(signal: AbortSignal): Promise<Accelerator>;
}

/** One more than processes that enter a group one after the other. */
const groupTries = 4;

/** How a run begins; by default, the machine boots. */
export interface StartManner {
  memory?: RunRecord["memory"];
  /** The machine is made as it was kept, and waits for its memory. */
  kept?: Waiting & { launched: Launched };
}

/** What the files and the control group say. `ended`: the processes are gone, and nobody has closed the run yet. */
export type Sight =
  | { state: "absent" }
  | { state: "created" }
  | { state: "running"; run: RunRecord; pid: number | undefined }
  | { state: "ended"; run: RunRecord }
  | { state: "stopped"; run: RunRecord; exit: { reason: ExitReason; message: string } };

/** QEMU makes its machine before it greets; on a busy host with large guests that takes seconds. */
const startTimeoutMs = 60_000;
const monitorTimeoutMs = 5_000;
/** A press of the power button is lost while the guest is not yet, or no longer, listening. */
const powerButtonEveryMs = 3_000;
const quitTimeoutMs = 1_000;
const passDescriptorScript = fileURLToPath(ownFile("src/drivers/qemu/pass-descriptor.pl"));

export class GuestLifecycle {
  readonly files: GuestFiles;
  readonly group: string;
  readonly #options: LifecycleOptions;

  constructor(files: GuestFiles, options: LifecycleOptions) {
    this.files = files;
    this.#options = options;
    this.group = `${options.namespace}/${files.uid}`;
  }

  async look(): Promise<Sight> {
    const run = await this.files.readRun();
    if (run === undefined) {
      const exists = await access(this.files.directory).then(
        () => true,
        () => false,
      );
      return { state: exists ? "created" : "absent" };
    }
    if (run.exit) return { state: "stopped", run, exit: run.exit };
    if (!(await this.#options.cgroups.isPopulated(this.group))) return { state: "ended", run };
    return { state: "running", run, pid: run.pid ?? (await this.#findQemu()) };
  }

  /** Takes away what a run left and writes down how it ended. `message` replaces the one that would be found. */
  async lockedSettle(message?: string): Promise<void> {
    const run = await this.files.readRun();
    if (run === undefined || run.exit) return;
    const end = explainEnd({
      stopRequested: run.stopRequested,
      hostRestarted: run.bootId !== (await readBootId()),
      interrupted: run.pid === undefined,
      status: await this.files.readStatus(),
      log: await this.files.readLog(),
    });
    await this.#lockedTakeAway();
    await this.files.writeRun({ ...run, exit: { ...end, ...(message === undefined ? {} : { message }) } });
  }

  /** Which is used for the next start. */
  accelerator(signal: AbortSignal): Promise<Accelerator> {
    return this.#options.accelerator(signal);
  }

  /** Returns what was recorded. @throws what kept it from starting; then it is as it was before. */
  async lockedStart(
    record: GuestRecord,
    signal: AbortSignal,
    { memory, kept }: StartManner = {},
  ): Promise<RunRecord> {
    const before = await this.files.readRun();
    const accelerator = await this.#options.accelerator(signal);
    const { cpus, memoryMib } = kept?.launched ?? record.spec;
    const run: RunRecord = {
      runId: encodeBase32(this.#options.random.bytes(10)),
      bootId: await readBootId(),
      stopRequested: false,
      launched: { cpus, memoryMib, accelerator: accelerator.type },
      ...(memory && { memory }),
    };
    await rm(this.files.status, { force: true });
    await rm(this.files.log, { force: true });
    await this.files.writeRun(run);
    // In a new machine all places are free.
    if (record.leaving?.length) await this.files.writeGuest({ ...record, leaving: [] });
    try {
      const made = { ...record, spec: { ...record.spec, cpus, memoryMib } };
      const pid = await this.#launch(record, { made, run, accelerator, waiting: kept }, signal);
      await this.files.writeRun({ ...run, pid });
      return { ...run, pid };
    } catch (error) {
      await this.#lockedTakeAway();
      await (before === undefined ? this.files.removeRun() : this.files.writeRun(before));
      throw error;
    }
  }

  /** Asks, waits, and kills. @throws the signal's reason; the guest may then still run. */
  async lockedStop(run: RunRecord, graceMs: number, signal: AbortSignal): Promise<void> {
    // Written first: whatever ends the guest from here on, it was asked for.
    if (!run.stopRequested) await this.files.writeRun({ ...run, stopRequested: true });
    let message = "killed as requested";
    if (graceMs > 0) {
      const shutDown = await this.#pressPowerButton(graceMs, signal);
      message = shutDown ? "shut down as requested" : "killed after the grace period";
    }
    if (await this.#options.cgroups.isPopulated(this.group)) {
      await this.#quit();
      await this.#options.cgroups.kill(this.group);
    }
    await this.lockedSettle(message);
  }

  async lockedDestroy(): Promise<void> {
    await this.#lockedTakeAway();
    await this.files.remove();
  }

  /** Runs a command on QEMU's monitor over a connection of its own. */
  async withMonitor<Result>(
    use: (monitor: QmpClient) => Promise<Result>,
    options: { timeoutMs?: number; signal?: AbortSignal } = {},
  ): Promise<Result> {
    const { clock } = this.#options;
    const connectTimeoutMs = options.timeoutMs ?? monitorTimeoutMs;
    return conversations.run(this.#monitorPath, async () => {
      const monitor = await QmpClient.connect(this.#monitorPath, { clock, connectTimeoutMs }, options.signal);
      try {
        return await use(monitor);
      } finally {
        monitor.close();
        // QEMU serves the next connection once this one is gone.
        await monitor.closed;
      }
    });
  }

  /** Gives the running machine an open file, in a descriptor set that is found by `opaque`. @throws Unavailable. */
  async passDescriptor(
    path: string,
    opaque: string,
    signal: AbortSignal,
    { readOnly = false }: { readOnly?: boolean } = {},
  ): Promise<void> {
    await conversations.run(this.#monitorPath, async () => {
      const mode = readOnly ? "read" : "write";
      const args = [passDescriptorScript, this.#monitorPath, path, opaque, mode];
      await run("perl", args, { signal, timeoutMs: monitorTimeoutMs }).catch((cause) => {
        signal.throwIfAborted();
        throw new StrataError("Unavailable", "QEMU could not be given the volume's file", { cause });
      });
    });
  }

  get #monitorPath(): string {
    return this.files.socket("qmp");
  }

  /** `made`: what the machine begins with. */
  async #launch(
    record: GuestRecord,
    how: { made: GuestRecord; run: RunRecord; accelerator: Accelerator; waiting: Waiting | undefined },
    signal: AbortSignal,
  ): Promise<number> {
    const { made, accelerator, waiting } = how;
    const { runId } = how.run;
    const { cgroups } = this.#options;
    const { spec, processUid } = record;
    const [firstNic] = spec.nics;
    await cgroups.ensure(this.group, cgroupLimits(spec, accelerator));
    const furtherNics = spec.nics.slice(1);
    if (firstNic) {
      await ensureTunAccess();
      await makePort(firstNic, processUid, signal);
      for (const nic of furtherNics) await makeLoosePort(nic, firstNic.netns, processUid, signal);
    }
    const groups = accelerator.type === "kvm" ? await ensureKvmAccess() : [];
    const child = await launchQemu({
      files: this.files,
      record: made,
      accelerator,
      waiting,
      confinement: {
        cgroupFiles: cgroups.procsFiles(this.group),
        netns: firstNic?.netns,
        processUid,
        groups,
      },
    });
    // What it failed of is told by its log and by the monitor's socket, which ends with it.
    child.on("error", (error) => this.#options.logger.error({ error: describeError(error) }, "cannot spawn"));
    try {
      await this.withMonitor(async () => {}, { timeoutMs: startTimeoutMs, signal });
    } catch (cause) {
      signal.throwIfAborted();
      const words = lastWords(await this.files.readLog());
      throw new StrataError(
        "Unavailable",
        `QEMU could not start ${spec.title}: ${words || "no reason given"}`,
        {
          cause,
        },
      );
    }
    const pid = await this.#findQemu();
    if (pid === undefined)
      throw new StrataError("Unavailable", `${spec.title} ended as soon as it had started`);
    if (firstNic) for (const nic of furtherNics) await joinFurtherPort(nic, firstNic.netns, runId, signal);
    return pid;
  }

  /** Kills what runs and removes what `#launch` made; each absent is success. */
  async #lockedTakeAway(): Promise<void> {
    await this.#options.cgroups.kill(this.group);
    const record = await this.files.readGuest();
    const home = record?.spec.nics[0]?.netns;
    for (const card of [...(record?.spec.nics ?? []), ...(record?.leaving ?? [])]) {
      await removeFurtherPort(card, home);
    }
    await this.#removeGroup();
    await this.files.removeRuntime();
  }

  /** What a starter that was killed had just begun may enter the group while it is being removed. */
  async #removeGroup(): Promise<void> {
    const { cgroups } = this.#options;
    for (let tries = 1; ; tries++) {
      try {
        return await cgroups.remove(this.group);
      } catch (error) {
        if (!hasCode(error, "Conflict") || tries === groupTries) throw error;
        await cgroups.kill(this.group);
      }
    }
  }

  /** True when the guest shut itself down in time. */
  async #pressPowerButton(graceMs: number, signal: AbortSignal): Promise<boolean> {
    const { clock, logger } = this.#options;
    const deadline = clock.monotonicMs() + graceMs;
    for (;;) {
      const remainingMs = deadline - clock.monotonicMs();
      if (remainingMs <= 0) return false;
      const timeoutMs = Math.min(remainingMs, monitorTimeoutMs);
      try {
        await this.withMonitor((monitor) => monitor.execute("system_powerdown"), { timeoutMs, signal });
      } catch (error) {
        signal.throwIfAborted();
        // It may have ended just now; if not, it is pressed again.
        logger.debug({ uid: this.files.uid, error: describeError(error) }, "power button not pressed");
      }
      const waitMs = Math.min(powerButtonEveryMs, deadline - clock.monotonicMs());
      if (await this.#untilEmpty(waitMs, signal)) return true;
    }
  }

  /** Lets QEMU write back what it holds of the disk before it is killed. */
  async #quit(): Promise<void> {
    try {
      await this.withMonitor((monitor) => monitor.execute("quit"), { timeoutMs: quitTimeoutMs });
      await this.#untilEmpty(quitTimeoutMs, undefined);
    } catch (error) {
      if (!hasCode(error, "Unavailable", "Timeout", "Internal")) throw error;
    }
  }

  /** True as soon as no process is left in the group, false after `withinMs`. */
  async #untilEmpty(withinMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    const { cgroups, clock } = this.#options;
    const over = new AbortController();
    const waiting = AbortSignal.any(signal === undefined ? [over.signal] : [over.signal, signal]);
    let unwatch = () => {};
    try {
      // Watched before looked at, so that an end in between is not missed.
      unwatch = cgroups.watch(this.group, (populated) => {
        if (!populated) over.abort();
      });
      if (!(await cgroups.isPopulated(this.group))) return true;
      await clock.sleep(Math.max(0, withinMs), waiting).catch(() => signal?.throwIfAborted());
      return !(await cgroups.isPopulated(this.group));
    } finally {
      unwatch();
    }
  }

  /** QEMU's process among those in the group: the other one is its keeper. */
  async #findQemu(): Promise<number | undefined> {
    for (const pid of await this.#options.cgroups.pids(this.group)) {
      const name = await readFile(`/proc/${pid}/comm`, "utf8").catch(() => "");
      if (name.startsWith("qemu-system")) return pid;
    }
    return undefined;
  }
}

/** QEMU's monitor talks to one at a time, and lets hardly anybody wait. */
const conversations = new KeyedLock();

let bootId: string | undefined;
async function readBootId(): Promise<string> {
  bootId ??= (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  return bootId;
}
