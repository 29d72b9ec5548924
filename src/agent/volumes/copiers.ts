/** Drivers that copy disks of their guests in the background. */
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { DiskCopies } from "../../drivers/driver.ts";
import type { AgentContext } from "../agent-context.ts";

export function copiersOf({ drivers }: AgentContext): DiskCopies<JsonObject>[] {
  return [...drivers.all()].flatMap(({ snapshots }) =>
    snapshots?.keptStillBy === "driver" && snapshots.copies ? [snapshots.copies] : [],
  );
}

/** Nothing is copied under this uid any more; what was copied stays. Absent is success. */
export async function forgetCopies(context: AgentContext, uid: string): Promise<void> {
  for (const copies of copiersOf(context)) await copies.forget(uid as Uid);
}
