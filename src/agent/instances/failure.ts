import type { ErrorCode, StrataError } from "../../core/errors.ts";
import type { Instance, InstanceStatus } from "../../kinds/instance.ts";
import type { InstanceReport } from "./world.ts";

/** What to tell of an instance for which a round ended in an error. */
export function reportFailure(
  instance: Instance,
  error: StrataError,
  retryAfterMs: number,
  guestRuns: boolean,
): InstanceReport {
  const { status, metadata, spec } = instance;
  const again = `${error.message}; trying again in ${Math.max(1, Math.round(retryAfterMs / 1000))} s`.slice(
    0,
    1000,
  );
  if (metadata.deletedAt !== undefined) {
    return told(status, { state: "deleting", reason: "DeleteFailed", message: again });
  }
  const starting = !guestRuns && spec.power === "running" && mayStart.has(status.state);
  if (!starting) return told(status, { message: again });
  if (!permanent.has(error.code)) {
    return told(status, { state: "starting", reason: "StartFailed", message: again });
  }
  const message = `${error.message}; change the instance or restart it to try again`.slice(0, 1000);
  const next = {
    state: "failed" as const,
    reason: "StartFailed",
    message,
    observedGeneration: metadata.generation,
    observedRestarts: spec.restarts,
  };
  const event = {
    severity: "warning" as const,
    reason: "StartFailed",
    message: error.message.slice(0, 1000),
  };
  return { status: { ...status, ...next }, events: [event] };
}

/** What a driver or the host says of a guest that can never start as it is. Anything else may pass. */
const permanent: ReadonlySet<ErrorCode> = new Set(["Invalid", "Unsupported"]);
const mayStart: ReadonlySet<string> = new Set(["pending", "starting", "stopped", "backoff", "failed"]);

function told(status: InstanceStatus, change: Partial<InstanceStatus>): InstanceReport {
  return { status: { ...status, ...change }, events: [] };
}
