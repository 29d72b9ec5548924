/**
 * Application containers with the Docker Engine of this host, in Strata's networks instead of Docker's.
 *
 * A guest is a directory (see guest-record.ts) and a container with its uid in a label; the container holds the guest's
 * root. Docker never connects it to anything and never starts it by itself: a start of ours lets Docker start the
 * container, whose first process waits at a gate, puts the guest's cards into its network namespace and opens the gate.
 * Only then the guest runs, also for `inspect`; a start that was cut short is completed by the next one.
 *
 * Guests outlive this process, since they are the Engine's; they outlive a restart of the Engine where `live-restore`
 * is set. Nothing without our labels is listed or touched.
 */
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { describeError, hasCode, StrataError } from "../../core/errors.ts";
import { newUid, type Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Logger } from "../../core/logger.ts";
import type { Random } from "../../core/random.ts";
import type { HostConfig } from "../../host/host-config.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import type { Cards, Console, Drift, Exec, GuestDriver, ObservedGuest, Resize } from "../driver.ts";
import { HintQueue } from "../hint-queue.ts";
import { holdNamespaces, plugCard, setHostname, unplugCard } from "./card-ports.ts";
import {
  changedLimits,
  checkGuest,
  containerOptions,
  limitsOf,
  recipeOf,
  stopSignal,
} from "./container-spec.ts";
import { dockerCards, dockerResize } from "./docker-changes.ts";
import { type DockerConfig, dockerConfigSchema } from "./docker-config.ts";
import { dockerConsole } from "./docker-console.ts";
import { dockerDrift } from "./docker-drift.ts";
import { dockerExec } from "./docker-exec.ts";
import { fingerprintDocker } from "./docker-fingerprint.ts";
import { type ContainerInfo, Engine, engineSocket } from "./engine.ts";
import { followEvents } from "./engine-events.ts";
import { EngineImages } from "./engine-images.ts";
import { ensureVolumes, removeVolumes } from "./engine-volumes.ts";
import { openGate } from "./gate.ts";
import { type DockerGuest, GuestRecord, recordedGuests } from "./guest-record.ts";
import { checkInit, withImageApplication } from "./image-init.ts";
import { containerName, generationOf, imageTag, labels, ownerOf } from "./labels.ts";
import { runIdOf, stateOf } from "./run-state.ts";

export interface DockerDriverOptions {
  host: Pick<HostConfig, "namespace" | "stateDir">;
  clock: Clock;
  random: Random;
  logger: Logger;
  /** Of the Engine. Default: what DOCKER_HOST says, else /var/run/docker.sock. */
  socketPath?: string;
  /** Of the host's static busybox, which holds a container until its cards are there. */
  busybox?: string;
}

const defaultBusybox = "/bin/busybox";
/** For a container to be gone after SIGKILL. */
const killTimeoutMs = 15_000;
const startTimeoutMs = 60_000;
/** For the Engine to finish making a container that nobody waits for any more. */
const settleTimeoutMs = 30_000;
const settleRetryMs = 20;
/** Guests that are looked at side by side. */
const listConcurrency = 8;

export function createDockerDriver(options: DockerDriverOptions): GuestDriver {
  // What `config` made of JSON comes back to `create`, with no more than JSON in it.
  return new DockerDriver(options) as GuestDriver<object> as GuestDriver;
}

class DockerDriver implements GuestDriver<DockerConfig> {
  readonly name = "docker";
  readonly root = "image";
  readonly config = dockerConfigSchema;
  readonly handleVersion = 1;
  readonly exec: Exec<JsonObject>;
  readonly console: Console<JsonObject>;
  readonly resize: Resize<JsonObject>;
  readonly cards: Cards<JsonObject>;
  readonly drift: Drift<JsonObject>;
  readonly #options: DockerDriverOptions;
  readonly #namespace: string;
  readonly #stateDir: string;
  readonly #busybox: string;
  readonly #engine: Engine;
  readonly #images: EngineImages;
  #hostCpus: number | undefined;

  constructor(options: DockerDriverOptions) {
    this.#options = options;
    this.#namespace = options.host.namespace;
    this.#stateDir = join(options.host.stateDir, "docker");
    this.#busybox = options.busybox ?? defaultBusybox;
    this.#engine = new Engine(() => engineSocket(options.socketPath, process.env.DOCKER_HOST));
    this.#images = new EngineImages(this.#engine, this.#namespace);
    const access = {
      engine: this.#engine,
      clock: options.clock,
      uidOf,
      record: (uid: Uid) => this.#record(uid),
      container: (uid: Uid, signal?: AbortSignal) => this.#container(uid, signal),
      runningContainer: (handle: JsonObject, signal: AbortSignal) => this.#runningContainer(handle, signal),
      events: (signal: AbortSignal) => this.events(signal),
      hostCpus: (signal: AbortSignal) => this.#cpus(signal),
    };
    this.exec = dockerExec(access);
    this.console = dockerConsole(access);
    this.resize = dockerResize(access);
    this.cards = dockerCards(access);
    this.drift = dockerDrift(access);
  }

  fingerprint(signal: AbortSignal): Promise<Fingerprint> {
    return fingerprintDocker({
      engine: this.#engine,
      namespace: this.#namespace,
      stateDir: this.#stateDir,
      busybox: this.#busybox,
      clock: this.#options.clock,
      probeId: newUid(this.#options.random),
      signal,
    });
  }

  async list(): Promise<ObservedGuest<JsonObject>[]> {
    const label = [`${labels.namespace}=${this.#namespace}`, labels.uid];
    const recorded = await recordedGuests(this.#stateDir);
    const containers = await unlessAbsent(this.#engine.containers({ label }), recorded.length > 0);
    if (containers === undefined) return [];
    const found = containers.map((container) => ownerOf(container.Labels, this.#namespace));
    const uids = [...new Set([...found, ...recorded])].filter((uid) => uid !== undefined);
    const guests: (ObservedGuest<JsonObject> | undefined)[] = [];
    for (let at = 0; at < uids.length; at += listConcurrency) {
      const some = uids.slice(at, at + listConcurrency);
      guests.push(...(await Promise.all(some.map((uid) => this.inspect(uid)))));
    }
    return guests.filter((guest) => guest !== undefined);
  }

  async inspect(uid: Uid): Promise<ObservedGuest<JsonObject> | undefined> {
    const record = this.#record(uid);
    const [run, recorded] = await Promise.all([record.readRun(), record.exists()]);
    const container = await unlessAbsent(this.#container(uid), recorded);
    if (container !== undefined) return { uid, handle: this.#handle(uid), ...stateOf(container.State, run) };
    return recorded ? { uid, handle: this.#handle(uid), state: "created" } : undefined;
  }

  async create(wanted: DockerGuest, signal: AbortSignal): Promise<JsonObject> {
    signal.throwIfAborted();
    checkGuest(wanted);
    const guest = await withImageApplication(wanted);
    const { uid, root } = guest;
    if (root.type !== "image") return this.#handle(uid);
    await checkInit(guest);
    const found = await this.#container(uid, signal);
    const record = this.#record(uid);
    const anew = found !== undefined && generationOf(found.Config.Labels) < (root.generation ?? 0);
    if (found !== undefined) {
      const state = stateOf(found.State, await record.readRun());
      if (state.state === "running") return this.#handle(uid);
      if (!anew) expectRecipe(guest, found);
    }
    await record.writeSpec(guest);
    if (found !== undefined && !anew) return this.#handle(uid);
    await record.writeMounted(guest);
    const hostCpus = await this.#cpus(signal);
    await ensureVolumes(this.#engine, this.#namespace, guest, signal);
    await this.#images.using(root, signal, async () => {
      // Named volumes stay; the record has the guest until the new container is there.
      if (found !== undefined) await this.#engine.removeContainer(found.Id, signal);
      await this.#createContainer(guest, hostCpus, signal);
    });
    const before = found?.Config.Labels[labels.image];
    if (before !== undefined && before !== root.digest) await this.#images.release(before, signal);
    return this.#handle(uid);
  }

  async start(handle: JsonObject, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const uid = uidOf(handle);
    const record = this.#record(uid);
    const [guest, found, run] = await Promise.all([
      record.readSpec(),
      this.#container(uid, signal),
      record.readRun(),
    ]);
    if (guest === undefined || found === undefined) {
      throw new StrataError(
        "NotFound",
        `the container ${uid} does not exist or is not complete; create it first`,
      );
    }
    const state = stateOf(found.State, run);
    if (state.state === "running") return;
    // One that runs was started by a call that was cut short; something may have been done for its cards.
    const fresh = !found.State.Running;
    if (fresh) {
      const { exit, runId } = state;
      await record.writeRun(exit && runId ? { last: { runId, exit } } : {});
      await record.writeMounted(guest);
      await this.#applyLimits(guest, found, signal);
      await this.#startContainer(found.Id, signal);
    }
    try {
      await this.#admit(guest, record, { fresh, signal });
    } catch (error) {
      await this.#kill(found.Id).catch(() => {});
      throw error;
    }
  }

  async stop(handle: JsonObject, options: { graceMs: number }, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const uid = uidOf(handle);
    const found = await this.#container(uid, signal);
    const runId = found && runIdOf(found.State);
    if (!found?.State.Running || runId === undefined) return;
    const record = this.#record(uid);
    await record.writeRun({ ...(await record.readRun()), stop: runId });
    if (found.State.Paused) await this.#unpause(found.Id);
    if (options.graceMs > 0 && (await this.#askToEnd(found, options.graceMs, signal))) return;
    await this.#kill(found.Id);
  }

  async destroy(handle: JsonObject, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted();
    const uid = uidOf(handle);
    const record = this.#record(uid);
    const guest = await record.readSpec();
    const found = (await this.#container(uid, signal)) ?? (guest && (await this.#settle(guest, signal)));
    if (found !== undefined) await this.#engine.removeContainer(found.Id, signal);
    for (const nic of guest?.nics ?? []) await unplugCard(nic);
    await removeVolumes(this.#engine, this.#namespace, uid, signal);
    const digest =
      found?.Config.Labels[labels.image] ?? (guest?.root.type === "image" ? guest.root.digest : undefined);
    if (digest !== undefined) await this.#images.release(digest, signal);
    await record.remove();
  }

  events(signal: AbortSignal): AsyncIterable<{ uid: Uid }> {
    const hints = new HintQueue(signal);
    const tellAll = async () => {
      const label = [`${labels.namespace}=${this.#namespace}`];
      for (const container of await this.#engine.containers({ label })) {
        const uid = ownerOf(container.Labels, this.#namespace);
        if (uid !== undefined) hints.push(uid);
      }
      for (const uid of await recordedGuests(this.#stateDir)) hints.push(uid);
    };
    const listener = {
      onBegin: () => {
        tellAll().catch((error) => {
          this.#options.logger.debug({ error: describeError(error) }, "cannot list containers");
        });
      },
      onChange: (uid: Uid) => hints.push(uid),
    };
    const { clock } = this.#options;
    void followEvents(this.#engine, this.#namespace, { listener, clock, signal });
    return hints;
  }

  /** A name that is taken is a guest that an earlier call made, or nothing of ours. */
  async #createContainer(guest: DockerGuest, hostCpus: number, signal: AbortSignal): Promise<void> {
    const name = containerName(this.#namespace, guest.uid);
    const options = containerOptions(guest, {
      namespace: this.#namespace,
      handleVersion: this.handleVersion,
      record: this.#record(guest.uid),
      busybox: this.#busybox,
      hostCpus,
    });
    const made = await this.#engine.call(
      `make container ${name}`,
      (docker, abortSignal) => docker.createContainer({ ...options, name, abortSignal }),
      { signal, accept: [409] },
    );
    if (made !== undefined || (await this.#container(guest.uid, signal)) !== undefined) return;
    throw new StrataError(
      "Conflict",
      `there is a Docker container ${name} that Strata did not make; it is left alone, remove or rename it to go on`,
    );
  }

  /**
   * The container that a killed daemon's order may still be making: the Engine goes on with what was asked. It takes the
   * name first, so whoever gets the name knows that nothing is under way.
   */
  async #settle({ uid, root }: DockerGuest, signal: AbortSignal): Promise<ContainerInfo | undefined> {
    if (root.type !== "image" || !(await this.#images.has(root.digest, signal))) return undefined;
    const { clock } = this.#options;
    const name = containerName(this.#namespace, uid);
    const options = {
      name,
      Image: imageTag(this.#namespace, root.digest).name,
      Cmd: ["none"],
      Labels: { [labels.namespace]: this.#namespace, [labels.uid]: uid, [labels.image]: root.digest },
    };
    const deadline = clock.monotonicMs() + settleTimeoutMs;
    while (clock.monotonicMs() < deadline) {
      await this.#engine.call(
        `take the name ${name}`,
        (docker, abortSignal) => docker.createContainer({ ...options, abortSignal }),
        { signal, accept: [404, 409] },
      );
      const found = await this.#engine.inspect(name, signal);
      if (found !== undefined)
        return ownerOf(found.Config.Labels, this.#namespace) === uid ? found : undefined;
      if (!(await this.#images.has(root.digest, signal))) return undefined;
      await clock.sleep(settleRetryMs, signal);
    }
    throw new StrataError("Timeout", `the Docker Engine has been making container ${name} for too long`);
  }

  /** What was changed in the spec, or by hand, since the container was made. */
  async #applyLimits(guest: DockerGuest, found: ContainerInfo, signal: AbortSignal): Promise<void> {
    const changed = changedLimits(limitsOf(guest, await this.#cpus(signal)), found);
    if (Object.keys(changed).length === 0) return;
    await this.#engine.ask(
      "set a container's limits",
      (docker, abortSignal) => docker.getContainer(found.Id).update({ ...changed, abortSignal }),
      { signal },
    );
  }

  async #startContainer(id: string, signal: AbortSignal): Promise<void> {
    await this.#engine.call(
      "start the container",
      (docker, abortSignal) => docker.getContainer(id).start({ abortSignal }),
      // 304: it runs already.
      { signal, timeoutMs: startTimeoutMs, accept: [304] },
    );
  }

  /** Gives a container that waits at its gate what it waits for. What was done already is done again, or found. */
  async #admit(
    guest: DockerGuest,
    record: GuestRecord,
    { fresh, signal }: { fresh: boolean; signal: AbortSignal },
  ): Promise<void> {
    const pid = (await this.#container(guest.uid, signal))?.State.Pid ?? 0;
    await using namespaces = await holdNamespaces(pid);
    // Only now is it certain that these are the container's: a process id may be somebody else's after its death.
    const found = await this.#container(guest.uid, signal);
    const runId = found && runIdOf(found.State);
    if (!found?.State.Running || found.State.Pid !== pid || runId === undefined) {
      throw new StrataError("Unavailable", "the container ended before its command began");
    }
    const run = await record.readRun();
    const resumed = run.opening === runId;
    if (!resumed) {
      if (found.Config.Hostname !== guest.hostname) await setHostname(namespaces, guest.hostname);
      for (const [index, nic] of guest.nics.entries()) {
        await plugCard(nic, namespaces, { first: index === 0, fresh, signal });
      }
      await record.writeRun({ ...run, opening: runId });
    }
    await openGate(record.gate, { pid, clock: this.#options.clock, signal, resumed });
    await record.writeRun({ ...run, opening: runId, opened: runId });
  }

  /** True when it ended within `graceMs`. */
  async #askToEnd(found: ContainerInfo, graceMs: number, signal: AbortSignal): Promise<boolean> {
    const waiting = new AbortController();
    const either = AbortSignal.any([signal, waiting.signal]);
    const timeoutMs = graceMs + killTimeoutMs;
    const ended = this.#engine
      .call(
        "wait for the container's end",
        (docker, abortSignal) =>
          docker.getContainer(found.Id).wait({ condition: "not-running", abortSignal }),
        { signal: either, timeoutMs, accept: [404] },
      )
      .then(
        () => true,
        (error) => {
          if (waiting.signal.aborted) return false;
          throw error;
        },
      );
    ended.catch(() => {});
    try {
      await this.#signal(found.Id, stopSignal);
      const late = this.#options.clock.sleep(graceMs, either).then(
        () => false,
        () => false,
      );
      const done = await Promise.race([ended, late]);
      signal.throwIfAborted();
      return done;
    } finally {
      waiting.abort(new Error("nobody waits any more"));
    }
  }

  /** Returns when it does not run any more. */
  async #kill(id: string): Promise<void> {
    await this.#signal(id, "SIGKILL");
    await this.#engine.call(
      "see the container's end",
      (docker, abortSignal) => docker.getContainer(id).wait({ condition: "not-running", abortSignal }),
      { timeoutMs: killTimeoutMs, accept: [404] },
    );
  }

  async #signal(id: string, name: string): Promise<void> {
    await this.#engine.call(
      `send ${name} to the container`,
      (docker, abortSignal) => docker.getContainer(id).kill({ signal: name, abortSignal }),
      // 409: it does not run.
      { accept: [404, 409] },
    );
  }

  /** Somebody paused it by hand; it hears nothing then. */
  async #unpause(id: string): Promise<void> {
    await this.#engine.call(
      "wake the container",
      (docker, abortSignal) => docker.getContainer(id).unpause({ abortSignal }),
      { accept: [404, 409, 500] },
    );
  }

  async #container(uid: Uid, signal?: AbortSignal): Promise<ContainerInfo | undefined> {
    const found = await this.#engine.inspect(containerName(this.#namespace, uid), signal);
    return ownerOf(found?.Config.Labels, this.#namespace) === uid ? found : undefined;
  }

  async #runningContainer(handle: JsonObject, signal: AbortSignal): Promise<ContainerInfo> {
    const uid = uidOf(handle);
    const [found, run] = await Promise.all([this.#container(uid, signal), this.#record(uid).readRun()]);
    if (found !== undefined && stateOf(found.State, run).state === "running") return found;
    throw new StrataError("Unavailable", "the container is not running");
  }

  async #cpus(signal: AbortSignal): Promise<number> {
    this.#hostCpus ??= (await this.#engine.info(signal)).NCPU;
    return this.#hostCpus;
  }

  #record(uid: Uid): GuestRecord {
    return new GuestRecord(this.#stateDir, uid);
  }

  #handle(uid: Uid): JsonObject {
    return { version: this.handleVersion, uid };
  }
}

/**
 * Most hosts have no Engine. Where it does not answer and no record says that there is a guest, there is none; where one
 * does, nobody can tell.
 */
async function unlessAbsent<T>(asked: Promise<T>, recorded: boolean): Promise<T | undefined> {
  try {
    return await asked;
  } catch (error) {
    if (!recorded && hasCode(error, "Unavailable")) return undefined;
    throw error;
  }
}

/** @throws Conflict: a container's command and volumes are fixed, and making it anew would lose its files. */
function expectRecipe(guest: DockerGuest, found: ContainerInfo): void {
  if (found.Config.Labels[labels.recipe] === recipeOf(guest)) return;
  throw new StrataError(
    "Conflict",
    "the container was made from another image or for another application; delete it to make it anew",
  );
}

function uidOf(handle: JsonObject): Uid {
  if (handle.version !== 1 || typeof handle.uid !== "string") {
    throw new StrataError(
      "Invalid",
      `this is no handle of the docker driver: ${JSON.stringify(handle).slice(0, 200)}`,
    );
  }
  return handle.uid as Uid;
}
