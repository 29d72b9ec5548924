import { expect, test } from "vitest";
import type { FieldError } from "../core/errors.ts";
import { hostKind } from "../kinds/host.ts";
import { type InstanceSpec, instanceKind } from "../kinds/instance.ts";
import { projectKind } from "../kinds/project.ts";
import { maxVolumes, type Volume, volumeKind } from "../kinds/volume.ts";
import { systemPrincipal as system } from "./principal.ts";
import { createHost, createImage, testServices } from "./testing.ts";

async function start() {
  const { services } = await testServices();
  await createImage(services);
  const { resources } = services;
  const ref = (name: string) => ({ project: "default", name });
  return {
    services,
    resources,
    launch: (name: string, spec: Partial<InstanceSpec> = {}) =>
      resources.create(system, instanceKind, {
        ...ref(name),
        spec: { type: "container", image: "debian", ...spec },
      }),
    create: (name: string, spec: object = {}) =>
      resources.create(system, volumeKind, {
        ...ref(name),
        spec: { sizeMib: 64, fileSystem: "ext4", ...spec },
      }),
    patch: (name: string, spec: object): Promise<Volume> =>
      resources.patch(system, volumeKind, ref(name), { spec: spec as never }),
    drop: (name: string) => resources.delete(system, volumeKind, ref(name)),
    get: (name: string) => resources.get(system, volumeKind, ref(name)),
    status: (volume: Volume, patch: object) =>
      resources.patchStatus(
        system,
        volumeKind,
        ref(volume.metadata.name),
        volume.metadata.uid,
        patch as never,
      ),
  };
}

/** What is wrong, and where. */
async function refusal(attempt: Promise<unknown>): Promise<{ code: string; text: string }> {
  const error = (await attempt.then(
    () => ({ code: "none", message: "it was accepted", fields: [] }),
    (failure) => failure,
  )) as { code: string; message: string; fields: FieldError[] };
  const fields = error.fields.map(({ path, message, allowed }) => `${path} ${message} (${allowed})`);
  return { code: error.code, text: [error.message, ...fields].join("; ") };
}

test("a volume is nobody's at first, and a user's own", async () => {
  const { create, drop, get } = await start();
  const volume = await create("data");
  expect(volume.spec).toMatchObject({ role: "data", protected: false });
  expect(volume.status).toMatchObject({ state: "available" });
  await drop("data");
  expect(await get("data"), "nothing of it was ever made").toBeUndefined();
});

test("root volumes are Strata's own: neither made, changed, detached nor deleted by anybody", async () => {
  const { launch, create, patch, drop, get } = await start();
  await launch("web");
  expect(await refusal(create("mine", { role: "root" }))).toMatchObject({ code: "Invalid" });
  expect(await refusal(create("mine", { type: "vm" }))).toMatchObject({ code: "Invalid" });
  for (const spec of [{ instance: "web" }, { sizeMib: 99_999 }, { protected: true }]) {
    const { code, text } = await refusal(patch("web-root", spec));
    expect(code).toBe("Invalid");
    expect(text).toContain("root volume of an instance");
  }
  const { code, text } = await refusal(drop("web-root"));
  expect(code).toBe("Conflict");
  expect(text).toContain('root volume of instance "web" and goes with it');
  expect(await get("web-root")).toBeDefined();
});

test("what an instance cannot have is refused at once", async () => {
  const { launch, create, patch, services, resources } = await start();
  await launch("box");
  await launch("vm", { type: "vm" });
  await launch("docked", { driver: "docker" });
  await create("empty", { fileSystem: undefined });
  expect((await refusal(patch("empty", { instance: "box" }))).text).toContain(
    "no file system that it could mount",
  );
  expect((await patch("empty", { instance: "vm" })).spec.instance).toBe("vm");
  await create("data");
  expect((await refusal(patch("data", { instance: "nowhere" }))).text).toContain('names "nowhere"');
  expect(await refusal(patch("data", { instance: "docked" }))).toMatchObject({
    code: "Unsupported",
    text: expect.stringContaining("driver docker"),
  });
  expect((await refusal(create("tiny", { fileSystem: "xfs", sizeMib: 128 }))).text).toContain(
    "too small for xfs",
  );
  for (const path of ["relative", "/", "/a/../b", "/a//b", "/a b", "/a/"]) {
    expect((await refusal(create("bad", { path }))).code, path).toBe("Invalid");
  }

  const host = await createHost(services, "alpha", 4096);
  const drivers = {
    lxc: { available: true, message: "", version: "5", types: ["container"], abilities: [], facts: {} },
  };
  await resources.patchStatus(system, hostKind, { name: "alpha" }, host.metadata.uid, { drivers });
  const box = await resources.require(system, instanceKind, { project: "default", name: "box" });
  const placed = { host: "alpha", driver: "lxc" };
  const ref = { project: "default", name: "box" };
  await resources.patchStatus(system, instanceKind, ref, box.metadata.uid, placed);
  expect(await refusal(patch("data", { instance: "box" }))).toMatchObject({ code: "Unsupported" });
});

test("two volumes of a container are not mounted at one place, and there is an end to their number", async () => {
  const { launch, create } = await start();
  await launch("box");
  await create("one", { instance: "box", path: "/srv/data" });
  const { code, text } = await refusal(create("two", { instance: "box", path: "/srv/data" }));
  expect(code).toBe("Conflict");
  expect(text).toContain('volume "one" is mounted at /srv/data');
  for (let number = 1; number < maxVolumes; number++) await create(`more-${number}`, { instance: "box" });
  expect((await refusal(create("last", { instance: "box" }))).text).toContain(`at most ${maxVolumes}`);
});

test("volumes grow and do not shrink; a path is for life of an attachment", async () => {
  const { launch, create, patch } = await start();
  await launch("box");
  await create("data", { sizeMib: 128, instance: "box" });
  expect((await patch("data", { sizeMib: 256 })).spec.sizeMib).toBe(256);
  const { code, text } = await refusal(patch("data", { sizeMib: 128 }));
  expect(code).toBe("Invalid");
  expect(text).toContain("do not shrink (256 MiB or more)");
  expect((await refusal(patch("data", { path: "/elsewhere" }))).text).toContain("detach it first");
  expect((await refusal(patch("data", { fileSystem: "xfs" }))).code).toBe("Invalid");
});

test("one that is used or protected stays", async () => {
  const { launch, create, patch, drop, get, status, resources } = await start();
  await launch("box");
  const volume = await create("data", { instance: "box", protected: true });
  expect((await refusal(drop("data"))).text).toContain("protected");
  await patch("data", { protected: false });
  expect((await refusal(drop("data"))).text).toContain('attached to instance "box"');
  await status(volume, { host: "alpha", instance: "box", state: "attached" });
  await patch("data", { instance: null });
  expect((await refusal(drop("data"))).text).toContain("still being detached");

  await patch("data", { instance: "box" });
  await resources.delete(system, instanceKind, { project: "default", name: "box" });
  expect((await get("data"))?.spec, "its instance goes without it").not.toHaveProperty("instance");
});

test("volumes count against the quota, growth included, until they are gone", async () => {
  const { create, patch, drop, resources } = await start();
  await resources.patch(system, projectKind, { name: "default" }, { spec: { quota: { diskMib: 1000 } } });
  await create("one", { sizeMib: 600 });
  expect(await refusal(create("two", { sizeMib: 600 }))).toMatchObject({
    code: "QuotaExceeded",
    text: expect.stringContaining("uses 600 MiB of disk"),
  });
  await patch("one", { sizeMib: 900 });
  expect((await refusal(patch("one", { sizeMib: 1100 }))).code).toBe("QuotaExceeded");
  await drop("one");
  expect((await create("two", { sizeMib: 1000 })).spec.sizeMib).toBe(1000);
});
