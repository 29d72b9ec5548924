import type { ExitReason, ObservedGuest } from "../driver.ts";
import type { ContainerInfo } from "./engine.ts";
import type { RunRecord } from "./guest-record.ts";

type GuestState = Omit<ObservedGuest<never>, "uid" | "handle">;
export type ContainerState = Pick<
  ContainerInfo["State"],
  "Running" | "StartedAt" | "Pid" | "ExitCode" | "OOMKilled" | "Error"
> & { Health?: { Status?: string } | undefined };

/** What the Engine says for "never". */
const never = /^0001-/;
const notFound = 127;
const notExecutable = 126;
const healthStates = ["starting", "healthy", "unhealthy"] as const;

/** A run of a container; undefined when it never ran. */
export function runIdOf({ StartedAt }: Pick<ContainerState, "StartedAt">): string | undefined {
  return StartedAt === "" || never.test(StartedAt) ? undefined : StartedAt;
}

/**
 * What the Engine and the guest's record say together. A container whose gate is still closed runs for the Engine and
 * not for us: nothing of the guest has run, and `start` has yet to complete it.
 */
export function stateOf(state: ContainerState, record: RunRecord): GuestState {
  const runId = runIdOf(state);
  if (runId === undefined || record.opened !== runId) {
    return record.last === undefined ? { state: "created" } : { state: "stopped", ...record.last };
  }
  if (!state.Running) return { state: "stopped", runId, exit: exitOf(state, record.stop === runId) };
  const health = healthStates.find((name) => name === state.Health?.Status);
  return {
    state: "running",
    runId,
    ...(state.Pid > 0 ? { pid: state.Pid } : {}),
    ...(health === undefined ? {} : { health }),
  };
}

function exitOf(state: ContainerState, requested: boolean): { reason: ExitReason; message: string } {
  if (requested) return { reason: "requested", message: "stopped as requested" };
  const { ExitCode: code } = state;
  if (code === 0) return { reason: "poweroff", message: "its command ended with status 0" };
  if (state.OOMKilled) {
    return { reason: "crash", message: "it needed more memory than it has and was killed" };
  }
  if (code === notFound) {
    return { reason: "crash", message: "its command was not found (status 127); the log names it" };
  }
  if (code === notExecutable) {
    return { reason: "crash", message: "its command cannot be executed (status 126); the log says why" };
  }
  // 255: the Engine was not there to see the end.
  if (code === 255 && state.Error !== "") return { reason: "crash", message: state.Error.slice(0, 500) };
  if (code > 128 && code < 128 + 65) {
    return { reason: "crash", message: `its command was killed by signal ${code - 128}` };
  }
  return { reason: "crash", message: `its command ended with status ${code}` };
}
