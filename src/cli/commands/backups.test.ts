/** Backups of instances, tests of their start, and repositories that are lost, as they are asked for on the command line. */
import { beforeEach, expect, test } from "vitest";
import type { JsonObject } from "../../core/json.ts";
import { type Backup, backupKind } from "../../kinds/backup.ts";
import { backupRepositoryKind } from "../../kinds/backup-repository.ts";
import { backupScheduleKind } from "../../kinds/backup-schedule.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(async () => {
  terminal = new TestTerminal();
  terminal.client.react = look;
  const { client } = terminal;
  const make = (kind: Kind, name: string, spec: JsonObject) =>
    client.create(kind, { project: "default", name, spec });
  await make(backupRepositoryKind as Kind, "nas", { directory: { path: "/b/nas" }, key: "k".repeat(32) });
  await make(instanceKind as Kind, "lms", { type: "container", image: "debian" });
});

/** Whoever takes and tests backups does so at once. */
function look(resource: Resource): Resource | undefined {
  if (resource.metadata.deletedAt) return undefined;
  if (resource.kind !== "Backup") return resource;
  const { spec, status } = resource as Backup;
  const { verifications, bootTests } = spec;
  const machine = instanceKind.spec.parse({
    type: "container",
    image: "debian",
    cpus: 2,
    ipAddress: "10.0.0.9",
  });
  const wrong = {
    type: "Verified",
    status: "false" as const,
    reason: "NotBooted",
    message: "init exited",
    since: "",
  };
  return {
    ...resource,
    status: {
      ...status,
      ...{
        state: "ready",
        message: "",
        machine,
        verifications,
        bootTests,
        root: { uid: "r", snapshot: "aa" },
      },
      conditions: bootTests > 0 ? [wrong] : [],
      observedGeneration: resource.metadata.generation,
    },
  };
}

const names = () => [...terminal.client.resources.keys()];
const find = (key: string) => terminal.client.resources.get(key);

test("an instance is saved, and restored under a new name as it was set up", async () => {
  const saved = await terminal.run("backup", "create", "lms", "monday", "--instance");
  expect([saved.status, saved.err]).toEqual([0, ""]);
  expect(saved.out).toMatch(/monday +ready +instance lms +nas/);
  const unnamed = await terminal.run("backup", "restore", "monday");
  expect(unnamed.err).toContain("name the new instance with --as NAME");
  await terminal.run("backup", "restore", "monday", "--as", "again", "--memory", "1GiB", "--no-wait");
  const spec = find("/instances/default/again")?.spec;
  expect(spec).toMatchObject({ cpus: 2, memoryMib: 1024, image: "monday", source: { backup: "monday" } });
  expect(spec).not.toHaveProperty("ipAddress");
});

test("a schedule is of an instance, and starts what it saved", async () => {
  const { err } = await terminal.run(
    ...["backup-schedule", "create", "nightly", "lms", "--instance", "--verify-boot"],
    ...["--boot-command", "test -e /ok", "--no-wait"],
  );
  expect(err).toBe("");
  expect(find(`/${backupScheduleKind.plural}/default/nightly`)?.spec).toMatchObject({
    ...{ instance: "lms", verifyBoot: true, bootCommand: ["sh", "-c", "test -e /ok"] },
  });
});

test("a start for a test says what came of it", async () => {
  await terminal.run("backup", "create", "lms", "monday", "--instance");
  const { status, err } = await terminal.run("backup", "verify", "monday", "--boot");
  expect(status).not.toBe(0);
  expect(err).toContain('backup "monday" does not come up (NotBooted): init exited');
  expect(find(`/${backupKind.plural}/default/monday`)?.spec).toMatchObject({
    verifications: 1,
    bootTests: 1,
  });
  expect((await terminal.run("backup", "list")).out).toContain("DOES NOT START");
});

test("a repository that is lost goes with its backups and schedules, once that is confirmed", async () => {
  await terminal.run("backup", "create", "lms", "monday", "--instance");
  await terminal.run("backup-schedule", "create", "nightly", "lms", "--instance");
  const asked = await terminal.run("backup-repository", "delete", "nas", "--lost");
  expect(asked.status).not.toBe(0);
  expect(names()).toContain(`/${backupKind.plural}/default/monday`);
  const { out, status } = await terminal.run("backup-repository", "delete", "nas", "--lost", "--yes");
  expect(status).toBe(0);
  expect(out).toContain("deleted nas, and what was said to be in it");
  expect(names().filter((name) => name.startsWith("/backup"))).toEqual([]);
});
