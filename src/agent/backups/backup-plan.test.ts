import { expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { type Backup, backupKind } from "../../kinds/backup.ts";
import { type BackupRepository, backupRepositoryKind } from "../../kinds/backup-repository.ts";
import { type BackupWorld, planBackup } from "./backup-plan.ts";
import { planRepository } from "./repository-plan.ts";

const metadata = { name: "b", project: "p", uid: "u" as Uid, revision: 1, generation: 2, labels: {} };
const times = { createdAt: "2026-11-28T00:00:00Z", finalizers: ["agent"] };

const repository: BackupRepository = {
  kind: "BackupRepository",
  metadata: { ...metadata, ...times },
  spec: backupRepositoryKind.spec.parse({ directory: { path: "/b/x" }, key: "0123456789abcdef" }),
  status: { ...backupRepositoryKind.initialStatus(), host: "here" },
};

function world(
  status: Partial<Backup["status"]>,
  more: Partial<BackupWorld> & { deleted?: boolean; verifications?: number } = {},
): BackupWorld {
  const { deleted, verifications = 0, ...rest } = more;
  return {
    ...{ hostName: "here", repository, source: true },
    backup: {
      kind: "Backup",
      metadata: { ...metadata, ...times, ...(deleted ? { deletedAt: times.createdAt } : {}) },
      spec: backupKind.spec.parse({ volume: "v", repository: "r", verifications }),
      status: { ...backupKind.initialStatus(), host: "here", ...status },
    },
    ...rest,
  };
}
const lost = { ...repository, spec: { ...repository.spec, lost: true } };
const types = (one: BackupWorld) => planBackup(one).actions.map(({ type }) => type);

test.each<[string, BackupWorld, string[]]>([
  ["a new one is fixed first", world({}), ["fix"]],
  ["one that was fixed is saved, then its copy goes", world({ state: "saving" }), ["save", "drop-copy"]],
  ["a complete one rests", world({ state: "ready" }), []],
  ["one that shall be tested is", world({ state: "ready" }, { verifications: 1 }), ["verify"]],
  [
    "a test that was interrupted is made again",
    world({ state: "verifying" }, { verifications: 1 }),
    ["verify"],
  ],
  ["another host's is left alone", world({}, { hostName: "there" }), []],
  ["a failed one is not tried again", world({ state: "failed" }), []],
  [
    "a deleted one is taken out of its repository",
    world({ state: "ready", takenAt: "t" }, { deleted: true }),
    ["drop-copy", "forget", "finalize"],
  ],
  ["what never got there needs no way there", world({}, { deleted: true }), ["drop-copy", "finalize"]],
  [
    "without its repository's key, what is in there stays",
    world({ state: "ready", takenAt: "t" }, { deleted: true, repository: undefined }),
    ["drop-copy", "finalize"],
  ],
  [
    "in a repository that is lost, what is in there stays, and is told",
    world({ state: "ready", takenAt: "t" }, { deleted: true, repository: lost }),
    ["drop-copy", "leave", "finalize"],
  ],
  [
    "what never got to a repository that is lost has left nothing",
    world({}, { deleted: true, repository: lost }),
    ["drop-copy", "finalize"],
  ],
])("%s", (_name, one, actions) => {
  expect(types(one)).toEqual(actions);
});

test("what cannot be taken any more says why", () => {
  expect(planBackup(world({}, { source: false })).status).toMatchObject({
    state: "failed",
    observedGeneration: 2,
  });
  expect(planBackup(world({}, { repository: undefined })).status?.message).toMatch(/repository was deleted/);
});

test("a repository is opened once for each change, and read when asked to", () => {
  const plan = (status: Partial<BackupRepository["status"]>, checks = 0) =>
    planRepository({
      hostName: "here",
      repository: {
        ...repository,
        spec: { ...repository.spec, checks },
        status: { ...repository.status, ...status },
      },
    }).actions.map(({ type }) => type);
  expect(plan({})).toEqual(["open"]);
  expect(plan({ state: "ready", observedGeneration: 1 })).toEqual(["open"]);
  expect(plan({ state: "ready", observedGeneration: 2 })).toEqual([]);
  expect(plan({ state: "ready", observedGeneration: 1 }, 1)).toEqual(["check"]);
  expect(plan({ state: "failed", observedGeneration: 2 })).toEqual([]);
  expect(planRepository({ hostName: "there", repository }).actions).toEqual([]);
});

test("a repository that is lost is not touched, until it is said to be back", () => {
  const plan = (spec: object, observedGeneration: number) =>
    planRepository({
      hostName: "here",
      repository: {
        ...repository,
        spec: { ...repository.spec, ...spec },
        status: { ...repository.status, state: "failed", observedGeneration },
      },
    });
  expect(plan({ lost: true, checks: 1 }, 1)).toMatchObject({
    status: { state: "failed", message: expect.stringMatching(/said to be lost/), observedGeneration: 2 },
    actions: [],
  });
  expect(plan({ lost: false }, 1).actions).toMatchObject([{ type: "open" }]);
});
