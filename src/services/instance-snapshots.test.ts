/** What can be asked of snapshots of instances, and what is refused at once. */
import { expect, test } from "vitest";
import type { FieldError } from "../core/errors.ts";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import { snapshotKind } from "../kinds/snapshot.ts";
import { volumeKind } from "../kinds/volume.ts";
import { systemPrincipal as system } from "./principal.ts";
import { createHost, createImage, testServices } from "./testing.ts";

const digest = `sha256:${"0".repeat(64)}`;
const ref = (name: string) => ({ project: "default", name });

/** An instance that runs on host alpha, with the driver of that name. */
async function start(driver = "lxc") {
  const { services } = await testServices();
  const { resources } = services;
  const image = await createImage(services);
  const host = await createHost(services, "alpha", 8_192);
  const able = (abilities: string[]) => ({
    available: true,
    message: "",
    version: "1",
    types: ["container"],
    abilities,
    facts: {},
  });
  const drivers = { lxc: able(["snapshots"]), docker: able([]), qemu: able(["snapshots", "memory"]) };
  await resources.patchStatus(system, hostKind, { name: "alpha" }, host.metadata.uid, { drivers } as never);
  const { uid } = image.metadata;
  const made = { state: "ready", digest, types: ["container"], host: "alpha" };
  await resources.patchStatus(system, imageKind, ref("debian"), uid, made as never);
  const spec = { type: "container", image: "debian", diskMib: 1024, cpus: 2 };
  const web = await resources.create(system, instanceKind, { ...ref("web"), spec });
  const runs = { state: "running", host: "alpha", imageDigest: digest, driver };
  const place = () =>
    resources.patchStatus(system, instanceKind, ref("web"), web.metadata.uid, runs as never);
  const snapshot = (of: object) => resources.create(system, snapshotKind, { ...ref("before"), spec: of });
  return {
    resources,
    web,
    place,
    snapshot,
    async taken() {
      await place();
      const asked = await snapshot({ instance: "web" });
      const status = {
        state: "ready",
        rootUid: "r",
        volumes: [{ name: "data", uid: "v", sizeMib: 64, fileSystem: "ext4", path: "/srv/data" }],
      };
      return resources.patchStatus(system, snapshotKind, ref("before"), asked.metadata.uid, status as never);
    },
    clone: (name: string, change: object = {}) =>
      resources.create(system, instanceKind, {
        ...ref(name),
        spec: { ...spec, source: { snapshot: "before" }, ...change },
      }),
    rollBack: (rollbacks: number) =>
      resources.patch(system, snapshotKind, ref("before"), { spec: { rollbacks } }),
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

test("a snapshot is of a volume or of an instance, which has something on its disks", async () => {
  const { snapshot, place, web } = await start();
  expect(await refusal(snapshot({}))).toMatch(/^Invalid.*one of the two/);
  expect(await refusal(snapshot({ instance: "web", volume: "data" }))).toMatch(/^Invalid.*one of the two/);
  expect(await refusal(snapshot({ instance: "wbe" }))).toContain('did you mean "web"');
  expect(await refusal(snapshot({ instance: "web" }))).toMatch(/^Conflict.*nothing on instance "web" yet/);
  await place();
  expect(await refusal(snapshot({ instance: "web", rollbacks: 1 }))).toMatch(/^Invalid.*there already/);
  const asked = await snapshot({ instance: "web" });
  expect(asked.status).toMatchObject({
    ...{ state: "pending", host: "alpha", instanceUid: web.metadata.uid, imageDigest: digest, sizeMib: 1024 },
    machine: { cpus: 2, diskMib: 1024 },
  });
});

test("volumes that came with an instance are let go when it is deleted, and can be deleted", async () => {
  const { resources, taken, clone } = await start();
  await taken();
  await clone("twin");
  const volume = () => resources.require(system, volumeKind, ref("twin-data"));
  expect((await volume()).spec.instance).toBe("twin");
  await resources.delete(system, instanceKind, ref("twin"));
  expect((await volume()).spec.instance).toBeUndefined();
  await resources.delete(system, volumeKind, ref("twin-data"));
});

test("what a driver lacks is said at once, for images of instances as well", async () => {
  const { resources, snapshot, place } = await start("docker");
  await place();
  expect(await refusal(snapshot({ instance: "web" }))).toMatch(
    /^Unsupported.*docker, which has no snapshots/,
  );
  const source = { type: "instance", instance: "web" };
  const image = resources.create(system, imageKind, { ...ref("of-web"), spec: { source } });
  expect(await refusal(image)).toMatch(/^Unsupported.*docker, which has no snapshots/);
});

test("memory is for instances whose driver can keep it, and for good", async () => {
  const able = await start("qemu");
  await able.place();
  await able.snapshot({ instance: "web", memory: true });
  const change = able.resources.patch(system, snapshotKind, ref("before"), { spec: { memory: false } });
  expect(await refusal(change)).toMatch(/^Invalid.*spec.memory cannot change/);
  const { snapshot, place } = await start();
  await place();
  expect(await refusal(snapshot({ instance: "web", memory: true }))).toMatch(
    /^Invalid.*spec.memory is for virtual machines; "web" is a container of the driver lxc.*\(false\)/,
  );
  expect(await refusal(snapshot({ volume: "data", memory: true }))).toMatch(
    /^Invalid.*spec.memory is for snapshots of instances.*\(false, or spec.instance\)/,
  );
});

test("what earlier versions stored says nothing of memory, and is gone back to as before", () => {
  const { memory: _, ...stored } = { instance: "web", memory: false, rollbacks: 0 };
  const next = { ...stored, memory: false, rollbacks: 1 };
  expect(snapshotKind.validateUpdate(next, stored as typeof next, {} as never)).toEqual([]);
});

test("an image of an instance is made where the instance is", async () => {
  const { resources, place } = await start();
  const spec = { source: { type: "instance", instance: "web" } };
  const create = () => resources.create(system, imageKind, { ...ref("of-web"), spec });
  expect(await refusal(create())).toMatch(/^Conflict.*nothing on it yet/);
  await place();
  expect((await create()).status).toMatchObject({ state: "pending", host: "alpha" });
});

test("a new instance takes over the disks, and its volumes are new ones", async () => {
  const { resources, taken, clone, web } = await start();
  const before = await taken();
  const twin = await clone("twin", { diskMib: 2048 });
  expect(twin.status).toMatchObject({
    imageDigest: digest,
    source: { snapshotUid: before.metadata.uid, rootUid: "r", host: "alpha" },
  });
  expect(twin.status.nic?.macAddress).not.toBe(web.status.nic?.macAddress);
  const volume = await resources.get(system, volumeKind, ref("twin-data"));
  expect(volume?.spec).toMatchObject({
    ...{ sizeMib: 64, fileSystem: "ext4", instance: "twin", path: "/srv/data" },
    source: { snapshot: "before", volume: "data" },
  });
  expect(volume?.status).toMatchObject({ state: "pending", host: "alpha" });
  // Both are just being copied.
  expect(await refusal(resources.delete(system, snapshotKind, ref("before")))).toMatch(
    /^Conflict.*being copied/,
  );
});

test("a new instance that does not fit is refused, with what would", async () => {
  const { resources, taken, clone } = await start();
  expect(await refusal(clone("twin"))).toMatch(/^Invalid.*"before"/);
  await taken();
  expect(await refusal(clone("twin", { diskMib: 512 }))).toMatch(/spec.diskMib is 512.*1024 or more/);
  expect(await refusal(clone("twin", { type: "vm" }))).toMatch(/spec.type is "vm".*\(container\)/);
  const part = (source: object) =>
    resources.create(system, volumeKind, { ...ref("v"), spec: { sizeMib: 64, fileSystem: "ext4", source } });
  expect(await refusal(part({ snapshot: "before" }))).toMatch(/spec.source.volume must say which.*\(data\)/);
  expect(await refusal(part({ snapshot: "before", volume: "logs" }))).toMatch(/is "logs" \(data\)/);
  expect((await part({ snapshot: "before", volume: "data" })).status).toMatchObject({ host: "alpha" });
});

test("going back only grows, needs its instance, and the snapshot stays until it is done", async () => {
  const { resources, taken, rollBack, web } = await start();
  await taken();
  await rollBack(1);
  expect(await refusal(rollBack(0))).toMatch(/can only grow/);
  expect(await refusal(resources.delete(system, snapshotKind, ref("before")))).toMatch(
    /^Conflict.*put back to it/,
  );
  const status = { imageDigest: `sha256:${"1".repeat(64)}` };
  await resources.patchStatus(system, instanceKind, ref("web"), web.metadata.uid, status as never);
  expect(await refusal(rollBack(2))).toMatch(/^Conflict.*from another image since/);
});
