/**
 * Copies of a running machine's disks as all of them are at one moment, made by QEMU while the machine goes on: its backup
 * jobs copy what was there at the moment they began, and what the guest is about to overwrite is copied first. So the guest
 * is kept still only while they begin, in one transaction, however large its disks are.
 *
 * A file that is copied into is made here and given as an open descriptor, as disks are. A root's copy is an overlay over
 * the same base. A volume's copy is a raw file, written through a qcow2 map that has the raw file as its data: QEMU would
 * otherwise take space for everything that reads as zeros. In such a map, data lies where it lies on the disk; when the copy
 * is complete the map is not needed any more, and its file has no name from the beginning.
 *
 * Memory that is asked for is written in the same standstill, by a job that is listed with the others (keep-memory.ts).
 *
 * Jobs stay, also when they are complete, until they are forgotten, so a caller that was killed finds how it ended. A mark
 * in the guest's directory, older than the jobs, says which guest has copies of that id.
 */
import { chmod, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { isJsonObject } from "../../core/json.ts";
import { run } from "../../host/run.ts";
import type { DiskCopies, DiskCopy, DiskCopyRequest, KeptMemory } from "../driver.ts";
import { diskNodes } from "./command-line.ts";
import { type CopyJob, type CopyNodes, copyNames, copySpeeds, copyTarget, judgeCopies } from "./copy-jobs.ts";
import type { GuestFiles, GuestRecord } from "./guest-files.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { holdLimitMs } from "./hold-limit.ts";
import { memoryLimitMs, openMemory, saveMemory } from "./keep-memory.ts";
import { supportsDirect } from "./launch.ts";
import { descriptorSets, objects } from "./machine-objects.ts";
import type { QmpClient } from "./qmp-client.ts";
import { type StillParts, wasAskedToFreeze, whileStill } from "./still-guest.ts";

/** Between looks at the jobs: the first, which doubles, and the longest. */
const lookMs = { first: 50, most: 1_000 } as const;
/** For a job that was told to end. */
const endMs = 30_000;

/** In a mark: all that was wanted was done in the moment itself. */
const nothingToCopy = "nothing";

interface Planned extends DiskCopy {
  /** The node of the disk, and how much of it is copied. */
  source: string;
  sync: "full" | "top";
  format: "qcow2" | "raw";
  sizeBytes: number;
  /** What is taken on the host. */
  usedBytes: number;
  names: CopyNodes;
}

/** With the guest's lock held. */
export async function beginCopies(
  guest: GuestLifecycle,
  parts: StillParts,
  { id, disks, meanwhile, memory: wanted }: DiskCopyRequest,
  signal: AbortSignal,
): ReturnType<DiskCopies<object>["begin"]> {
  await forgetCopies(guest, parts.clock, id);
  const record = await guest.files.readGuest();
  if (record === undefined || (await guest.look()).state !== "running") return { guest: "idle" };
  await writeFile(markOf(guest.files, id), "");
  try {
    const { planned, others } = await planCopies(guest, record, id, disks, signal);
    for (const copy of planned) await openTarget(guest, record, copy, signal);
    const memoryOf = wanted && { id, record, to: wanted.to };
    if (memoryOf) await openMemory(guest, memoryOf, signal);
    let memory: KeptMemory | undefined;
    let begun = parts.clock.monotonicMs();
    const onStill = () => {
      begun = parts.clock.monotonicMs();
    };
    const still = await whileStill(
      guest,
      parts,
      async (inTime) => {
        if (memoryOf) {
          const frozen = await wasAskedToFreeze(guest);
          memory = await saveMemory(guest, memoryOf, { clock: parts.clock, frozen });
        }
        await meanwhile(others, inTime);
        await guest.withMonitor((monitor) => startJobs(monitor, planned), { signal: inTime });
      },
      signal,
      { onStill, ...(wanted && { limitMs: holdLimitMs + memoryLimitMs }) },
    );
    if (still.guest === "idle") throw cutOff("it has just ended");
    const stillMs = Math.round(parts.clock.monotonicMs() - begun);
    const isAll = planned.length === 0 && !(memory && "sizeBytes" in memory);
    if (isAll) await writeFile(markOf(guest.files, id), nothingToCopy);
    return { guest: still.guest, stillMs, ...(memory && { memory }) };
  } catch (error) {
    await forgetCopies(guest, parts.clock, id).catch(() => {}); // the caller is told of the first failure
    throw error;
  }
}

/** Without the guest's lock: it takes as long as there is much to copy. */
export async function completeCopies(
  guest: GuestLifecycle,
  clock: Clock,
  id: Uid,
  signal: AbortSignal,
): Promise<void> {
  if ((await readMark(guest, id)) === nothingToCopy) return;
  for (let waitMs: number = lookMs.first; ; waitMs = Math.min(2 * waitMs, lookMs.most)) {
    if ((await guest.look()).state !== "running") throw cutOff("the virtual machine has ended");
    const done = await guest.withMonitor(
      async (monitor) => {
        const verdict = judgeCopies(await jobsOf(monitor, id), await isWithoutSpace(monitor));
        if (verdict.state === "failed") throw cutOff(verdict.reason);
        // What is cached of them is written out with it.
        if (verdict.state === "complete") await closeTargets(monitor, id);
        return verdict.state === "complete";
      },
      { signal },
    );
    if (done) return;
    await clock.sleep(waitMs, signal);
  }
}

export async function hasCopies(guest: GuestLifecycle, id: Uid): Promise<boolean> {
  return (await readMark(guest, id)) !== undefined;
}

async function readMark({ files }: GuestLifecycle, id: Uid): Promise<string | undefined> {
  return readFile(markOf(files, id), "utf8").catch(() => undefined);
}

/** Of any id. */
export async function isBeingCopied(monitor: QmpClient): Promise<boolean> {
  return (await allJobs(monitor)).some(({ state }) => state === "running");
}

/** With the guest's lock held. */
export async function forgetCopies(guest: GuestLifecycle, clock: Clock, id: Uid): Promise<void> {
  if (!(await hasCopies(guest, id))) return;
  if ((await guest.look()).state === "running") {
    await guest.withMonitor(async (monitor) => {
      await endJobs(monitor, clock, id);
      await closeTargets(monitor, id);
      for (const { name } of await jobsOf(monitor, id)) await monitor.execute("job-dismiss", { id: name });
    });
  }
  const { directory } = guest.files;
  for (const name of await readdir(directory)) {
    if (name.startsWith(`copy-${id}-`)) await rm(join(directory, name), { force: true });
  }
  await rm(markOf(guest.files, id), { force: true });
}

async function planCopies(
  guest: GuestLifecycle,
  record: GuestRecord,
  id: Uid,
  disks: readonly DiskCopy[],
  signal: AbortSignal,
): Promise<{ planned: Planned[]; others: DiskCopy[] }> {
  const sizes = await guest.withMonitor(sizesOf, { signal });
  const planned: Planned[] = [];
  const others: DiskCopy[] = [];
  for (const disk of disks) {
    const volume = record.spec.volumes?.find(({ path }) => path === disk.from);
    const isRoot = record.disk[0].path === disk.from;
    const source = isRoot ? "root" : diskNodes(volume?.id ?? "").node;
    const sizeBytes = sizes.get(source);
    if (sizeBytes === undefined) {
      others.push(disk);
      continue;
    }
    const format = isRoot ? record.disk[0].format : "raw";
    const sync = format === "qcow2" ? "top" : "full";
    const usedBytes = (await stat(disk.from)).blocks * 512;
    const names = copyNames(id, planned.length);
    planned.push({ ...disk, source, sync, format, sizeBytes, usedBytes, names });
  }
  return { planned, others };
}

/** Makes the file and adds it to the machine, as a node that nothing uses yet. */
async function openTarget(
  guest: GuestLifecycle,
  record: GuestRecord,
  { to, format, sizeBytes, names }: Planned,
  signal: AbortSignal,
): Promise<void> {
  await rm(to, { force: true });
  const map = join(guest.files.directory, `${names.node}.map`);
  const create = ["create", "-q", "-f", "qcow2"];
  const [, base] = record.disk;
  if (format === "qcow2") {
    const backing = base ? ["-b", base.path, "-F", base.format] : [];
    await run("qemu-img", [...create, ...backing, to, String(sizeBytes)], { signal });
  } else {
    const data = ["-o", `data_file=${to.replaceAll(",", ",,")},data_file_raw=off`];
    await run("qemu-img", [...create, ...data, map, String(sizeBytes)], { signal });
    await guest.passDescriptor(map, names.map, signal);
  }
  await chmod(to, 0o600);
  await guest.passDescriptor(to, names.data, signal);
  const direct = await supportsDirect(to);
  const mapDirect = format === "raw" && (await supportsDirect(map));
  await rm(map, { force: true });
  await guest.withMonitor(
    async (monitor) => {
      const sets = await descriptorSets(monitor);
      const set = (opaque: string) => {
        const [found] = sets.get(opaque) ?? [];
        if (found === undefined) throw new StrataError("Internal", "QEMU has lost a descriptor");
        return found;
      };
      const data = { set: set(names.data), direct };
      const target =
        format === "qcow2"
          ? copyTarget(names, data)
          : copyTarget(names, { set: set(names.map), direct: mapDirect }, data);
      await monitor.execute("blockdev-add", target);
    },
    { signal },
  );
}

async function startJobs(monitor: QmpClient, planned: readonly Planned[]): Promise<void> {
  const speeds = copySpeeds(planned);
  const actions = planned.map(({ names, source, sync }, index) => ({
    type: "blockdev-backup",
    data: {
      ...{ "job-id": names.node, device: source, target: names.node, sync },
      ...{ "auto-dismiss": false, speed: speeds[index] ?? 0 },
    },
  }));
  if (actions.length === 0) return;
  await monitor.execute("transaction", { actions, properties: { "completion-mode": "grouped" } });
}

async function endJobs(monitor: QmpClient, clock: Clock, id: Uid): Promise<void> {
  for (const deadline = clock.monotonicMs() + endMs; ; ) {
    const going = (await jobsOf(monitor, id)).filter(({ state }) => state === "running");
    if (going.length === 0) return;
    if (clock.monotonicMs() >= deadline) throw new StrataError("Timeout", "QEMU goes on copying a disk");
    for (const { name } of going) {
      // One that is ending by itself takes no orders.
      await monitor.execute("job-cancel", { id: name }).catch(() => {});
    }
    await clock.sleep(lookMs.first);
  }
}

/** Absent is success. */
async function closeTargets(monitor: QmpClient, id: Uid): Promise<void> {
  for (const node of (await sizesOf(monitor)).keys()) {
    if (node.startsWith(`copy-${id}-`)) await monitor.execute("blockdev-del", { "node-name": node });
  }
  for (const [opaque, sets] of await descriptorSets(monitor)) {
    if (!opaque.startsWith(`copy-${id}-`)) continue;
    for (const set of sets) await monitor.execute("remove-fd", { "fdset-id": set });
  }
}

async function jobsOf(monitor: QmpClient, id: Uid): Promise<CopyJob[]> {
  return (await allJobs(monitor)).filter(({ name }) => name.startsWith(`copy-${id}-`));
}

async function allJobs(monitor: QmpClient): Promise<CopyJob[]> {
  return objects(await monitor.execute("query-jobs")).map(({ id, status, error }) => ({
    name: String(id),
    state: status === "concluded" ? (error === undefined ? "complete" : "failed") : "running",
    reason: typeof error === "string" ? error : "",
  }));
}

/** The machine is paused at a write that found no space; what it copies is what there is too much of. */
async function isWithoutSpace(monitor: QmpClient): Promise<boolean> {
  const status = await monitor.execute("query-status");
  return isJsonObject(status) && status.status === "io-error";
}

/** In bytes, as the guest sees them, by node. */
export async function sizesOf(monitor: QmpClient): Promise<Map<string, number>> {
  const nodes = await monitor.execute("query-named-block-nodes", { flat: true });
  return new Map(
    objects(nodes).map((node) => {
      const image = isJsonObject(node.image) ? node.image : {};
      return [String(node["node-name"]), Number(image["virtual-size"])];
    }),
  );
}

function cutOff(why: string): StrataError {
  return new StrataError("Unavailable", `the disks were not copied to the end: ${why}`);
}

function markOf({ directory }: GuestFiles, id: Uid): string {
  return join(directory, `copy-${id}`);
}
