/** Whoever starts a machine from memory dies after each of its steps in turn. */
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { appendFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import { silentLogger } from "../../core/logger.ts";
import { seededRandom } from "../../core/random.ts";
import { GuestFiles, type GuestRecord, type RunRecord } from "./guest-files.ts";
import type { GuestLifecycle, StartManner } from "./guest-lifecycle.ts";
import { type KeptMachine, partsOf } from "./kept-machine.ts";
import { putBackMemory, recoverLoading, startGuest } from "./resume.ts";
import type { StillParts } from "./still-guest.ts";

// No qemu-img for a QEMU that is none.
vi.mock("../../host/run.ts", () => ({ run: async () => machine.step() }));

const signal = new AbortController().signal;
const parts: StillParts = {
  ...{ clock: systemClock, random: seededRandom(1), logger: silentLogger },
  locked: (_guest, task) => task(),
};
let directory: string;
let machine: Machine;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-resume-"));
  machine = new Machine();
});
afterEach(() => rmSync(directory, { recursive: true }));

/** A QEMU that is none, and what became of the disks. Steps are counted; after the last that is allowed, nothing works. */
class Machine {
  /** Undefined: it does not run. */
  state: "waiting" | "loading" | "loaded" | "runs" | undefined;
  /** The disks are not as they were when the memory was kept. */
  written = false;
  loads = 0;
  boots = 0;
  runs = 0;
  steps = 0;
  lastStep = Number.POSITIVE_INFINITY;
  loadFails = false;

  step(): void {
    if (this.steps >= this.lastStep) throw new StrataError("Unavailable", "killed");
    this.steps += 1;
  }

  run(): void {
    this.state = "runs";
    this.written = true;
  }

  execute(command: string): unknown {
    this.step();
    switch (command) {
      case "snapshot-load":
        this.loads += 1;
        expect(this.written, "memory is loaded over disks that were written to").toBe(false);
        expect(this.state).toBe("waiting");
        this.state = this.loadFails ? "loading" : "loaded";
        return {};
      case "query-jobs": {
        if (this.state === "waiting") return [];
        const error = this.state === "loading" ? { error: "Error -22" } : {};
        return [{ id: "load-memory", status: "concluded", ...error }];
      }
      case "cont":
        expect(["loaded", "runs"], "a machine begins that has no memory").toContain(this.state);
        this.run();
        return {};
      case "query-fdsets":
        return ["kept-memory", "kept-memory-layer"].map((opaque, set) => ({
          "fdset-id": set,
          fds: [{ opaque }],
        }));
      default:
        return [];
    }
  }
}

const disk = () => join(directory, "disk.qcow2");
const memory = () => join(directory, "memory");
const record = (): GuestRecord => ({
  spec: {
    uid: "0123456789abcdef" as Uid,
    ...{ title: "default/web", hostname: "web", type: "vm", cpus: 1, memoryMib: 512, maxProcesses: 0 },
    root: { type: "disk", path: disk(), format: "qcow2" },
    nics: [],
    seed: { metaData: "", userData: "", networkConfig: "" },
    config: {},
  },
  disk: [{ path: disk(), format: "qcow2" }],
  processUid: 1,
});

function guestOf(): GuestLifecycle {
  const files = new GuestFiles({ stateDir: directory, runDir: directory }, "0123456789abcdef" as Uid);
  const counted = new Proxy(files, {
    get(target, name) {
      const value = Reflect.get(target, name, target);
      if (typeof value !== "function") return value;
      return (...args: unknown[]) => {
        if (!String(name).startsWith("read")) machine.step();
        return value.apply(target, args);
      };
    },
  });
  const guest = {
    files: counted,
    accelerator: async () => ({ type: "tcg" }),
    async look() {
      const run = await files.readRun();
      if (run === undefined) return { state: "created" };
      if (run.exit) return { state: "stopped", run, exit: run.exit };
      return machine.state ? { state: "running", run } : { state: "ended", run };
    },
    async lockedStart(_record: GuestRecord, _signal: AbortSignal, how: StartManner = {}) {
      const run: RunRecord = {
        ...{ runId: `run-${++machine.runs}`, bootId: "", stopRequested: false },
        ...(how.memory && { memory: how.memory }),
      };
      await counted.writeRun(run);
      machine.step();
      if (how.kept) machine.state = "waiting";
      else {
        machine.boots += 1;
        machine.run();
      }
      await counted.writeRun({ ...run, pid: 1 });
      return { ...run, pid: 1 };
    },
    async lockedStop(run: RunRecord) {
      machine.step();
      machine.state = undefined;
      await counted.writeRun({ ...run, stopRequested: true, exit: { reason: "requested", message: "" } });
    },
    withMonitor: async (use: (monitor: unknown) => unknown) =>
      use({ version: "7.2", package: "", execute: async (command: string) => machine.execute(command) }),
    passDescriptor: async () => machine.step(),
  };
  return guest as unknown as GuestLifecycle;
}

/** It ran, and was stopped and put back. */
async function putBack(id: string, change: Partial<KeptMachine> = {}): Promise<void> {
  const { files } = guestOf();
  await files.make();
  await files.writeGuest(record());
  const last = (await files.readRun())?.runId ?? "run-0";
  const exit = { reason: "requested" as const, message: "" };
  await files.writeRun({ runId: last, bootId: "", stopRequested: true, exit });
  machine.state = undefined;
  writeFileSync(disk(), "as it was then");
  machine.written = false;
  writeFileSync(memory(), "");
  const kept: KeptMachine = {
    ...{ version: 1, qemu: "7.2", processor: "", cpus: [], targets: {}, ports: [], frozen: false },
    launched: { cpus: 1, memoryMib: 512, accelerator: "tcg" },
    parts: partsOf(record()),
    ...change,
  };
  writeFileSync(`${memory()}.json`, JSON.stringify(kept));
  await putBackMemory(guestOf(), { id, path: memory() });
}

async function start(): Promise<RunRecord["memory"]> {
  const guest = guestOf();
  await recoverLoading(guest, parts);
  if ((await guest.look()).state !== "running") await startGuest(guest, parts, record(), signal);
  return (await guest.files.readRun())?.memory;
}

test("it goes on where it was, and boots the next time", async () => {
  await putBack("one");
  expect(await start()).toMatchObject({ id: "one", state: "resumed", message: "" });
  expect(machine).toMatchObject({ state: "runs", loads: 1, boots: 0 });
  machine.state = undefined;
  expect(await start()).toBeUndefined();
  expect(machine).toMatchObject({ loads: 1, boots: 1 });
});

test.each<[string, RegExp, () => Promise<unknown>]>([
  [
    "started since",
    /started since/,
    () => guestOf().files.writeRun({ runId: "x", bootId: "", stopRequested: true }),
  ],
  ["written to since", /written to since/, () => appendFile(disk(), "more")],
  ["of a disk that is gone", /written to since/, async () => rmSync(disk())],
  ["gone", /snapshot is gone/, async () => rmSync(`${memory()}.json`)],
  ["of another QEMU", /QEMU 6.0.*7.2/, () => putBack("one", { qemu: "6.0" })],
  ["of another machine", /CPUs/, () => putBack("one", { parts: { ...partsOf(record()), size: {} } })],
  [
    "not loaded to the end",
    /Error -22/,
    async () => {
      machine.loadFails = true;
    },
  ],
])("it boots with memory that is %s, and says so", async (_name, words, change) => {
  await putBack("one");
  await change();
  expect(await start()).toMatchObject({ id: "one", state: "booted", message: expect.stringMatching(words) });
  expect(machine).toMatchObject({ state: "runs", boots: 1 });
  expect(await guestOf().files.readPutBack()).toBeUndefined();
});

test("what is damaged when it is put back is told as well", async () => {
  await putBack("one");
  writeFileSync(`${memory()}.json`, "{");
  await putBackMemory(guestOf(), { id: "two", path: memory() });
  expect(await start()).toMatchObject({
    id: "two",
    state: "booted",
    message: expect.stringMatching("damaged"),
  });
});

test("memory of a disk that is gone when it is put back is not loaded, either", async () => {
  await putBack("one");
  rmSync(disk());
  await putBackMemory(guestOf(), { id: "two", path: memory() });
  expect(await start()).toMatchObject({ id: "two", state: "booted" });
  expect(machine).toMatchObject({ loads: 0, boots: 1 });
});

test("whoever starts it is killed after any step: it is loaded once at most, and runs in the end", async () => {
  const ends = new Set<string>();
  const whole = { goesOn: false, fails: false };
  for (let last = 0; !(whole.goesOn && whole.fails); last++) {
    machine = new Machine();
    await putBack(`round-${last}`);
    machine.loadFails = last % 2 === 1;
    machine.lastStep = machine.steps + Math.floor(last / 2);
    // What it does in vain after its death is no matter: no step works.
    await start().then(
      () => (whole[machine.loadFails ? "fails" : "goesOn"] = true),
      () => {},
    );
    machine.lastStep = Number.POSITIVE_INFINITY;
    const outcome = await start();
    expect(machine.state).toBe("runs");
    expect(machine.loads).toBeLessThanOrEqual(1);
    expect(machine.boots, "it goes on or boots").toBe(outcome?.state === "booted" ? 1 : 0);
    expect(outcome).toMatchObject({ id: `round-${last}` });
    ends.add(`${outcome?.state} ${outcome?.message}`);
    // And never again.
    machine.state = undefined;
    const { loads } = machine;
    expect(await start()).toBeUndefined();
    expect(machine.loads).toBe(loads);
  }
  expect([...ends].map((end) => end.split(" ")[0])).toContain("resumed");
  expect([...ends].join()).toContain("interrupted");
});
