import type { ExitReason, ObservedGuest } from "../driver.ts";
import type { RunFiles } from "./guest-files.ts";
import type { RecordedExit } from "./recorder.ts";

type GuestState = Omit<ObservedGuest<never>, "uid" | "handle">;

/**
 * What the files of a run and the kernel say together; `running` tells whether the run's processes exist. A guest
 * without any run is `created` and not asked about here.
 */
export function stateOf(run: RunFiles, running: boolean): GuestState {
  const runId = run.run ?? "";
  if (running) {
    return { state: "running", runId, ...(run.init?.runId === runId ? { pid: run.init.pid } : {}) };
  }
  const began = run.init?.runId === runId || run.exit?.runId === runId;
  if (!began && run.exit === undefined) return { state: "created" };
  // A start that was interrupted before it did anything leaves the run before it as the last one.
  const last = began ? runId : (run.exit?.runId ?? runId);
  const exit = run.exit?.runId === last ? run.exit : undefined;
  return { state: "stopped", runId: last, exit: explain(exit, run.stop === last) };
}

function explain(
  exit: RecordedExit | undefined,
  requested: boolean,
): { reason: ExitReason; message: string } {
  if (requested) return { reason: "requested", message: "stopped as requested" };
  if (exit === undefined) {
    return {
      reason: "crash",
      message: "ended without a word: the host was restarted, or its monitor was killed",
    };
  }
  if (exit.init !== undefined && "signal" in exit.init) {
    // The kernel ends the init of a container that halts with SIGINT: reboot(2), "Behavior inside PID namespaces".
    if (exit.init.signal === 2) return { reason: "poweroff", message: "shut down from inside" };
    return { reason: "crash", message: `its init was killed by signal ${exit.init.signal}` };
  }
  if (exit.init !== undefined)
    return { reason: "crash", message: `its init ended with status ${exit.init.status}` };
  if (exit.monitorStatus === 0) return { reason: "poweroff", message: "its init ended with status 0" };
  const [error] = exit.errors;
  const message = error === undefined ? "its monitor was killed" : `could not start: ${error}`;
  return { reason: "crash", message };
}
