/** What is plugged into a machine that runs, by its monitor. */
import { hasCode } from "../../core/errors.ts";
import { isJsonObject } from "../../core/json.ts";
import type { QmpClient } from "./qmp-client.ts";

/** Names of the objects at a path; of devices, those included that are being taken out. */
export async function namesOf(monitor: QmpClient, path: string): Promise<Set<string>> {
  const list = await monitor.execute("qom-list", { path });
  const names = Array.isArray(list) ? list.map((each) => (isJsonObject(each) ? each.name : undefined)) : [];
  return new Set(names.filter((name) => typeof name === "string"));
}

/** Absent is success: QEMU says so with an error that is like any other. */
export async function dropQuietly(command: Promise<unknown>): Promise<void> {
  await command.catch((error) => {
    if (!hasCode(error, "Internal")) throw error;
  });
}
