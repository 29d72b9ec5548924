import { describe, expect, test } from "vitest";
import type { RunFiles } from "./guest-files.ts";
import { parseExit, parseInit } from "./recorder.ts";
import { stateOf } from "./run-state.ts";

const nothing: RunFiles = { run: "r2", init: undefined, exit: undefined, stop: undefined };
const init = { runId: "r2", pid: 77 };
const halted = { runId: "r2", monitorStatus: 0, init: { signal: 2 }, errors: [] };

describe("what became of a run", () => {
  test.each<[string, Partial<RunFiles>, boolean, ReturnType<typeof stateOf>]>([
    ["its init is up", { init }, true, { state: "running", runId: "r2", pid: 77 }],
    ["its init is not up yet", {}, true, { state: "running", runId: "r2" }],
    [
      "only the run before has an init",
      { init: { runId: "r1", pid: 5 } },
      true,
      { state: "running", runId: "r2" },
    ],
    ["it never began", {}, false, { state: "created" }],
    [
      "it never began, but the one before did",
      { exit: { ...halted, runId: "r1" }, stop: "r1" },
      false,
      { state: "stopped", runId: "r1", exit: { reason: "requested", message: "stopped as requested" } },
    ],
    [
      "it halted",
      { init, exit: halted },
      false,
      { state: "stopped", runId: "r2", exit: { reason: "poweroff", message: "shut down from inside" } },
    ],
    [
      "it halted because it was asked to",
      { init, exit: halted, stop: "r2" },
      false,
      { state: "stopped", runId: "r2", exit: { reason: "requested", message: "stopped as requested" } },
    ],
    [
      "it halted, and the run before had been asked to",
      { init, exit: halted, stop: "r1" },
      false,
      { state: "stopped", runId: "r2", exit: { reason: "poweroff", message: "shut down from inside" } },
    ],
    [
      "it was killed",
      { init, exit: { ...halted, init: { signal: 9 } } },
      false,
      {
        state: "stopped",
        runId: "r2",
        exit: { reason: "crash", message: "its init was killed by signal 9" },
      },
    ],
    [
      "its init failed",
      { init, exit: { ...halted, init: { status: 3 } } },
      false,
      { state: "stopped", runId: "r2", exit: { reason: "crash", message: "its init ended with status 3" } },
    ],
    [
      "its init came to its end",
      { init, exit: { runId: "r2", monitorStatus: 0, errors: [] } },
      false,
      {
        state: "stopped",
        runId: "r2",
        exit: { reason: "poweroff", message: "its init ended with status 0" },
      },
    ],
    [
      "its monitor was killed",
      { init, exit: { runId: "r2", monitorStatus: 137, errors: [] } },
      false,
      { state: "stopped", runId: "r2", exit: { reason: "crash", message: "its monitor was killed" } },
    ],
    [
      "it could not start",
      { exit: { runId: "r2", monitorStatus: 1, errors: ["No such file or directory"] } },
      false,
      {
        state: "stopped",
        runId: "r2",
        exit: { reason: "crash", message: "could not start: No such file or directory" },
      },
    ],
    [
      "nobody wrote down how it ended",
      { init },
      false,
      {
        state: "stopped",
        runId: "r2",
        exit: {
          reason: "crash",
          message: "ended without a word: the host was restarted, or its monitor was killed",
        },
      },
    ],
  ])("%s", (_title, files, running, expected) => {
    expect(stateOf({ ...nothing, ...files }, running)).toEqual(expected);
  });
});

describe("the recorder's files", () => {
  test("are read when complete", () => {
    expect(parseInit("r2 77\n")).toEqual({ runId: "r2", pid: 77 });
    expect(parseExit("r2 0\nsignal Interrupt(2)\n.\n")).toEqual(halted);
    expect(parseExit("r2 0\nerror (3)\n.\n")).toEqual({ ...halted, init: { status: 3 } });
    expect(parseExit("r2 1\n\nno root\nno luck\n.\n")).toEqual({
      runId: "r2",
      monitorStatus: 1,
      errors: ["no root", "no luck"],
    });
  });

  test.each(["", "r2 7", "r2", "r2 x\n"])("are not read while being written: init %j", (text) => {
    expect(parseInit(text)).toBeUndefined();
  });

  test.each(["", "r2 0\n", "r2 0\nsignal Inter"])("are not read while being written: exit %j", (text) => {
    expect(parseExit(text)).toBeUndefined();
  });
});
