/**
 * Containers with LXC: unprivileged ones (shifted ids), started by root.
 *
 * A guest is a directory (see guest-files.ts); a run of it is three processes in two cgroups: the recorder and LXC's
 * monitor in `NAMESPACE.monitors/UID`, the guest in `NAMESPACE/UID`, where the limits are. A guest runs while
 * its monitors' group is populated: process ids are reused, cgroups of uids are not. Nothing of it belongs to the
 * daemon: not the session, not the cgroup, no pipe.
 *
 * LXC's monitor runs in the namespace of the guest's first network, out of the host's; its command socket is there as
 * well, which is why lxc-attach and lxc-console enter the monitor's namespace first. Cards are made by a hook (cards.ts).
 *
 * A reboot from inside is carried out by LXC's monitor and belongs to the same run, as in a virtual machine.
 */
import { mkdir, readFile, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import * as z from "zod";
import type { Clock } from "../../core/clock.ts";
import { describeError, hasCode, StrataError } from "../../core/errors.ts";
import { newUid, type Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Logger } from "../../core/logger.ts";
import type { Random } from "../../core/random.ts";
import type { Cgroups } from "../../host/cgroups.ts";
import type { HostConfig } from "../../host/host-config.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import type {
  Cards,
  Console,
  Drift,
  Exec,
  GuestDriver,
  GuestSpec,
  ObservedGuest,
  Resize,
  Volumes,
} from "../driver.ts";
import { HintQueue } from "../hint-queue.ts";
import { cardTexts, hookNetns } from "./cards.ts";
import { GuestFiles, listGuests, type RunFiles } from "./guest-files.ts";
import { shutdownSignal } from "./init-signal.ts";
import { lxcCards, removePorts } from "./lxc-cards.ts";
import { checkGuest, lxcConfig } from "./lxc-config.ts";
import { lxcConsole } from "./lxc-console.ts";
import { lxcDrift } from "./lxc-drift.ts";
import { lxcExec } from "./lxc-exec.ts";
import { fingerprintLxc } from "./lxc-fingerprint.ts";
import { ensureReachable, type LxcHost, openLxcHost } from "./lxc-host.ts";
import { lxcResize } from "./lxc-resize.ts";
import { lxcVolumes, volumeLines } from "./lxc-volumes.ts";
import { startRecorder } from "./recorder.ts";
import { stateOf } from "./run-state.ts";

export interface LxcDriverOptions {
  host: HostConfig;
  cgroups: Cgroups;
  clock: Clock;
  random: Random;
  logger: Logger;
}

/** There is nothing to configure. */
const configSchema = z.strictObject({});

/** From the start of the recorder to the guest's init. */
const startTimeoutMs = 30_000;
/** For LXC's monitor to take away the guest's interfaces and to end, once the guest is dead. */
const monitorTimeoutMs = 5_000;
/** How often an init that handles no signal yet (it is still booting) is looked at again. */
const signalRetryMs = 50;
const clearTries = 5;
/** Look again although no event came. */
const recheckMs = 1_000;

export function createLxcDriver(options: LxcDriverOptions): GuestDriver {
  return new LxcDriver(options);
}

class LxcDriver implements GuestDriver {
  readonly name = "lxc";
  readonly config = configSchema;
  readonly handleVersion = 1;
  readonly exec: Exec<JsonObject>;
  readonly console: Console<JsonObject>;
  readonly cards: Cards<JsonObject>;
  readonly resize: Resize<JsonObject>;
  readonly volumes: Volumes<JsonObject>;
  readonly drift: Drift<JsonObject>;
  readonly snapshots = { keptStillBy: "host" } as const;
  readonly #options: LxcDriverOptions;
  readonly #cgroups: Cgroups;
  readonly #lxcPath: string;
  readonly #listeners = new Set<(uid: Uid, change: "starting" | "destroyed") => void>();
  #host: Promise<LxcHost> | undefined;

  constructor(options: LxcDriverOptions) {
    this.#options = options;
    this.#cgroups = options.cgroups;
    this.#lxcPath = join(options.host.stateDir, "lxc");
    const access = {
      lxcPath: this.#lxcPath,
      clock: options.clock,
      host: () => this.#openHost(),
      runningUid: (handle: JsonObject) => this.#runningUid(handle),
      uidOf,
      monitorPid: (uid: Uid) => this.#monitorPid(uid),
    };
    this.exec = lxcExec(access);
    this.console = lxcConsole(access);
    const changes = {
      files: (handle: JsonObject) => this.#files(uidOf(handle)),
      isRunning: async (uid: Uid) => (await this.inspect(uid))?.state === "running",
      initPid: (files: GuestFiles) => this.#initPid(files),
      group: (uid: Uid) => this.#group(uid),
      host: () => this.#openHost(),
      cgroups: options.cgroups,
    };
    this.cards = lxcCards(changes);
    this.resize = lxcResize(changes);
    this.volumes = lxcVolumes(changes);
    this.drift = lxcDrift(async (handle) => (await this.inspect(uidOf(handle)))?.state);
  }

  fingerprint(signal: AbortSignal): Promise<Fingerprint> {
    return fingerprintLxc({
      host: this.#options.host,
      cgroups: this.#cgroups,
      lxcPath: this.#lxcPath,
      openHost: () => this.#openHost(),
      signal,
    });
  }

  async list(): Promise<ObservedGuest<JsonObject>[]> {
    const uids = await listGuests(this.#lxcPath);
    const guests = await Promise.all(uids.map((uid) => this.inspect(uid)));
    return guests.filter((guest) => guest !== undefined);
  }

  async inspect(uid: Uid): Promise<ObservedGuest<JsonObject> | undefined> {
    const files = this.#files(uid);
    let run = await files.readRun();
    if (run.run === undefined) {
      return (await files.exists()) ? { uid, handle: this.#handle(uid), state: "created" } : undefined;
    }
    let running = run.exit?.runId !== run.run && (await this.#cgroups.isPopulated(this.#monitors(uid)));
    if (!running) {
      // It may have ended, or started anew, between the two looks.
      run = await files.readRun();
      running = run.exit?.runId !== run.run && (await this.#cgroups.isPopulated(this.#monitors(uid)));
    }
    return { uid, handle: this.#handle(uid), ...stateOf(run, running) };
  }

  async create(guest: GuestSpec, signal: AbortSignal): Promise<JsonObject> {
    signal.throwIfAborted();
    checkGuest(guest);
    await mkdir(this.#lxcPath, { recursive: true, mode: 0o700 });
    if ((await this.inspect(guest.uid))?.state !== "running") {
      await this.#files(guest.uid).writeSpec(guest);
    }
    return this.#handle(guest.uid);
  }

  async start(handle: JsonObject, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const uid = uidOf(handle);
    const files = this.#files(uid);
    const [guest, host, { run: last }] = await Promise.all([
      files.readSpec(),
      this.#openHost(),
      files.readRun(),
    ]);
    if (guest === undefined) {
      throw new StrataError(
        "NotFound",
        `the container ${uid} does not exist or is not complete; create it first`,
      );
    }
    if (last !== undefined && (await this.inspect(uid))?.state === "running") return;
    const runId = newUid(this.#options.random);
    await this.#prepareFiles(guest, files, host, runId);
    await files.writeRun(runId);
    if (last !== undefined) await this.#clear(uid, guest);
    await this.#prepareCgroups(guest);
    for (const listener of this.#listeners) listener(uid, "starting");
    await startRecorder({
      bash: host.bash,
      runId,
      dir: files.runDir,
      path: host.monitorPath,
      procsFiles: this.#cgroups.procsFiles(`${this.#monitors(uid)}/recorder`),
      command: this.#monitorCommand(guest, host),
    });
    await this.#untilStarted(guest, runId, signal);
  }

  async stop(handle: JsonObject, options: { graceMs: number }, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const uid = uidOf(handle);
    const guest = await this.inspect(uid);
    if (guest?.state !== "running" || guest.runId === undefined) return;
    await this.#files(uid).writeStop(guest.runId);
    if (options.graceMs > 0) await this.#askToShutDown(uid, options.graceMs, signal);
    await this.#kill(uid, signal);
  }

  async destroy(handle: JsonObject, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const uid = uidOf(handle);
    const files = this.#files(uid);
    const [guest, { run: last }] = await Promise.all([files.readSpec(), files.readRun()]);
    if (last !== undefined) {
      await this.#kill(uid, signal);
      await this.#clear(uid, guest);
    }
    for (const listener of this.#listeners) listener(uid, "destroyed");
    await rm(join("/run/lxc/lock", this.#lxcPath, `.${uid}`), { force: true });
    await files.remove();
  }

  events(signal: AbortSignal): AsyncIterable<{ uid: Uid }> {
    const hints = new HintQueue(signal);
    const watches = new Map<Uid, () => void>();
    const watch = (uid: Uid) => {
      try {
        const group = this.#monitors(uid);
        watches.set(
          uid,
          this.#cgroups.watch(group, () => hints.push(uid)),
        );
      } catch {
        // It does not run: its start will be told.
      }
    };
    const listener = (uid: Uid, change: "starting" | "destroyed") => {
      watches.get(uid)?.();
      watches.delete(uid);
      hints.push(uid);
      if (change === "starting") watch(uid);
    };
    this.#listeners.add(listener);
    signal.addEventListener("abort", () => {
      this.#listeners.delete(listener);
      for (const end of watches.values()) end();
    });
    void listGuests(this.#lxcPath).then((uids) => {
      if (signal.aborted) return;
      for (const uid of uids) {
        if (!watches.has(uid)) watch(uid);
        hints.push(uid); // whatever happened before the watch began
      }
    });
    return hints;
  }

  /** The files of a start. All of them are replaced, so an interrupted start leaves nothing that matters. */
  async #prepareFiles(guest: GuestSpec, files: GuestFiles, host: LxcHost, mark: string): Promise<void> {
    if (guest.root.type !== "tree") return;
    const gid = guest.root.idBase;
    const { stateDir } = this.#options.host;
    const config = lxcConfig(guest, {
      seedDir: files.seedDir,
      consoleLog: files.consoleLog,
      guestGroup: this.#group(guest.uid),
      monitorGroup: this.#monitors(guest.uid),
      plugCards: {
        script: host.plugCards,
        cardsDir: files.cardsDir,
        groupDirs: this.#cgroups.procsFiles(this.#group(guest.uid)).map(dirname),
      },
      apparmorProfile: host.apparmorProfile,
      lxcfs: host.lxcfs,
      maxOpenFiles: host.maxOpenFiles,
      ...(host.seccompProfile === undefined ? {} : { seccompProfile: host.seccompProfile }),
    });
    await files.clearCards();
    const cards = guest.nics.map((nic, index) =>
      files.writeCard(nic, cardTexts(nic, { first: index === 0, mark, guestNetns: hookNetns })),
    );
    const volumes = files.writeVolumes(volumeLines(guest));
    await Promise.all([files.writeConfig(config), files.writeSeed(guest.seed, gid), volumes, ...cards]);
    await Promise.all([
      ensureReachable(files.seedDir, stateDir, gid),
      ensureReachable(dirname(guest.root.path), stateDir, gid),
    ]);
  }

  async #prepareCgroups(guest: GuestSpec): Promise<void> {
    await Promise.all([
      this.#cgroups.ensure(this.#group(guest.uid), {
        cpus: guest.cpus,
        memoryMib: guest.memoryMib,
        processes: guest.maxProcesses,
      }),
      this.#cgroups.ensure(`${this.#monitors(guest.uid)}/recorder`, {}),
    ]);
  }

  #monitorCommand(guest: GuestSpec, host: LxcHost): string[] {
    const netns = guest.nics[0]?.netns;
    const enter = netns === undefined ? [] : [host.nsenter, `--net=${netns}`, "--"];
    // Without -C, descriptors that the monitor inherited would be open inside the guest.
    const options = ["-F", "-C", "-P", this.#lxcPath, "-n", guest.uid, "-l", "INFO", "-o", "/proc/self/fd/1"];
    return [...enter, host.lxcStart, ...options];
  }

  async #untilStarted(guest: GuestSpec, runId: string, signal: AbortSignal): Promise<void> {
    const { uid } = guest;
    const files = this.#files(uid);
    let seen: RunFiles | undefined;
    const decided = await this.#until(uid, startTimeoutMs, signal, async () => {
      seen = await files.readRun();
      return seen.init?.runId === runId || seen.exit?.runId === runId;
    });
    if (decided && seen?.init?.runId === runId) return;
    await this.#kill(uid, signal);
    if (!decided) {
      throw new StrataError(
        "Timeout",
        `the container did not begin to run within ${startTimeoutMs / 1000} s`,
      );
    }
    const [first, ...others] = seen?.exit?.errors ?? [];
    const [cardsError] = (await files.readCardsError()).split("\n");
    const reason = cardsError ? `its network cards or volumes cannot be made: ${cardsError}` : first;
    throw new StrataError("Unavailable", `the container cannot start: ${reason ?? "LXC gave no reason"}`, {
      detail: others.join("; "),
    });
  }

  /** Returns when the guest has ended or `graceMs` are over. */
  async #askToShutDown(uid: Uid, graceMs: number, signal: AbortSignal): Promise<void> {
    const deadline = this.#options.clock.monotonicMs() + graceMs;
    const left = () => Math.max(0, deadline - this.#options.clock.monotonicMs());
    const ended = async () => !(await this.#cgroups.isPopulated(this.#group(uid)));
    while (!(await this.#sendShutdown(uid))) {
      if (await this.#until(uid, Math.min(signalRetryMs, left()), signal, ended)) return;
      if (left() === 0) return;
    }
    await this.#until(uid, left(), signal, ended);
  }

  /** False when the guest's init cannot take a signal yet. */
  async #sendShutdown(uid: Uid): Promise<boolean> {
    const files = this.#files(uid);
    if ((await files.readRun()).init === undefined) return false;
    const pid = await this.#initPid(files);
    if (pid === undefined) return true; // it is gone, and its id may be another's
    const number = shutdownSignal(await readFile(`/proc/${pid}/status`, "utf8").catch(() => ""));
    if (number === undefined) return false;
    try {
      process.kill(pid, number);
    } catch {
      // It ended this moment.
    }
    return true;
  }

  async #initPid(files: GuestFiles): Promise<number | undefined> {
    const pid = (await files.readRun()).init?.pid;
    const groups = await readFile(`/proc/${pid}/cgroup`, "utf8").catch(() => "");
    return groups.includes(`:/${this.#group(files.uid)}/payload`) ? pid : undefined;
  }

  /** Kills the guest, lets LXC's monitor clean up, and kills that as well when it does not. */
  async #kill(uid: Uid, signal: AbortSignal): Promise<void> {
    await this.#cgroups.kill(this.#group(uid));
    const ended = await this.#until(uid, monitorTimeoutMs, signal, async () => {
      // A guest that asked for a reboot may just be coming back.
      await this.#cgroups.kill(this.#group(uid));
      return !(await this.#cgroups.isPopulated(this.#monitors(uid)));
    });
    if (!ended) this.#options.logger.warn({ uid }, "the monitor of a container hangs and is killed");
    await this.#cgroups.kill(this.#monitors(uid));
    await this.#cgroups.kill(this.#group(uid));
  }

  /** Takes away what the last run left. */
  async #clear(uid: Uid, guest: GuestSpec | undefined): Promise<void> {
    const groups = [this.#group(uid), this.#monitors(uid)];
    for (let left = clearTries; ; left--) {
      await Promise.all(groups.map((group) => this.#cgroups.kill(group)));
      try {
        await Promise.all(groups.map((group) => this.#cgroups.remove(group)));
        break;
      } catch (error) {
        // A recorder that outlived its daemon by a moment has come in; without the group it would have ended.
        if (left === 0 || !hasCode(error, "Conflict")) throw error;
      }
    }
    // The kernel takes them away with the guest's namespace, but in its own time, and their names are needed again.
    if (guest !== undefined) await removePorts(await this.#openHost(), guest.nics);
  }

  /** Waits for a condition, looking when the guest's groups or files change. False when the time is over. */
  async #until(
    uid: Uid,
    withinMs: number,
    signal: AbortSignal,
    condition: () => Promise<boolean>,
  ): Promise<boolean> {
    const { clock } = this.#options;
    const deadline = clock.monotonicMs() + withinMs;
    let wake = () => {};
    const ends = [this.#files(uid).watchRun(() => wake())];
    for (const group of [this.#group(uid), this.#monitors(uid)]) {
      try {
        ends.push(this.#cgroups.watch(group, () => wake()));
      } catch {
        // No such group: nothing in it will change.
      }
    }
    try {
      for (;;) {
        let changed = false;
        const change = new Promise<void>((resolve) => {
          wake = () => {
            changed = true;
            resolve();
          };
        });
        if (await condition()) return true;
        signal.throwIfAborted();
        const leftMs = deadline - clock.monotonicMs();
        if (leftMs <= 0) return false;
        if (changed) continue;
        const timer = new AbortController();
        const stop = () => timer.abort();
        signal.addEventListener("abort", stop, { once: true });
        const sleep = clock.sleep(Math.min(leftMs, recheckMs), timer.signal).catch(() => {});
        await Promise.race([change, sleep]);
        signal.removeEventListener("abort", stop);
        timer.abort();
      }
    } finally {
      for (const end of ends) end();
    }
  }

  #openHost(): Promise<LxcHost> {
    this.#host ??= openLxcHost(this.#lxcPath).catch((error) => {
      this.#host = undefined; // it may be installed later
      this.#options.logger.debug({ error: describeError(error) }, "LXC cannot be used");
      throw error;
    });
    return this.#host;
  }

  /** @throws Unavailable when the guest does not run. */
  async #runningUid(handle: JsonObject): Promise<Uid> {
    const uid = uidOf(handle);
    if ((await this.inspect(uid))?.state !== "running") {
      throw new StrataError("Unavailable", "the container is not running");
    }
    return uid;
  }

  async #monitorPid(uid: Uid): Promise<number> {
    const [pid] = await this.#cgroups.pids(`${this.#monitors(uid)}/monitor`);
    if (pid === undefined) throw new StrataError("Unavailable", "the container is not running");
    return pid;
  }

  #files(uid: Uid): GuestFiles {
    return new GuestFiles(this.#lxcPath, uid);
  }

  #group(uid: Uid): string {
    return `${this.#options.host.namespace}/${uid}`;
  }

  /** Beside the guests' groups, so that the limits do not hold for the monitor; no name space has a dot. */
  #monitors(uid: Uid): string {
    return `${this.#options.host.namespace}.monitors/${uid}`;
  }

  #handle(uid: Uid): JsonObject {
    return { version: this.handleVersion, uid };
  }
}

function uidOf(handle: JsonObject): Uid {
  if (handle.version !== 1 || typeof handle.uid !== "string") {
    throw new StrataError(
      "Invalid",
      `this is no handle of the lxc driver: ${JSON.stringify(handle).slice(0, 200)}`,
    );
  }
  return handle.uid as Uid;
}
