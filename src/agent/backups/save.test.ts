import { expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { type TarHeader, tarEnd, writeTarHeader } from "../../core/tar-writer.ts";
import { type Backup, type BackupStatus, backupKind } from "../../kinds/backup.ts";
import { type BackupRepository, backupRepositoryKind } from "../../kinds/backup-repository.ts";
import { volumePartSchema } from "../../kinds/snapshot.ts";
import type { AgentContext } from "../agent-context.ts";
import { tagsOf } from "./access.ts";
import { saveDisks } from "./save.ts";

const metadata = { name: "b", project: "p", uid: "u" as Uid, revision: 1, generation: 1, labels: {} };
const times = { createdAt: "2026-11-29T00:00:00Z", finalizers: ["agent"] };
const repository: BackupRepository = {
  kind: "BackupRepository",
  metadata: { ...metadata, ...times },
  spec: backupRepositoryKind.spec.parse({ directory: { path: "/b/x" }, key: "0123456789abcdef" }),
  status: { ...backupRepositoryKind.initialStatus(), state: "ready", host: "here" },
};
const volume = (name: string) => volumePartSchema.parse({ name, uid: `uid-${name}`, sizeMib: 64 });

function backup(status: Partial<BackupStatus>): Backup {
  const given = { host: "here", repositoryUid: "u", sizeMib: 128, imageDigest: "d", ...status };
  return {
    kind: "Backup",
    metadata: { ...metadata, ...times },
    spec: backupKind.spec.parse({ instance: "i", repository: "r" }),
    status: { ...backupKind.initialStatus(), ...given },
  };
}

async function* archive(type: TarHeader["type"]) {
  const common = {
    mode: 0o600,
    uid: 0,
    gid: 0,
    mtimeSeconds: 0,
    attributes: new Map(),
    target: "",
    sizeBytes: 0,
  };
  yield writeTarHeader({ ...common, path: "./etc/", type: "directory" });
  yield writeTarHeader({ ...common, path: "./srv/node", type });
  yield tarEnd;
}

async function* diskOf(content: string) {
  yield Buffer.from(content);
}

/** Tells what is read from where, and saved with which tag. */
function host(type: TarHeader["type"] = "file") {
  const done: string[] = [];
  const saved = (tag: string) => {
    done.push(tag);
    return { snapshot: `of ${tag}`, readBytes: 100, addedBytes: 10 };
  };
  const context = {
    views: { backupRepositories: { get: () => repository } },
    client: { repositorySecrets: async () => ({ key: "k" }) },
    disks: {
      dataFile: async (of: object | string) => {
        done.push(JSON.stringify(of));
        return "/file";
      },
      readRoot: async (part: object, digest: string, use: (archive: object) => Promise<unknown>) => {
        done.push(JSON.stringify({ ...part, digest }));
        return use(archive(type));
      },
      readRootDisk: async (part: object, digest: string, use: (disk: object) => Promise<unknown>) => {
        done.push(JSON.stringify({ ...part, digest }));
        return use(diskOf("the disk"));
      },
    },
    backups: {
      async save(_access: object, disk: string | AsyncIterable<Uint8Array>, tag: string) {
        if (typeof disk !== "string")
          for await (const chunk of disk) done.push(Buffer.from(chunk).toString());
        return saved(tag);
      },
      async saveArchive(_access: object, bytes: AsyncIterable<Uint8Array>, tag: string) {
        for await (const _chunk of bytes);
        return saved(tag);
      },
    },
  } as unknown as AgentContext;
  const told: Partial<BackupStatus>[] = [];
  const run = (one: Backup) =>
    saveDisks(context, one, async (change) => told.push(change), new AbortController().signal);
  return { run, done, told };
}

test("of an instance, root and volumes are saved one after the other, and told of each", async () => {
  const { run, done, told } = host();
  const one = backup({ instanceUid: "x", root: { uid: "root" }, volumes: [volume("a"), volume("b")] });
  expect(await run(one)).toMatchObject({
    ...{ readBytes: 300, addedBytes: 30 },
    root: { uid: "root", snapshot: "of backup-u-root" },
    volumes: [{ snapshot: "of backup-u-volume-a" }, { snapshot: "of backup-u-volume-b" }],
  });
  expect(done).toEqual([
    '{"snapshot":"u","disk":"root","digest":"d"}',
    "backup-u-root",
    '{"snapshot":"u","disk":"uid-a"}',
    "backup-u-volume-a",
    '{"snapshot":"u","disk":"uid-b"}',
    "backup-u-volume-b",
  ]);
  expect(told.map((change) => Object.keys(change))).toEqual([["root"], ["volumes"], ["volumes"]]);
  // What is taken out again is all that was saved.
  expect(tagsOf(one)).toEqual(done.filter((text) => text.startsWith("backup-")));
});

test("a machine with a boot loader of its own is saved as its disk", async () => {
  const { run, done } = host();
  const one = backup({ instanceUid: "x", root: { uid: "root", form: "disk" }, volumes: [] });
  expect(await run(one)).toMatchObject({ root: { form: "disk", snapshot: "of backup-u-root" } });
  expect(done).toEqual(['{"snapshot":"u","disk":"root","digest":"d"}', "the disk", "backup-u-root"]);
});

test("what was saved before an interruption is not saved again", async () => {
  const { run, done } = host();
  const saved = { snapshot: "s", readBytes: 5, addedBytes: 1 };
  const one = backup({
    ...{ instanceUid: "x", root: { uid: "root", ...saved } },
    volumes: [{ ...volume("a"), ...saved }, volume("b")],
  });
  expect(await run(one)).toMatchObject({ readBytes: 110, volumes: [saved, { readBytes: 100 }] });
  expect(done.filter((text) => text.startsWith("backup-"))).toEqual(["backup-u-volume-b"]);
});

test("a root that could never be restored is refused when it is saved", async () => {
  const { run, done } = host("block");
  const one = backup({ instanceUid: "x", root: { uid: "root" }, volumes: [volume("a")] });
  await expect(run(one)).rejects.toMatchObject({
    code: "Invalid",
    message: expect.stringMatching(/srv\/node.*is a device node/),
  });
  expect(done.filter((text) => text.startsWith("backup-"))).toEqual([]);
});

test("of a volume, its disk", async () => {
  const { run, done } = host();
  expect(await run(backup({ volumeUid: "v" }))).toMatchObject({ snapshot: "of backup-u", readBytes: 100 });
  expect(done).toEqual(['"u"', "backup-u"]);
});
