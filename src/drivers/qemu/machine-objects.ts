/** What is plugged into a machine that runs, by its monitor. */
import { hasCode } from "../../core/errors.ts";
import { isJsonObject, type Json, type JsonObject } from "../../core/json.ts";
import type { QmpClient } from "./qmp-client.ts";

/** Where devices with a name of ours are. */
export const peripherals = "/machine/peripheral";

/** Names of the objects at a path; of devices, those included that are being taken out. */
export async function namesOf(monitor: QmpClient, path: string): Promise<Set<string>> {
  const list = await monitor.execute("qom-list", { path });
  const names = Array.isArray(list) ? list.map((each) => (isJsonObject(each) ? each.name : undefined)) : [];
  return new Set(names.filter((name) => typeof name === "string"));
}

/** Numbers of descriptor sets by what they are found by. */
export async function descriptorSets(monitor: QmpClient): Promise<Map<string, number[]>> {
  const found = new Map<string, number[]>();
  for (const set of objects(await monitor.execute("query-fdsets"))) {
    const number = set["fdset-id"];
    for (const { opaque } of objects(set.fds ?? [])) {
      if (typeof opaque !== "string" || typeof number !== "number") continue;
      found.set(opaque, [...(found.get(opaque) ?? []), number]);
    }
  }
  return found;
}

/** Of a list that QEMU answered. */
export function objects(value: Json): JsonObject[] {
  return Array.isArray(value) ? value.filter((each) => isJsonObject(each)) : [];
}

/** Absent is success: QEMU says so with an error that is like any other. */
export async function dropQuietly(command: Promise<unknown>): Promise<void> {
  await command.catch((error) => {
    if (!hasCode(error, "Internal")) throw error;
  });
}
