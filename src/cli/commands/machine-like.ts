import type { JsonObject } from "../../core/json.ts";
import type { InstanceSpec } from "../../kinds/instance.ts";
import type { Call } from "../command.ts";
import { defined } from "./creation.ts";

/** A new instance that is set up as another was, but for its addresses; nothing of it is protected. */
export function machineLike(
  machine: InstanceSpec | undefined,
  { options }: Call,
  changes: Partial<InstanceSpec>,
): JsonObject {
  const { ipAddress, ipv6Address, restarts, rebuilds, power, protected: _kept, ...taken } = machine ?? {};
  const asked = defined({ cpus: options.count("cpus"), memoryMib: options.mib("memory") });
  return {
    ...taken,
    ...asked,
    ...changes,
    power: options.flag("stopped") ? "stopped" : "running",
  } as JsonObject;
}
