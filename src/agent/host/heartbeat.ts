import { toTimestamp } from "../../core/clock.ts";
import { describeError } from "../../core/errors.ts";
import { leaseKind } from "../../kinds/lease.ts";
import type { AgentContext } from "../agent-context.ts";

/** Between two signs of life. */
export const heartbeatMs = 4_000;
/** Without one for this long, the host counts as not ready. */
export const heartbeatLeaseMs = 15_000;

/** The name of a host's lease: leases share one name space. */
export function hostLeaseName(hostName: string): string {
  return hostName;
}

/** Renews the host's lease until the signal aborts. A renewal that fails is tried again with the next. */
export async function runHeartbeat(context: AgentContext): Promise<void> {
  const { client, hostName, clock, logger, signal } = context;
  while (!signal.aborted) {
    const spec = { holder: hostName, durationMs: heartbeatLeaseMs, renewedAt: toTimestamp(clock.now()) };
    try {
      await client.apply(leaseKind, { name: hostLeaseName(hostName), spec }, { signal });
    } catch (error) {
      if (!signal.aborted) logger.warn({ error: describeError(error) }, "the host's lease was not renewed");
    }
    await clock.sleep(heartbeatMs, signal).catch(() => {});
  }
}
