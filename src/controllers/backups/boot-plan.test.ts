import { expect, test } from "vitest";
import { fromTimestamp, toTimestamp } from "../../core/clock.ts";
import type { Uid } from "../../core/ids.ts";
import { type Backup, type BackupStatus, backupKind } from "../../kinds/backup.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Condition } from "../../kinds/kind.ts";
import {
  type BootAction,
  type BootWorld,
  bootLimitMs,
  planBootTest,
  restoreLimitMs,
  runsLongEnoughMs,
} from "./boot-plan.ts";
import { askedOf, scratchSpec } from "./scratch.ts";

const since = "2026-11-29T01:00:00.000Z";
const begun = fromTimestamp(since) ?? 0;
const metadata = (name: string) => ({
  ...{ name, project: "default", uid: "0123456789abcdef" as Uid, revision: 1, generation: 3 },
  ...{ labels: {}, createdAt: since, finalizers: [] },
});
const machine = (change: object = {}) =>
  instanceKind.spec.parse({ type: "container", image: "debian", ...change });

function backup(status: Partial<BackupStatus> = {}, spec: object = {}, deleted = false): Backup {
  const saved = { uid: "r", snapshot: "aa", readBytes: 1, addedBytes: 1 };
  return {
    kind: "Backup",
    metadata: { ...metadata("monday"), ...(deleted ? { deletedAt: since } : {}) },
    spec: backupKind.spec.parse({ instance: "lms", repository: "nas", bootTests: 1, ...spec }),
    status: {
      ...backupKind.initialStatus(),
      ...{ state: "ready", root: saved, machine: machine(), consistency: "frozen" },
      ...status,
    },
  };
}

function instance(status: Partial<Instance["status"]>, deleted = false): Instance {
  return {
    kind: "Instance",
    metadata: { ...metadata("t"), ...(deleted ? { deletedAt: since } : {}) },
    spec: machine(),
    status: { ...instanceKind.initialStatus(), ...status },
  };
}

const testing = { bootTest: { since } };
const ready: Condition = { type: "Ready", status: "true", reason: "Running", message: "", since };
const notReady: Condition = { ...ready, status: "false", message: "sh exited with 1" };
const runs = (conditions = [notReady], startedAt = since) =>
  instance({ state: "running", startedAt, conditions });

function plan(world: Partial<BootWorld>, afterMs = 0): readonly BootAction[] {
  const all = { backup: backup(), instance: undefined, others: "gone" as const, ...world };
  return planBootTest(all, begun + afterMs).actions;
}

test.each<[string, Partial<BootWorld>, string[]]>([
  ["one that nobody asked to start rests", { backup: backup({ bootTests: 1 }) }, []],
  ["that it begins is written before anything is made", {}, ["write"]],
  ["what is not there is made", { backup: backup(testing) }, ["make"]],
  ["what is under way is waited for", { backup: backup(testing), instance: instance({}) }, []],
  ["the test that reads comes first", { backup: backup({}, { verifications: 1 }) }, []],
  ["what is not complete is not started", { backup: backup({ state: "saving" }) }, []],
  [
    "once told, the instance goes",
    { backup: backup({ ...testing, bootTests: 1 }), instance: runs() },
    ["remove-instance"],
  ],
  ["which takes a while", { backup: backup({ ...testing, bootTests: 1 }), instance: instance({}, true) }, []],
  [
    "then all that came with it",
    { backup: backup({ ...testing, bootTests: 1 }), others: "there" },
    ["remove-others"],
  ],
  ["then the test is over", { backup: backup({ ...testing, bootTests: 1 }) }, ["write"]],
  [
    "with the backup, its test goes",
    { backup: backup(testing, {}, true), instance: runs() },
    ["remove-instance"],
  ],
  ["of a backup that is gone, nothing is known", { backup: undefined }, []],
])("%s", (_name, world, types) => {
  expect(plan(world).map(({ type }) => type)).toEqual(types);
});

const booted = { type: "Verified", status: "true", reason: "Booted" };
const notBooted = { type: "Verified", status: "false", reason: "NotBooted" };

test.each<[string, Partial<BackupStatus>, Instance, number, object | undefined]>([
  ["ready", {}, runs([ready]), 0, booted],
  ["not ready yet", {}, runs(), bootLimitMs - 1, undefined],
  ["never ready", {}, runs(), bootLimitMs, { ...notBooted, message: /not up 15 minutes.*exited with 1/ }],
  [
    "failed",
    {},
    instance({ state: "failed", message: "no image" }),
    0,
    { ...notBooted, message: /no image/ },
  ],
  ["ended", {}, instance({ state: "stopped", message: "off" }), 0, { ...notBooted, message: /by itself/ }],
  ["being restored", {}, instance({ state: "pending" }), restoreLimitMs - 1, undefined],
  ["restored for too long", {}, instance({ state: "pending" }), restoreLimitMs, notBooted],
  [
    "a machine without an agent runs shortly",
    { consistency: "crash", machine: machine({ type: "vm" }) },
    ...([runs([ready]), runsLongEnoughMs - 1, undefined] as const),
  ],
  [
    "a machine without an agent runs",
    { consistency: "crash", machine: machine({ type: "vm" }) },
    ...([runs([ready]), runsLongEnoughMs, { ...booted, message: /no more is known/ }] as const),
  ],
])("%s", (_name, status, scratch, afterMs, expected) => {
  const [action] = plan({ backup: backup({ ...testing, ...status }), instance: scratch }, afterMs);
  if (expected === undefined) return expect(action).toBeUndefined();
  const { message, ...condition } = expected as { message?: RegExp };
  expect(action).toMatchObject({ type: "write", change: { bootTests: 1, conditions: [condition] } });
  if (action?.type !== "write") return;
  if (message) expect(action.change.conditions?.[0]?.message).toMatch(message);
  expect(action.event?.reason).toBe(
    condition && "status" in condition && condition.status === "true" ? "BackupVerified" : "BackupDamaged",
  );
});

test("a start does not outweigh what reading found wrong, nor the other way round", () => {
  const damaged = {
    type: "Verified",
    status: "false" as const,
    reason: "RepositoryDamaged",
    message: "",
    since,
  };
  const [action] = plan({ backup: backup({ ...testing, conditions: [damaged] }), instance: runs([ready]) });
  expect(action).toMatchObject({ change: { conditions: [damaged], bootedAt: toTimestamp(begun) } });
});

test("what is asked of it: a command, what it says of itself, its init, or nothing", () => {
  expect(askedOf(backup())).toBe("init");
  expect(askedOf(backup({}, { bootCommand: ["true"] }))).toBe("command");
  expect(askedOf(backup({ machine: machine({ services: [{ name: "web", port: 80 }] }) }))).toBe("own");
  expect(askedOf(backup({ machine: machine({ type: "vm" }) }))).toBe("init");
  expect(askedOf(backup({ machine: machine({ type: "vm" }), consistency: "crash" }))).toBe("runs");
});

test("the test instance is set up as the saved one, where nobody reaches it", () => {
  const saved = machine({
    ...{ cpus: 2, ipAddress: "10.0.0.9", keyPairs: ["alice"], securityGroups: ["open"], protected: true },
    ...{ source: { snapshot: "s" }, subnet: "a", rebuilds: 3 },
  });
  const spec = scratchSpec(backup({ machine: saved }), saved);
  const name = "boot-test-0123456789abcdef";
  expect(spec).toMatchObject({
    ...{ cpus: 2, network: name, image: name, source: { backup: "monday" }, restartPolicy: "never" },
    ...{ keyPairs: [], securityGroups: [], protected: false, healthCheck: { type: "command" } },
  });
  expect(Object.keys(spec)).not.toEqual(expect.arrayContaining(["ipAddress"]));
  expect(instanceKind.spec.safeParse(spec).success).toBe(true);
  const command = scratchSpec(backup({}, { bootCommand: ["test", "-e", "/ok"] }), saved);
  expect(command).toMatchObject({ healthCheck: { command: ["test", "-e", "/ok"] } });
});
