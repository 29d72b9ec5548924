/** What can be asked of backups of instances, what is refused at once, and what comes with an instance that is made of one. */
import { expect, test } from "vitest";
import type { FieldError } from "../core/errors.ts";
import { backupKind } from "../kinds/backup.ts";
import { backupRepositoryKind } from "../kinds/backup-repository.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import { volumeKind } from "../kinds/volume.ts";
import { systemPrincipal as system } from "./principal.ts";
import { createHost, createImage, testServices } from "./testing.ts";

const digest = `sha256:${"0".repeat(64)}`;
const project = "default";
const ref = (name: string) => ({ project, name });

/** An instance that runs on host alpha, and a repository there. */
async function start() {
  const { services } = await testServices();
  const { resources } = services;
  const image = await createImage(services);
  await createHost(services, "alpha", 8_192);
  const made = { state: "ready", digest, types: ["container"], host: "alpha" };
  await resources.patchStatus(system, imageKind, ref("debian"), image.metadata.uid, made as never);
  const repository = { directory: { path: "/b/a" }, key: "k".repeat(32) };
  await resources.create(system, backupRepositoryKind, { ...ref("nas"), spec: repository });
  const spec = { type: "container", image: "debian", diskMib: 1024, cpus: 2 };
  const web = await resources.create(system, instanceKind, { ...ref("web"), spec });
  const backup = (of: object, name = "monday") =>
    resources.create(system, backupKind, { ...ref(name), spec: { repository: "nas", ...of } });
  const place = () => {
    const runs = { state: "running", host: "alpha", imageDigest: digest, driver: "lxc" };
    return resources.patchStatus(system, instanceKind, ref("web"), web.metadata.uid, runs as never);
  };
  return {
    resources,
    place,
    backup,
    async taken() {
      await place();
      const asked = await backup({ instance: "web" });
      const saved = { snapshot: "aa", readBytes: 64, addedBytes: 1 };
      const volume = { name: "data", uid: "v", sizeMib: 64, fileSystem: "ext4", path: "/srv/data", ...saved };
      const status = { state: "ready", root: { uid: "r", ...saved }, volumes: [volume] };
      return resources.patchStatus(system, backupKind, ref("monday"), asked.metadata.uid, status as never);
    },
    restore: (name: string, change: object = {}) =>
      resources.create(system, instanceKind, {
        ...ref(name),
        spec: { ...spec, image: "monday", source: { backup: "monday" }, ...change },
      }),
  };
}

async function refusal(attempt: Promise<unknown>): Promise<string> {
  const error = (await attempt.then(
    () => ({ code: "none", message: "it was accepted", fields: [] }),
    (failure) => failure,
  )) as { code: string; message: string; fields: FieldError[] };
  const fields = error.fields.map(({ path, message, allowed }) => `${path} ${message} (${allowed})`);
  return [error.code, error.message, ...fields].join("; ");
}

test("a backup is of a volume or of an instance, which has something on its disks", async () => {
  const { backup, place } = await start();
  expect(await refusal(backup({}))).toMatch(/^Invalid.*one of the two/);
  expect(await refusal(backup({ instance: "web", volume: "data" }))).toMatch(/^Invalid.*one of the two/);
  expect(await refusal(backup({ instance: "wbe" }))).toContain('did you mean "web"');
  expect(await refusal(backup({ instance: "web" }))).toMatch(/^Conflict.*nothing on instance "web" yet/);
  await place();
  expect((await backup({ instance: "web" })).status).toMatchObject({
    ...{ state: "pending", host: "alpha", imageDigest: digest, sizeMib: 1024 },
    machine: { cpus: 2, diskMib: 1024 },
  });
});

test("an instance of a backup comes with its volumes, and with the image that its root becomes", async () => {
  const { resources, taken, restore } = await start();
  await taken();
  await restore("again");
  const image = await resources.require(system, imageKind, ref("monday"));
  expect(image.spec.source).toEqual({ type: "backup", backup: "monday" });
  expect(image.status).toMatchObject({ state: "pending", host: "alpha" });
  const volume = await resources.require(system, volumeKind, ref("again-data"));
  expect(volume.spec).toMatchObject({
    ...{ sizeMib: 64, fileSystem: "ext4", path: "/srv/data", instance: "again" },
    source: { backup: "monday", volume: "data" },
  });
  expect(volume.status).toMatchObject({ state: "pending", host: "alpha" });
  // The second uses the image of the first.
  await restore("third");
  const images = await resources.list(system, imageKind, { project });
  expect(images.items.map(({ metadata }) => metadata.name).sort()).toEqual(["debian", "monday"]);
  expect(await refusal(resources.delete(system, backupKind, ref("monday")))).toMatch(
    /^Conflict.*volume "again-data".*image "monday"/,
  );
});

test("what does not fit a backup is refused, with nothing made", async () => {
  const { resources, backup, place, taken, restore } = await start();
  await place();
  await backup({ instance: "web" }, "early");
  expect(await refusal(restore("again", { source: { backup: "early" } }))).toMatch(
    /"early", which is pending/,
  );
  await taken();
  expect(await refusal(restore("again", { type: "vm" }))).toMatch(/spec.type.*backup is of a container/);
  expect(await refusal(restore("again", { image: "debian" }))).toMatch(
    /spec.image is "debian", which is there already and was not made of backup "monday"/,
  );
  expect(await refusal(restore("again", { source: { backup: "monday", snapshot: "x" } }))).toMatch(
    /^Invalid.*not both/,
  );
  const volume = (source: object) =>
    resources.create(system, volumeKind, {
      ...ref("copy"),
      spec: { sizeMib: 64, fileSystem: "ext4", source },
    });
  expect(await refusal(volume({ backup: "monday" }))).toMatch(/spec.source.volume must say which.*\(data\)/);
  expect(await refusal(volume({ backup: "monday", volume: "other" }))).toMatch(/is "other" \(data\)/);
  expect(await resources.get(system, imageKind, ref("monday"))).toBeUndefined();
  expect((await volume({ backup: "monday", volume: "data" })).status).toMatchObject({ host: "alpha" });
});

test("a repository that is lost takes no new backups, and stays as long as backups name it", async () => {
  const { resources, backup, taken } = await start();
  await taken();
  const early = { directory: { path: "/b/z" }, key: "k".repeat(32), lost: true };
  expect(
    await refusal(resources.create(system, backupRepositoryKind, { ...ref("new"), spec: early })),
  ).toMatch(/^Invalid.*spec.lost/);
  const set = (lost: boolean) =>
    resources.patch(system, backupRepositoryKind, ref("nas"), { spec: { lost } });
  await set(true);
  expect(await refusal(backup({ instance: "web" }, "tuesday"))).toMatch(
    /^Conflict.*"nas" is lost; use another/,
  );
  expect(await refusal(resources.delete(system, backupRepositoryKind, ref("nas")))).toMatch(
    /^Conflict.*"monday".*it is lost: delete them/,
  );
  await set(false);
  await backup({ instance: "web" }, "tuesday");
});

test("only a complete backup of an instance is started for a test, and it is not deleted meanwhile", async () => {
  const { resources, backup, place, taken } = await start();
  await place();
  expect(await refusal(backup({ instance: "web", bootTests: 1 }))).toMatch(/^Invalid.*there already/);
  await backup({ instance: "web" }, "early");
  const boot = (name: string, bootTests: number) =>
    resources.patch(system, backupKind, ref(name), { spec: { bootTests } });
  expect(await refusal(boot("early", 1))).toMatch(/^Conflict.*is pending/);
  const { metadata } = await taken();
  await boot("monday", 1);
  expect(await refusal(boot("monday", 0))).toMatch(/^Invalid.*can only grow/);
  const since = "2026-11-29T00:00:00Z";
  await resources.patchStatus(system, backupKind, ref("monday"), metadata.uid, { bootTest: { since } });
  expect(await refusal(resources.delete(system, backupKind, ref("monday")))).toMatch(
    /^Conflict.*started for a test; try again later/,
  );
});

test("backups of earlier versions, which know nothing of starts, can be tested", () => {
  const { bootTests, ...old } = backupKind.spec.parse({ volume: "v", repository: "r" });
  const asked = backupKind.spec.parse({ ...old, verifications: 1 });
  const status = backupKind.initialStatus();
  expect(backupKind.validateUpdate(asked, old as typeof asked, status)).toEqual([]);
  expect(
    backupKind.validateUpdate({ ...asked, bootTests: 0 }, { ...asked, bootTests: 1 }, status),
  ).toHaveLength(1);
});
