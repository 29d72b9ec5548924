import { existsSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../../core/clock.ts";
import type { Uid } from "../../core/ids.ts";
import type { Json, JsonObject } from "../../core/json.ts";
import type { GuestRecord, RunRecord } from "./guest-files.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { readMachine, saveMemory } from "./keep-memory.ts";

let directory: string;
let told: string[];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-memory-"));
  told = [];
});
afterEach(() => rmSync(directory, { recursive: true }));

const id = "0123456789abcdef" as Uid;
const volume = { type: "disk" as const, id: "fedcba9876543210" as Uid, path: "/volumes/v/data.raw" };
const record: GuestRecord = {
  spec: {
    ...{
      uid: id,
      title: "default/web",
      hostname: "web",
      type: "vm",
      cpus: 1,
      memoryMib: 512,
      maxProcesses: 0,
    },
    root: { type: "disk", path: "/volumes/root/disk.qcow2", format: "qcow2" },
    nics: [],
    volumes: [volume],
    seed: { metaData: "", userData: "", networkConfig: "" },
    config: {},
  },
  disk: [{ path: "/volumes/root/disk.qcow2", format: "qcow2" }],
  processUid: 1,
};
const run: RunRecord = {
  ...{ runId: "run", bootId: "boot", stopRequested: false },
  launched: { cpus: 1, memoryMib: 512, accelerator: "tcg" },
};

const devices = ["type", "disk-fedcba9876543210", "disks", "agent", "exec2-in", "cpu1"];

function guestOf({
  job = {},
  change = {},
  there = devices,
}: {
  job?: JsonObject;
  change?: object;
  there?: string[];
}) {
  const answers: Record<string, (args: JsonObject) => Json> = {
    "qom-list": () => there.map((name) => ({ name })),
    "qom-get": ({ property }) => (property === "scsi-id" ? 3 : 7),
    "query-jobs": () => [{ id: `copy-${id}-memory`, status: "concluded", ...job }],
  };
  return {
    look: async () => ({ state: "running", run: { ...run, ...change } }),
    withMonitor: (use: (monitor: unknown) => unknown) =>
      use({
        ...{ version: "7.2.22", package: "Debian" },
        async execute(command: string, args: JsonObject) {
          told.push(command);
          return answers[command]?.(args) ?? {};
        },
      }),
  } as unknown as GuestLifecycle;
}

async function save(how: Parameters<typeof guestOf>[0], record_ = record) {
  const to = join(directory, "memory.qcow2");
  writeFileSync(to, "x".repeat(10_000));
  const request = { id, to, record: record_ };
  const kept = await saveMemory(guestOf(how), request, { clock: systemClock, frozen: true });
  return { kept, to };
}

test("how the machine was set up lies beside its memory", async () => {
  const { kept, to } = await save({});
  expect(kept).toEqual({ sizeBytes: expect.any(Number) });
  expect(statSync(`${to}.json`).mode & 0o777).toBe(0o600);
  expect(readFileSync(`${to}.json`, "utf8"), "no secrets of the seed").not.toContain("userData");
  expect(await readMachine(to)).toMatchObject({
    ...{ qemu: "7.2.22 (Debian)", processor: "", launched: run.launched, frozen: true, cpus: ["cpu1"] },
    targets: { [volume.id]: 3 },
    ports: [{ id: "exec2-in", nr: 7 }],
  });
});

test.each<[string, Parameters<typeof guestOf>[0], RegExp]>([
  ["QEMU cannot write it", { job: { error: "No space left on device" } }, /No space left/],
  ["nobody knows what it began with", { change: { launched: undefined } }, /earlier version/],
  ["a volume is on its way out", { there: [...devices, "disk-x"] }, /coming or leaving/],
])("memory is missing where %s, and nothing of it is left", async (_name, how, words) => {
  const { kept, to } = await save(how);
  expect(kept).toEqual({ missing: expect.stringMatching(words) });
  expect(existsSync(to) || existsSync(`${to}.json`)).toBe(false);
  // Or it would be taken for a copy that failed.
  expect(told.slice(-2)).toEqual(["job-dismiss", "blockdev-del"]);
});

test("memory is missing of machines with flash chips", async () => {
  const root = { ...record.spec.root, firmware: "uefi" } as GuestRecord["spec"]["root"];
  const { kept } = await save({}, { ...record, spec: { ...record.spec, root } });
  expect(kept).toEqual({ missing: expect.stringContaining("UEFI") });
});
