/** What QEMU says about processors and memory that come and go. QEMU is not trusted: answers are checked. */
import { isJsonObject, type Json, type JsonObject } from "../../core/json.ts";
import { balloonId, hotMemoryId } from "./command-line.ts";
import type { QmpClient } from "./qmp-client.ts";

const mibBytes = 1024 ** 2;

export interface MachineSize {
  /** Processors in the machine; the guest may have put some of them out of use. */
  cpus: number;
  /** Arguments of device_add for those that could come, in this order. */
  freeCpus: JsonObject[];
  /** What it began with. */
  baseMib: number;
  /** Memory beyond that; absent when the machine was not made for it. */
  hot?: HotMemory;
}

export interface HotMemory {
  /** What the guest has taken into use. */
  sizeMib: number;
  /** What it was asked to. */
  requestedMib: number;
  maxMib: number;
}

export async function readMachineSize(monitor: QmpClient): Promise<MachineSize> {
  const cpus = objects(await monitor.execute("query-hotpluggable-cpus"));
  const summary = await monitor.execute("query-memory-size-summary");
  const hot = parseHotMemory(await monitor.execute("query-memory-devices"));
  return {
    ...parseCpus(cpus),
    baseMib: isJsonObject(summary) ? mib(summary["base-memory"]) : 0,
    ...(hot === undefined ? {} : { hot }),
  };
}

export async function requestHotMemory(monitor: QmpClient, requestedMib: number): Promise<void> {
  await monitor.execute("qom-set", {
    path: `/machine/peripheral/${hotMemoryId}`,
    property: "requested-size",
    value: requestedMib * mibBytes,
  });
}

export async function readHotMemory(monitor: QmpClient): Promise<HotMemory | undefined> {
  return parseHotMemory(await monitor.execute("query-memory-devices"));
}

/** Has the guest's balloon driver tell every second what it knows about the use of memory; 0 ends it. */
export async function pollGuestMemory(monitor: QmpClient, everySeconds: 0 | 1): Promise<void> {
  const path = `/machine/peripheral/${balloonId}`;
  await monitor.execute("qom-set", { path, property: "guest-stats-polling-interval", value: everySeconds });
}

/** What the guest said last; its programs could have `availableMib` without any of them being ended. */
export async function readGuestMemory(
  monitor: QmpClient,
): Promise<{ toldAt: number; availableMib: number | undefined }> {
  const path = `/machine/peripheral/${balloonId}`;
  const answer = await monitor.execute("qom-get", { path, property: "guest-stats" });
  const told = isJsonObject(answer) ? answer : {};
  const available = isJsonObject(told.stats) ? told.stats["stat-available-memory"] : undefined;
  const known = typeof available === "number" && available >= 0 && available < Number.MAX_SAFE_INTEGER;
  return { toldAt: Number(told["last-update"] ?? 0), availableMib: known ? mib(available) : undefined };
}

export function parseCpus(cpus: readonly JsonObject[]): Pick<MachineSize, "cpus" | "freeCpus"> {
  const free = cpus.filter((cpu) => cpu["qom-path"] === undefined && isJsonObject(cpu.props));
  const coreOf = (cpu: JsonObject) => Number(isJsonObject(cpu.props) ? cpu.props["core-id"] : 0);
  return {
    cpus: cpus.length - free.length,
    freeCpus: free
      .toSorted((a, b) => coreOf(a) - coreOf(b))
      .map((cpu) => {
        // Which NUMA node it belongs to is no property of the device.
        const { "node-id": _, ...props } = cpu.props as JsonObject;
        return { driver: cpu.type ?? "", id: `cpu${coreOf(cpu)}`, ...props };
      }),
  };
}

export function parseHotMemory(devices: Json): HotMemory | undefined {
  for (const { data } of objects(devices)) {
    if (!isJsonObject(data) || data.id !== hotMemoryId) continue;
    return {
      sizeMib: mib(data.size),
      requestedMib: mib(data["requested-size"]),
      maxMib: mib(data["max-size"]),
    };
  }
  return undefined;
}

function objects(value: Json): JsonObject[] {
  return Array.isArray(value) ? value.filter(isJsonObject) : [];
}

function mib(value: Json | undefined): number {
  return typeof value === "number" ? value / mibBytes : 0;
}
