/**
 * A running machine's memory and the state of its devices, written by QEMU (`snapshot-save`) into a qcow2 file that is none
 * of the machine's disks, while the machine is kept still. The file is made here and given as an open descriptor, as copies
 * of disks are; how the machine was set up lies beside it, as NAME.json.
 *
 * QEMU answers nobody while it writes.
 */
import { createHash } from "node:crypto";
import { chmod, open, readFile, rm, stat } from "node:fs/promises";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { run } from "../../host/run.ts";
import type { KeptMemory } from "../driver.ts";
import { diskNodes } from "./command-line.ts";
import type { GuestRecord, RunRecord } from "./guest-files.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import {
  comers,
  type KeptMachine,
  keptMachineSchema,
  memoryNames,
  memoryNode,
  memoryTag,
  partsOf,
  unsettled,
} from "./kept-machine.ts";
import { descriptorSets, dropQuietly, namesOf, objects, peripherals } from "./machine-objects.ts";
import type { QmpClient } from "./qmp-client.ts";

/** For QEMU to write memory, or to read it. */
export const memoryLimitMs = 10 * 60_000;
const lookMs = 50;

/** What lies beside the memory. */
const machineFile = (path: string) => `${path}.json`;

export interface MemoryRequest {
  id: Uid;
  to: string;
  record: GuestRecord;
}

/** Makes the file and adds it to the machine, as a node that nothing uses yet. */
export async function openMemory(
  guest: GuestLifecycle,
  { id, to }: MemoryRequest,
  signal: AbortSignal,
): Promise<void> {
  const { node, data } = memoryNames(id);
  for (const path of [to, machineFile(to)]) await rm(path, { force: true });
  // No disk is in it: memory lies behind where that ends.
  await run("qemu-img", ["create", "-q", "-f", "qcow2", to, "1M"], { signal });
  await chmod(to, 0o600);
  await guest.passDescriptor(to, data, signal);
  await guest.withMonitor(
    async (monitor) => {
      const [set] = (await descriptorSets(monitor)).get(data) ?? [];
      if (set === undefined) throw new StrataError("Internal", "QEMU has lost a descriptor");
      await monitor.execute("blockdev-add", memoryNode(node, set));
    },
    { signal },
  );
}

/** While the machine is kept still. `frozen`: its agent was asked to freeze. Nothing of it is left where it is missing. */
export async function saveMemory(
  guest: GuestLifecycle,
  { id, to, record }: MemoryRequest,
  { clock, frozen }: { clock: Clock; frozen: boolean },
): Promise<KeptMemory> {
  const sight = await guest.look();
  if (sight.state !== "running") throw new StrataError("Unavailable", "the virtual machine has just ended");
  const { node } = memoryNames(id);
  const missing = await guest.withMonitor(async (monitor) => {
    const machine = await describeMachine(monitor, record, sight.run, frozen);
    const why =
      typeof machine === "string"
        ? machine
        : await runMemoryJob(monitor, "snapshot-save", { job: node, node }, clock);
    if (why === undefined) {
      await writeMachine(to, machine as KeptMachine);
      return undefined;
    }
    await dropMemory(monitor, node);
    return why;
  });
  if (missing === undefined) return { sizeBytes: (await stat(to)).blocks * 512 };
  for (const path of [to, machineFile(to)]) await rm(path, { force: true });
  return { missing };
}

/** How the machine was set up that memory is of. @throws when nobody can tell. */
export async function readMachine(path: string): Promise<KeptMachine> {
  return keptMachineSchema.parse(JSON.parse(await readFile(machineFile(path), "utf8")));
}

/** Runs `snapshot-save` or `snapshot-load` to its end. Returns why it failed. The job stays listed. */
export async function runMemoryJob(
  monitor: QmpClient,
  command: "snapshot-save" | "snapshot-load",
  { job, node }: { job: string; node: string },
  clock: Clock,
): Promise<string | undefined> {
  const slow = { timeoutMs: memoryLimitMs };
  const args = { "job-id": job, tag: memoryTag, vmstate: node, devices: [node] };
  await monitor.execute(command, args, slow);
  for (const deadline = clock.monotonicMs() + memoryLimitMs; ; await clock.sleep(lookMs)) {
    const state = await jobState(monitor, job);
    if (state === "complete") return undefined;
    if (state !== "running") return state.failed;
    if (clock.monotonicMs() > deadline)
      throw new StrataError("Timeout", "QEMU goes on with a machine's memory");
  }
}

export async function jobState(
  monitor: QmpClient,
  name: string,
): Promise<"running" | "complete" | { failed: string }> {
  const jobs = objects(await monitor.execute("query-jobs", {}, { timeoutMs: memoryLimitMs }));
  const job = jobs.find(({ id }) => id === name);
  if (!job) return { failed: "QEMU knows nothing of it any more" };
  if (job.status !== "concluded") return "running";
  return job.error === undefined ? "complete" : { failed: String(job.error).slice(0, 300) };
}

/** The job and the node. Absent is success. */
export async function dropMemory(monitor: QmpClient, node: string, job = node): Promise<void> {
  await dropQuietly(monitor.execute("job-dismiss", { id: job }));
  await dropQuietly(monitor.execute("blockdev-del", { "node-name": node }));
}

/** QEMU's version with its maker's words: what is written by one is read by the same. */
export function versionOf({ version, package: words }: QmpClient): string {
  return words === "" ? version : `${version} (${words})`;
}

/** What the guest sees of the host's processor, as one word. */
export async function processorOf(accelerator: "kvm" | "tcg"): Promise<string> {
  if (accelerator === "tcg") return "";
  const [first = ""] = (await readFile("/proc/cpuinfo", "utf8")).split("\n\n");
  const lines = first.split("\n").filter((line) => /^(vendor_id|cpu family|model|stepping|flags)/.test(line));
  return createHash("sha256").update(lines.join("\n")).digest("hex").slice(0, 16);
}

/** Or why its memory cannot be kept. */
async function describeMachine(
  monitor: QmpClient,
  record: GuestRecord,
  { launched }: RunRecord,
  frozen: boolean,
): Promise<KeptMachine | string> {
  if (launched === undefined) return "it was started by an earlier version of Strata; restart it";
  const { root, volumes = [] } = record.spec;
  if (root.type === "disk" && root.firmware === "uefi") return "machines that boot by UEFI cannot";
  const devices = await namesOf(monitor, peripherals);
  const moving = unsettled(record, devices);
  if (moving !== undefined) return moving;
  const { cpus, ports } = comers(devices);
  const numberOf = async (device: string, property: string) =>
    Number(await monitor.execute("qom-get", { path: `${peripherals}/${device}`, property }));
  const targets: Record<string, number> = {};
  for (const { id } of volumes) targets[id] = await numberOf(diskNodes(id).device, "scsi-id");
  const places: KeptMachine["ports"] = [];
  for (const id of ports) places.push({ id, nr: await numberOf(id, "nr") });
  return {
    ...{ version: 1, qemu: versionOf(monitor), launched, parts: partsOf(record), frozen },
    ...{ processor: await processorOf(launched.accelerator), cpus, targets, ports: places },
  };
}

async function writeMachine(to: string, machine: KeptMachine): Promise<void> {
  await using file = await open(machineFile(to), "w", 0o600);
  await file.writeFile(JSON.stringify(machine));
  await file.sync();
}
