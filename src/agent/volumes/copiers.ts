/** Drivers that copy disks of their guests in the background. */
import { describeError } from "../../core/errors.ts";
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

/**
 * As `forgetCopies`, once it is recorded how they ended. That is not changed by a failure, as of a guest that ends at this
 * moment, which is therefore only logged: what is left to forget goes with what was copied.
 */
export async function forgetEndedCopies(context: AgentContext, uid: string): Promise<void> {
  await forgetCopies(context, uid).catch((error) => {
    context.logger.info({ uid, error: describeError(error) }, "copies of disks that have ended stay listed");
  });
}
