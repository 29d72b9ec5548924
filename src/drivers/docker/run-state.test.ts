import { expect, test } from "vitest";
import { type ContainerState, runIdOf, stateOf } from "./run-state.ts";

const run = "2026-01-02T03:04:05.123456789Z";
const ended: ContainerState = {
  Running: false,
  StartedAt: run,
  Pid: 0,
  ExitCode: 0,
  OOMKilled: false,
  Error: "",
};
const running: ContainerState = { ...ended, Running: true, Pid: 42 };
const last = { runId: "before", exit: { reason: "requested" as const, message: "stopped as requested" } };

test("a container that was never started has no run", () => {
  const never = { ...ended, StartedAt: "0001-01-01T00:00:00Z" };
  expect(runIdOf(never)).toBeUndefined();
  expect(stateOf(never, {})).toEqual({ state: "created" });
});

test("runs once its gate was opened, and not before", () => {
  expect(stateOf(running, { opened: run })).toEqual({ state: "running", runId: run, pid: 42 });
  expect(stateOf(running, {})).toEqual({ state: "created" });
  expect(stateOf(running, { last })).toEqual({ state: "stopped", ...last });
  expect(stateOf(running, { opened: "an earlier one", last })).toEqual({ state: "stopped", ...last });
});

test("one that ended at its closed gate never ran", () => {
  expect(stateOf({ ...ended, ExitCode: 137 }, {})).toEqual({ state: "created" });
});

test("health is told where there is a check", () => {
  const health = (Status: string) => stateOf({ ...running, Health: { Status } }, { opened: run }).health;
  expect(health("starting")).toBe("starting");
  expect(health("unhealthy")).toBe("unhealthy");
  expect(health("none")).toBeUndefined();
});

test.each<[Partial<ContainerState>, string, RegExp]>([
  [{ ExitCode: 0 }, "poweroff", /status 0/],
  [{ ExitCode: 1 }, "crash", /status 1$/],
  [{ ExitCode: 126 }, "crash", /cannot be executed/],
  [{ ExitCode: 127 }, "crash", /not found/],
  [{ ExitCode: 137 }, "crash", /killed by signal 9$/],
  [{ ExitCode: 255, Error: "the daemon restarted" }, "crash", /^the daemon restarted$/],
  [{ ExitCode: 137, OOMKilled: true }, "crash", /more memory/],
])("explains %j", (state, reason, message) => {
  const found = stateOf({ ...ended, ...state }, { opened: run });
  expect(found).toMatchObject({ state: "stopped", runId: run, exit: { reason } });
  expect(found.exit?.message).toMatch(message);
});

test("a stop that was asked for counts for its own run only", () => {
  const killed = { ...ended, ExitCode: 137 };
  expect(stateOf(killed, { opened: run, stop: run }).exit?.reason).toBe("requested");
  expect(stateOf(killed, { opened: run, stop: "an earlier one" }).exit?.reason).toBe("crash");
});
