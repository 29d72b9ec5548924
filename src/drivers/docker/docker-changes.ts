/** What changes while a guest runs, and is kept in its record: its size and its further network cards. */
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Cards, GuestNic, Resize } from "../driver.ts";
import {
  forgetRules,
  type HeldNamespaces,
  holdNamespaces,
  isPlugged,
  plugCard,
  unplugCard,
} from "./card-ports.ts";
import { changedLimits, checkNic, limitsOf } from "./container-spec.ts";
import type { DockerAccess } from "./docker-access.ts";
import type { ContainerInfo } from "./engine.ts";
import type { DockerGuest, GuestRecord } from "./guest-record.ts";
import { stateOf } from "./run-state.ts";

export interface ChangeAccess extends DockerAccess {
  record(uid: Uid): GuestRecord;
  hostCpus(signal: AbortSignal): Promise<number>;
}

export function dockerResize(access: ChangeAccess): Resize<JsonObject> {
  return {
    live: { cpus: true, memory: "both" },
    async apply(handle, size, signal) {
      signal.throwIfAborted();
      const { uid, record, guest, container } = await requireGuest(access, handle, signal);
      if (await isRunning(record, container)) {
        const changed = changedLimits(limitsOf(size, await access.hostCpus(signal)), container);
        if (Object.keys(changed).length > 0) await update(access, uid, container, changed, signal);
      }
      await record.writeSpec({ ...guest, cpus: size.cpus, memoryMib: size.memoryMib });
    },
  };
}

async function update(
  { engine }: ChangeAccess,
  uid: Uid,
  container: ContainerInfo,
  changed: object,
  signal: AbortSignal,
): Promise<void> {
  try {
    await engine.ask(
      `resize container ${uid}`,
      (docker, abortSignal) => docker.getContainer(container.Id).update({ ...changed, abortSignal }),
      { signal },
    );
  } catch (cause) {
    // The kernel (cgroups v1) refuses a limit below what is used and cannot be given back.
    const message = cause instanceof StrataError ? cause.message : "";
    if (!/device or resource busy/i.test(message)) throw cause;
    throw new StrataError(
      "Conflict",
      "the container uses more memory than it would have left; stop something in it, or restart it",
      { cause },
    );
  }
}

export function dockerCards(access: ChangeAccess): Cards<JsonObject> {
  return {
    async attach(handle, nic, signal) {
      signal.throwIfAborted();
      const { record, guest, container } = await requireGuest(access, handle, signal);
      checkNic(nic, guest.nics.length);
      expectFurther(guest, nic);
      const others = guest.nics.filter(({ port }) => port !== nic.port);
      // Recorded first: a card that is cut short is found, and goes with the guest.
      const index = guest.nics.findIndex(({ port }) => port === nic.port);
      const nics = index < 0 ? [...others, nic] : guest.nics.with(index, nic);
      await record.writeSpec({ ...guest, nics });
      if (!(await isRunning(record, container))) return;
      try {
        await using namespaces = await holdContainer(access, container, signal);
        if (await isPlugged(nic, namespaces)) return;
        await plugCard(nic, namespaces, { first: false, fresh: false, signal });
      } catch (error) {
        if (index < 0) await record.writeSpec({ ...guest, nics: others });
        throw error;
      }
    },
    async detach(handle, nic, signal) {
      signal.throwIfAborted();
      const uid = access.uidOf(handle);
      const record = access.record(uid);
      const [guest, container] = await Promise.all([record.readSpec(), access.container(uid, signal)]);
      if (guest !== undefined) expectFurther(guest, nic);
      const known = guest?.nics.find(({ port }) => port === nic.port);
      if (known !== undefined && container !== undefined && (await isRunning(record, container))) {
        await forgetCard(access, known, container, signal);
      }
      await unplugCard(nic);
      if (guest === undefined || known === undefined) return;
      await record.writeSpec({ ...guest, nics: guest.nics.filter((other) => other !== known) });
    },
  };
}

/** @throws Invalid */
function expectFurther({ nics: [own] }: DockerGuest, { port }: Pick<GuestNic, "port">): void {
  if (own?.port !== port) return;
  throw new StrataError("Invalid", "a container's first network card is its own for life");
}

async function forgetCard(
  access: ChangeAccess,
  nic: GuestNic,
  container: ContainerInfo,
  signal: AbortSignal,
): Promise<void> {
  try {
    await using namespaces = await holdContainer(access, container, signal);
    await forgetRules(nic, namespaces);
  } catch (error) {
    // It has just ended, and its rules with it.
    if (!(error instanceof StrataError && error.code === "Unavailable")) throw error;
  }
}

/** The namespaces of a run that goes on. @throws Unavailable when it has ended. */
async function holdContainer(
  access: ChangeAccess,
  container: ContainerInfo,
  signal: AbortSignal,
): Promise<HeldNamespaces> {
  const namespaces = await holdNamespaces(container.State.Pid);
  const again = await access.engine.inspect(container.Id, signal);
  if (again?.State.Running && again.State.StartedAt === container.State.StartedAt) return namespaces;
  await namespaces[Symbol.asyncDispose]();
  throw new StrataError("Unavailable", "the container has just ended");
}

async function isRunning(record: GuestRecord, container: ContainerInfo): Promise<boolean> {
  return stateOf(container.State, await record.readRun()).state === "running";
}

/** @throws NotFound. */
async function requireGuest(
  access: ChangeAccess,
  handle: JsonObject,
  signal: AbortSignal,
): Promise<{ uid: Uid; record: GuestRecord; guest: DockerGuest; container: ContainerInfo }> {
  const uid = access.uidOf(handle);
  const record = access.record(uid);
  const [guest, container] = await Promise.all([record.readSpec(), access.container(uid, signal)]);
  if (guest !== undefined && container !== undefined) return { uid, record, guest, container };
  throw new StrataError("NotFound", `the container ${uid} does not exist`);
}
