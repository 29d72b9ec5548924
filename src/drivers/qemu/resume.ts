/**
 * A machine that goes on where it was when its memory was kept.
 *
 * Memory knows what is on the disks; loaded over disks that were written to since, it destroys them. So three things stand
 * before that. What is put back is for the start that follows: it names the last run. It says what the disks' files looked
 * like, and whoever writes to one changes that. And it is declared used, on disk, before the machine is made, so that a
 * driver that is killed at any line never uses it again.
 *
 * The machine is made waiting and does not begin before all of its memory is loaded. A driver that finds it so asks QEMU
 * how that ended: it goes on then, or is ended, and boots with its next start.
 *
 * Everything here is called with the guest's lock held.
 */
import { rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { describeError, hasCode, StrataError, toStrataError } from "../../core/errors.ts";
import { run } from "../../host/run.ts";
import type { GuestRecord, PutBack, RunRecord } from "./guest-files.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { dropMemory, jobState, processorOf, readMachine, runMemoryJob, versionOf } from "./keep-memory.ts";
import { comers, differenceOf, type KeptMachine, keptNode, partsOf } from "./kept-machine.ts";
import { descriptorSets, dropQuietly, namesOf, peripherals } from "./machine-objects.ts";
import { readMachineSize } from "./machine-size.ts";
import type { QmpClient } from "./qmp-client.ts";
import { goOnAsKept, type StillParts } from "./still-guest.ts";

const node = "kept-memory";
const layer = "kept-memory-layer";
/** What QEMU may add to the file, at least. */
const layerBytes = 64 * 1024 ** 2;
const loadJob = "load-memory";
/** QEMU answers nobody while it loads. */
const loadingMs = 60_000;
const cutOff = "it was interrupted while its memory was being loaded";

/** The guest does not run. @throws NotFound. */
export async function putBackMemory(
  guest: GuestLifecycle,
  { id, path }: { id: string; path: string },
): Promise<void> {
  const { files } = guest;
  const record = await files.readGuest();
  if (record === undefined) {
    throw new StrataError("NotFound", `the virtual machine ${files.uid} does not exist on this host`);
  }
  const sight = await guest.look();
  if (sight.state === "running") throw new StrataError("Conflict", "the virtual machine runs");
  const after = "run" in sight ? { after: sight.run.runId } : {};
  const kept = await readMachine(path).catch(() => undefined);
  if (kept === undefined) {
    return files.writePutBack({ id, path, ...after, disks: {}, refused: "what was kept with it is damaged" });
  }
  const disks: Record<string, string> = {};
  for (const disk of disksOf(kept)) disks[disk] = (await lookOf(disk)) ?? "missing";
  await files.writePutBack({ id, path, ...after, disks });
}

/** Starts a machine that does not run, from the memory that was put back if there is any. */
export async function startGuest(
  guest: GuestLifecycle,
  parts: StillParts,
  record: GuestRecord,
  signal: AbortSignal,
): Promise<void> {
  const { files } = guest;
  const found = await files.readPutBack();
  if (found === undefined) return void (await guest.lockedStart(record, signal));
  const before = await files.readRun();
  if (isUsedUp(found, before) && before?.pid !== undefined) {
    await files.removePutBack();
    return void (await guest.lockedStart(record, signal));
  }
  let refused = found.refused;
  if (refused === undefined) {
    // From here on nobody uses it again.
    await files.writePutBack({ ...found, refused: cutOff });
    refused = await resume(guest, parts, { record, found, before }, signal);
    if (refused === undefined) return files.removePutBack();
    await files.writePutBack({ ...found, refused });
  }
  const memory = { id: found.id, state: "booted" as const, message: refused, frozen: false };
  await guest.lockedStart(record, signal, { memory });
  await files.removePutBack();
}

/** A run was begun for it, and is known to have used it or not. */
function isUsedUp({ id }: PutBack, last: RunRecord | undefined): boolean {
  return last?.memory?.id === id && last.memory.state !== "loading";
}

/** A machine that a killed predecessor had made, and that waits for its memory or has it, goes on or is ended. */
export async function recoverLoading(guest: GuestLifecycle, parts: StillParts): Promise<void> {
  const sight = await guest.look();
  if (sight.state !== "running" || sight.run.memory === undefined) return;
  const last = sight.run;
  if (last.memory?.state !== "loading") {
    const found = await guest.files.readPutBack();
    if (found && isUsedUp(found, last)) await guest.files.removePutBack();
    return;
  }
  const state = await guest
    .withMonitor((monitor) => jobState(monitor, loadJob), { timeoutMs: loadingMs })
    .catch((error) => {
      if (hasCode(error, "Timeout")) throw error; // it is looked at again
      return { failed: describeError(error) };
    });
  if (state === "complete") {
    await begin(guest, parts, last);
    return guest.files.removePutBack();
  }
  parts.logger.warn({ uid: guest.files.uid, state }, "a machine's memory was not loaded to the end");
  await guest.lockedStop(last, 0, new AbortController().signal);
}

/** Returns why it does not go on; then it does not run. @throws the signal's reason. */
async function resume(
  guest: GuestLifecycle,
  parts: StillParts,
  { record, found, before }: { record: GuestRecord; found: PutBack; before: RunRecord | undefined },
  signal: AbortSignal,
): Promise<string | undefined> {
  const { logger } = parts;
  try {
    if (found.after !== before?.runId) return "it was started since";
    const kept = await readMachine(found.path).catch(() => undefined);
    if (kept === undefined) return "its snapshot is gone";
    const accelerator = (await guest.accelerator(signal)).type;
    const next = { parts: partsOf(record), accelerator, processor: await processorOf(accelerator) };
    const difference = differenceOf(kept, next) ?? (await touched(found, kept));
    if (difference !== undefined) return difference;
    const memory = { id: found.id, state: "loading" as const, message: "", frozen: kept.frozen };
    const started = await guest.lockedStart(record, signal, { memory, kept });
    try {
      const failure = await load(guest, found.path, kept, parts, signal);
      if (failure === undefined) {
        await begin(guest, parts, started);
        return undefined;
      }
      await guest.lockedStop(started, 0, signal);
      return failure;
    } catch (error) {
      await guest.lockedStop(started, 0, new AbortController().signal);
      throw error;
    }
  } catch (error) {
    signal.throwIfAborted();
    logger.warn({ uid: guest.files.uid, error: describeError(error) }, "a machine does not go on");
    return toStrataError(error, "load its memory").message.slice(0, 300);
  }
}

/** Returns why it failed. */
async function load(
  guest: GuestLifecycle,
  path: string,
  kept: KeptMachine,
  { clock }: StillParts,
  signal: AbortSignal,
): Promise<string | undefined> {
  const other = await guest.withMonitor(
    async (monitor) => {
      const version = versionOf(monitor);
      if (version !== kept.qemu) return `it ran in QEMU ${kept.qemu}, and this is ${version}`;
      await plugComers(monitor, kept);
      return undefined;
    },
    { signal },
  );
  if (other !== undefined) return other;
  await openKept(guest, path, signal);
  return guest.withMonitor(
    (monitor) => runMemoryJob(monitor, "snapshot-load", { job: loadJob, node }, clock),
    { signal },
  );
}

/** QEMU marks what it loads as the current state: that goes into a layer above the file, which has no name and ends with it. */
async function openKept(guest: GuestLifecycle, path: string, signal: AbortSignal): Promise<void> {
  const above = join(guest.files.directory, "memory.layer");
  await rm(above, { force: true });
  const size = Math.ceil((await stat(path)).size / layerBytes + 1) * layerBytes;
  await run("qemu-img", ["create", "-q", "-f", "qcow2", above, String(size)], { signal });
  await guest.passDescriptor(above, layer, signal);
  await rm(above, { force: true });
  await guest.passDescriptor(path, node, signal, { readOnly: true });
  await guest.withMonitor(
    async (monitor) => {
      const sets = await descriptorSets(monitor);
      const [[memory] = [], [changes] = []] = [node, layer].map((opaque) => sets.get(opaque));
      if (memory === undefined || changes === undefined) {
        throw new StrataError("Internal", "QEMU has lost a descriptor");
      }
      await monitor.execute("blockdev-add", keptNode(node, { memory, changes }));
    },
    { signal },
  );
}

/** Processors, and ports of commands, that had come while it ran. */
async function plugComers(monitor: QmpClient, { cpus, ports }: KeptMachine): Promise<void> {
  const { freeCpus } = await readMachineSize(monitor);
  for (const cpu of freeCpus) if (cpus.includes(String(cpu.id))) await monitor.execute("device_add", cpu);
  for (const { id, nr } of ports) {
    const device = { driver: "virtserialport", bus: "ports.0", id, chardev: id, name: id, nr };
    await monitor.execute("device_add", device);
  }
}

/** Its memory is loaded. May be repeated. Commands that were running have nobody to talk to any more. */
async function begin(guest: GuestLifecycle, parts: StillParts, started: RunRecord): Promise<void> {
  const { memory } = started;
  await guest.withMonitor(async (monitor) => {
    for (const id of comers(await namesOf(monitor, peripherals)).ports) {
      await dropQuietly(monitor.execute("device_del", { id }));
    }
  });
  await goOnAsKept(guest, parts, memory?.frozen ?? false);
  await guest.files.writeRun({ ...started, ...(memory && { memory: { ...memory, state: "resumed" } }) });
  await guest
    .withMonitor(async (monitor) => {
      await dropMemory(monitor, node, loadJob);
      const sets = await descriptorSets(monitor);
      for (const set of [node, layer].flatMap((opaque) => sets.get(opaque) ?? [])) {
        await monitor.execute("remove-fd", { "fdset-id": set });
      }
    })
    .catch((error) => {
      const { uid } = guest.files;
      parts.logger.warn({ uid, error: describeError(error) }, "a machine still holds its memory's file");
    });
}

function disksOf({ parts }: KeptMachine): string[] {
  const { root, disks } = parts as { root?: { path?: string }; disks?: Record<string, { path?: string }> };
  return [root, ...Object.values(disks ?? {})].flatMap((disk) => disk?.path ?? []);
}

async function touched(found: PutBack, kept: KeptMachine): Promise<string | undefined> {
  for (const disk of disksOf(kept)) {
    if (found.disks[disk] !== (await lookOf(disk)))
      return "a disk of it was written to since it was put back";
  }
  return undefined;
}

/** Changes with each write, whoever makes it, and with another file in its place. Undefined when there is none. */
async function lookOf(path: string): Promise<string | undefined> {
  const found = await stat(path, { bigint: true }).catch((error) => {
    if (error.code !== "ENOENT") throw error;
    return undefined;
  });
  return found && [found.ino, found.size, found.mtimeNs, found.ctimeNs].join(" ");
}
