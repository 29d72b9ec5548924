import { isJsonObject, type Json } from "../../core/json.ts";
import { type GuestAgentOptions, withAgent } from "./guest-agent.ts";

/** A guest without an agent is not worth a longer wait. */
const timeoutMs = 2_000;

/** Mount points in the guest of the disk with this serial number, by its agent; none where the agent does not answer. */
export async function mountedFrom(
  agentPath: string,
  serial: string,
  options: Omit<GuestAgentOptions, "timeoutMs">,
  signal: AbortSignal,
): Promise<string[]> {
  try {
    const { clock, random } = options;
    return await withAgent(agentPath, { clock, random, timeoutMs }, signal, async (agent) =>
      mountPointsOf(await agent.execute("guest-get-fsinfo"), serial),
    );
  } catch {
    signal.throwIfAborted();
    return [];
  }
}

/** From the answer to guest-get-fsinfo. QEMU's own prefix stands before the serial number that udev made. */
export function mountPointsOf(answer: Json, serial: string): string[] {
  if (!Array.isArray(answer)) return [];
  return answer.flatMap((each) => {
    if (!isJsonObject(each) || typeof each.mountpoint !== "string" || !Array.isArray(each.disk)) return [];
    const uses = each.disk.some(
      (disk) => isJsonObject(disk) && typeof disk.serial === "string" && disk.serial.endsWith(serial),
    );
    return uses ? [each.mountpoint] : [];
  });
}
