import { expect, test } from "vitest";
import { fromTimestamp } from "../../core/clock.ts";
import type { Uid } from "../../core/ids.ts";
import { type Backup, backupKind } from "../../kinds/backup.ts";
import { type BackupSchedule, backupScheduleKind } from "../../kinds/backup-schedule.ts";
import { backupName, planSchedule, surplus } from "./plan.ts";

const at = (text: string) => fromTimestamp(text) ?? Number.NaN;
const metadata = (name: string, createdAt: string) => ({
  ...{ name, project: "default", uid: name as Uid, revision: 1, generation: 1 },
  ...{ labels: {}, createdAt, finalizers: [] },
});

function schedule(
  spec: Partial<BackupSchedule["spec"]> = {},
  status: Partial<BackupSchedule["status"]> = {},
): BackupSchedule {
  const full = backupScheduleKind.spec.parse({
    ...{ volume: "records", repository: "nas", at: "02:30", keep: { last: 2 } },
    ...spec,
  });
  const state = { ...backupScheduleKind.initialStatus(), observedGeneration: 1, ...status };
  return {
    kind: "BackupSchedule",
    metadata: metadata("nightly", "2026-11-20T00:00:00Z"),
    spec: full,
    status: state,
  };
}

function backup(name: string, takenAt: string, status: Partial<Backup["status"]> = {}): Backup {
  return {
    kind: "Backup",
    metadata: metadata(name, takenAt),
    spec: backupKind.spec.parse({ volume: "records", repository: "nas" }),
    status: {
      ...backupKind.initialStatus(),
      ...{ state: "ready", snapshot: "aa", takenAt },
      ...status,
    },
  };
}

const now = at("2026-11-28T12:00:00Z");
const types = (one: BackupSchedule, backups: Backup[] = [], when = now) =>
  planSchedule({ schedule: one, backups }, when).actions.map(({ type }) => type);

test("what was due and missed is made up for once, under the name of the moment that it was due", () => {
  const { actions, recheckAfterMs } = planSchedule(
    { schedule: schedule({}, { lastDueAt: "2026-11-24T02:30:00.000Z" }), backups: [] },
    now,
  );
  expect(actions).toMatchObject([
    { type: "create", name: "nightly-20261128-0230" },
    {
      type: "write",
      status: { lastDueAt: "2026-11-28T02:30:00.000Z", nextDueAt: "2026-11-29T02:30:00.000Z" },
    },
  ]);
  expect(recheckAfterMs).toBe(12 * 3_600_000);
});

test("nothing is due twice, while one is under way, before the first time, or while suspended", () => {
  const done = { lastDueAt: "2026-11-28T02:30:00.000Z", lastVerifyAt: "2026-11-28T02:30:00.000Z" };
  const told = { ...done, nextDueAt: "2026-11-29T02:30:00.000Z" };
  expect(types(schedule({}, told))).toEqual([]);
  expect(
    types(schedule({ verifyEveryDays: 0 }), [backup("a", "2026-11-28T00:00:00Z", { state: "saving" })]),
  ).toEqual(["write"]);
  expect(types(schedule(), [], at("2026-11-20T01:00:00Z"))).toEqual(["write"]);
  expect(types(schedule({ suspended: true }), [backup("a", "2026-11-01T00:00:00Z")])).toEqual(["write"]);
});

test.each([{}, { suspended: true }])("once written, nothing is left to write: %o", (spec) => {
  const before = { lastDueAt: "2026-11-28T02:30:00.000Z", nextDueAt: "2026-11-28T02:30:00.000Z" };
  const [action] = planSchedule({ schedule: schedule(spec, before), backups: [] }, now).actions;
  if (action?.type !== "write") throw new Error("there should be something to write");
  // As it is merged into what others may have written meanwhile.
  expect(types(schedule(spec, { ...before, ...action.status }))).toEqual([]);
});

test("the newest complete one is tested when the days are over, and not asked twice", () => {
  const status = { lastDueAt: "2026-11-28T02:30:00.000Z", lastVerifyAt: "2026-11-20T00:00:00.000Z" };
  const all = [backup("old", "2026-11-27T00:00:00Z"), backup("new", "2026-11-28T00:00:00Z")];
  const plan = planSchedule({ schedule: schedule({}, status), backups: all }, now);
  expect(plan.actions).toMatchObject([
    { type: "verify", backup: { metadata: { name: "new" } } },
    { type: "write" },
  ]);
  expect(types(schedule({ verifyEveryDays: 30 }, status), all)).toEqual(["write"]);
  expect(types(schedule({ verifyEveryDays: 0 }, status), all)).toEqual(["write"]);
});

test("only complete ones count as kept; what is under way or tested stays", () => {
  const all = [
    backup("a", "2026-11-24T00:00:00Z"),
    backup("b", "2026-11-25T00:00:00Z", { state: "verifying" }),
    backup("c", "2026-11-26T00:00:00Z"),
    backup("d", "2026-11-27T00:00:00Z"),
    backup("e", "2026-11-28T00:00:00Z", { state: "saving", snapshot: undefined }),
    ...["f", "g", "h", "i"].map((name, day) =>
      backup(name, `2026-11-1${day}T00:00:00Z`, { state: "failed", snapshot: undefined }),
    ),
  ];
  expect(surplus(schedule(), all).map(({ metadata }) => metadata.name)).toEqual(["a", "f"]);
});

const damaged: Partial<Backup["status"]> = {
  conditions: [
    {
      type: "Verified",
      status: "false",
      reason: "CannotBeRestored",
      message: "",
      since: "2026-11-28T00:00:00Z",
    },
  ],
};

test("what a test found damaged pushes out nothing that is good", () => {
  const all = [
    backup("a", "2026-11-23T00:00:00Z", damaged),
    backup("b", "2026-11-24T00:00:00Z"),
    backup("c", "2026-11-25T00:00:00Z"),
    backup("d", "2026-11-26T00:00:00Z"),
    backup("e", "2026-11-27T00:00:00Z", damaged),
    backup("f", "2026-11-28T00:00:00Z", damaged),
  ];
  expect(surplus(schedule(), all).map(({ metadata }) => metadata.name)).toEqual(["a", "b"]);
});

test("a new volume of the same name pushes out nothing of the one before", () => {
  const of = (volumeUid: string) => ({ volumeUid });
  const old = ["a", "b", "c"].map((name, day) => backup(name, `2026-11-1${day}T00:00:00Z`, of("old")));
  const next = ["d", "e", "f"].map((name, day) => backup(name, `2026-11-2${day}T00:00:00Z`, of("new")));
  const names = (all: Backup[]) => surplus(schedule(), all).map(({ metadata }) => metadata.name);
  expect(names(old)).toEqual(["a"]);
  expect(names([...old, ...next])).toEqual(["d"]);
  const first = backup("d", "2026-11-20T00:00:00Z", { ...of("new"), state: "pending", snapshot: undefined });
  expect(names([...old, first])).toEqual([]);
});

test("of instances, the same: a new one of the name pushes out nothing of the one before", () => {
  const of = (instanceUid: string) => ({
    instanceUid,
    root: { uid: "r", snapshot: "aa" },
    snapshot: undefined,
  });
  const old = ["a", "b", "c"].map((name, day) => backup(name, `2026-11-1${day}T00:00:00Z`, of("old")));
  const next = ["d", "e"].map((name, day) => backup(name, `2026-11-2${day}T00:00:00Z`, of("new")));
  const names = (all: Backup[]) => surplus(schedule(), all).map(({ metadata }) => metadata.name);
  expect(names(old)).toEqual(["a"]);
  expect(names([...old, ...next])).toEqual([]);
});

test("a schedule is of a volume or of an instance", () => {
  const given = { repository: "nas", at: "02:30", keep: { last: 2 } };
  const parse = (of: object) => backupScheduleKind.spec.safeParse({ ...given, ...of }).success;
  expect([{}, { volume: "v", instance: "i" }, { volume: "v" }, { instance: "i" }].map(parse)).toEqual([
    ...[false, false, true, true],
  ]);
});

test("a long name stays one, and is the same for the same moment", () => {
  const name = backupName("x".repeat(63), now);
  expect(name).toMatch(/^x{49}-20261128-1200$/);
  expect(name.length).toBeLessThanOrEqual(63);
});
