import { expect, test } from "vitest";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import { networkKind } from "../kinds/network.ts";
import { projectKind } from "../kinds/project.ts";
import { tokenKind } from "../kinds/token.ts";
import { systemPrincipal as system } from "./principal.ts";
import type { Services } from "./services.ts";
import { createHost, createImage, testServices } from "./testing.ts";

const spec = { type: "container", image: "debian" };
const web = { project: "default", name: "web" };

function createInstance(services: Services, name: string, extra: object = {}, project = "default") {
  return services.resources.create(system, instanceKind, { project, name, spec: { ...spec, ...extra } });
}

test("an instance names what exists, or learns what does", async () => {
  const { services } = await testServices();
  await expect(createInstance(services, "web")).rejects.toMatchObject({
    code: "Invalid",
    fields: [{ path: "spec.image", allowed: "none: the project has no images yet" }],
  });
  await createImage(services, "debian");
  await createImage(services, "trixie");
  const wrong = { image: "debain", network: "lan", keyPairs: ["me"] };
  await expect(createInstance(services, "web", wrong)).rejects.toMatchObject({
    fields: [
      { path: "spec.image", message: expect.stringContaining('mean "debian"'), allowed: "debian, trixie" },
      { path: "spec.network", allowed: "default" },
      { path: "spec.keyPairs[0]", allowed: "none: the project has no key pairs yet" },
    ],
  });
});

test("a ready image that cannot start as that type is refused", async () => {
  const { services } = await testServices();
  const image = await createImage(services);
  const ref = { project: "default", name: "debian" };
  await services.resources.patchStatus(system, imageKind, ref, image.metadata.uid, {
    state: "ready",
    types: ["container"],
  });
  await expect(createInstance(services, "web", { type: "vm" })).rejects.toMatchObject({
    fields: [{ path: "spec.type", allowed: "container" }],
  });
  await createInstance(services, "web");
});

test("a protected image stays, also when it is applied again, and says how to change that", async () => {
  const { services } = await testServices();
  await createImage(services);
  const ref = { project: "default", name: "debian" };
  await services.resources.patch(system, imageKind, ref, { spec: { protected: true } });
  await expect(services.resources.delete(system, imageKind, ref)).rejects.toMatchObject({
    code: "Conflict",
    message: /image "debian" is protected.*unprotect debian/,
  });
  const spec = { source: { type: "debian", suite: "bookworm" } };
  await services.resources.apply(system, imageKind, { ...ref, spec });
  await expect(services.resources.delete(system, imageKind, ref)).rejects.toMatchObject({ code: "Conflict" });
  await services.resources.patch(system, imageKind, ref, { spec: { protected: false } });
  await services.resources.delete(system, imageKind, ref);
});

test("only disks have a way to boot", async () => {
  const { services } = await testServices();
  const make = (format: string) => {
    const source = {
      type: "url",
      url: "https://example.org/x",
      sha256: "0".repeat(64),
      format,
      boot: "firmware",
    };
    const request = { project: "default", name: format, spec: { source } };
    return services.resources.create(system, imageKind, request);
  };
  await expect(make("tar")).rejects.toMatchObject({ fields: [{ path: "spec.source.boot" }] });
  expect((await make("ova")).spec.source).toMatchObject({ format: "ova", boot: "firmware" });
});

test("what is larger than every ready host is refused at once; without a ready host nothing is", async () => {
  const { services } = await testServices();
  await createImage(services);
  await createInstance(services, "before", { memoryMib: 1_000_000 });
  await createHost(services, "small", 2048);
  await createHost(services, "large", 8192);
  await createInstance(services, "fits", { memoryMib: 8192 });
  await expect(createInstance(services, "huge", { memoryMib: 65_536 })).rejects.toMatchObject({
    code: "CapacityExceeded",
    message: expect.stringContaining("asks for 64 GiB of memory; the largest host has 8 GiB"),
  });
  await expect(createInstance(services, "wide", { cpus: 33 })).rejects.toThrow("may promise 32");
  const host = await services.resources.require(system, hostKind, { name: "large" });
  await services.resources.patchStatus(system, hostKind, { name: "large" }, host.metadata.uid, {
    state: "not-ready",
  });
  await expect(createInstance(services, "late", { memoryMib: 8192 })).rejects.toThrow("has 2 GiB");
});

test("a host stays while instances are on it", async () => {
  const { services } = await testServices();
  await createImage(services);
  await createHost(services, "one", 8192);
  const instance = await createInstance(services, "web");
  await services.resources.patchStatus(system, instanceKind, web, instance.metadata.uid, { host: "one" });
  await expect(services.resources.delete(system, hostKind, { name: "one" })).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining('"web"'),
  });
  await services.resources.delete(system, instanceKind, web);
  await services.resources.removeFinalizer(system, instanceKind, web, instance.metadata.uid, "agent");
  await services.resources.delete(system, hostKind, { name: "one" });
});

test("a protected instance stays, and says how to change that", async () => {
  const { services } = await testServices();
  await createImage(services);
  await createInstance(services, "web", { protected: true });
  await expect(services.resources.delete(system, instanceKind, web)).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining('{"spec":{"protected":false}}'),
  });
  await services.resources.patch(system, instanceKind, web, { spec: { protected: false } });
  await services.resources.delete(system, instanceKind, web);
});

test("images and networks stay while instances use them", async () => {
  const { services } = await testServices();
  await createImage(services);
  await createInstance(services, "web");
  const image = { project: "default", name: "debian" };
  const network = { project: "default", name: "default" };
  await expect(services.resources.delete(system, imageKind, image)).rejects.toThrow(/instance "web"/);
  await expect(services.resources.delete(system, networkKind, network)).rejects.toThrow(/instance "web"/);
  await services.resources.delete(system, instanceKind, web);
  expect(await services.resources.delete(system, imageKind, image)).toBeUndefined();
  expect((await services.resources.delete(system, networkKind, network))?.metadata.deletedAt).toBeDefined();
  await createImage(services);
  await expect(createInstance(services, "late")).rejects.toMatchObject({
    fields: [{ path: "spec.network", message: expect.stringContaining("being deleted") }],
  });
});

test("networks get ranges and a domain for life; those with a host route never overlap, and come back", async () => {
  const { services } = await testServices({ networkPool: "10.50.0.0/22" });
  const create = (name: string, cidr?: string) =>
    services.resources.create(system, networkKind, {
      project: "default",
      name,
      spec: cidr === undefined ? {} : { cidr },
    });
  const lan = await create("lan");
  expect(lan.status).toMatchObject({
    cidr: "10.50.1.0/24",
    ipv6Cidr: expect.stringMatching(/^fd[0-9a-f:]+::\/48$/),
    hostRoute: true,
    domain: "lan.default.internal",
  });
  await expect(create("bad", "10.50.0.7/24")).rejects.toMatchObject({
    fields: [{ path: "spec.cidr", allowed: "10.50.0.0/24" }],
  });
  const routed = { cidr: "10.50.0.0/20", hostRoute: true };
  await expect(
    services.resources.create(system, networkKind, { project: "default", name: "over", spec: routed }),
  ).rejects.toMatchObject({ code: "Conflict", fields: [{ path: "spec.cidr" }] });
  for (const name of ["own", "same"]) {
    expect((await create(name, "10.50.0.0/20")).status).toMatchObject({
      cidr: "10.50.0.0/20",
      hostRoute: false,
    });
  }
  const ref = { project: "default", name: "lan" };
  const { uid } = lan.metadata;
  await expect(
    services.resources.patchStatus(system, networkKind, ref, uid, { cidr: "10.60.0.0/24" }),
  ).rejects.toMatchObject({ fields: [{ path: "status.cidr" }] });
  await services.resources.delete(system, networkKind, ref);
  await services.resources.removeFinalizer(system, networkKind, ref, uid, "agent");
  expect((await create("lan")).status.cidr).toBe("10.50.1.0/24");
});

test("20 networks created at once have 20 ranges", async () => {
  const { services } = await testServices();
  const created = await Promise.all(
    Array.from({ length: 20 }, (_, i) =>
      services.resources.create(system, networkKind, { project: "default", name: `n${i}` }),
    ),
  );
  expect(new Set(created.map((network) => network.status.cidr)).size).toBe(20);
});

test("a quota holds under any race, counts what is there, and frees what is removed", async () => {
  const { services } = await testServices();
  await createImage(services);
  await createInstance(services, "first", { memoryMib: 1024 });
  const setQuota = (quota: object | null) =>
    services.resources.patch(system, projectKind, { name: "default" }, { spec: { quota: quota as never } });
  await setQuota({ instances: 5, memoryMib: 4096 });
  const results = await Promise.allSettled(
    Array.from({ length: 30 }, (_, i) => createInstance(services, `i${i}`)),
  );
  expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(4);
  for (const result of results) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "QuotaExceeded" });
  }
  await expect(createInstance(services, "more")).rejects.toThrow(/may use 5 instances, uses 5 instances/);
  await services.resources.delete(system, instanceKind, { project: "default", name: "first" });
  await createInstance(services, "again");
  await expect(createInstance(services, "more")).rejects.toMatchObject({ code: "QuotaExceeded" });
  await setQuota({ instances: null, memoryMib: 2600 });
  await expect(createInstance(services, "more")).rejects.toThrow(/2\.5 GiB of memory, uses 2\.5 GiB/);
  await setQuota({ memoryMib: null });
  await createInstance(services, "free");
  await setQuota({ instances: 6 });
  await expect(createInstance(services, "seventh")).rejects.toMatchObject({ code: "QuotaExceeded" });
});

test("an instance is resized within its project's quota", async () => {
  const { services } = await testServices();
  await createImage(services);
  await createInstance(services, "web", { memoryMib: 1024, cpus: 2 });
  const quota = { memoryMib: 2048, cpus: 2 };
  await services.resources.patch(system, projectKind, { name: "default" }, { spec: { quota } });
  const resize = (spec: { memoryMib?: number; cpus?: number }) =>
    services.resources.patch(system, instanceKind, web, { spec });
  await resize({ memoryMib: 2048 });
  await expect(resize({ memoryMib: 2049 })).rejects.toMatchObject({
    code: "QuotaExceeded",
    message: expect.stringContaining(
      "may use 2 GiB of memory, uses 2 GiB of memory, and this asks for 1 MiB",
    ),
  });
  await expect(resize({ cpus: 3, memoryMib: 512 })).rejects.toMatchObject({ code: "QuotaExceeded" });
  await resize({ memoryMib: 1024 });
  await expect(createInstance(services, "more", { memoryMib: 1024 })).rejects.toThrow("may use 2 cpus");
  await resize({ cpus: 1 });
  await createInstance(services, "more", { memoryMib: 1024, cpus: 1 });
});

test("an instance grows within its host, others on it counted, whoever grows at the same time", async () => {
  const { services } = await testServices();
  await createImage(services);
  await createHost(services, "one", 4096);
  for (const name of ["web", "db", "api"]) {
    const { metadata } = await createInstance(services, name, { memoryMib: 1024 });
    const ref = { project: "default", name };
    await services.resources.patchStatus(system, instanceKind, ref, metadata.uid, { host: "one" });
  }
  const grow = (name: string, spec: { memoryMib?: number; cpus?: number }) =>
    services.resources.patch(system, instanceKind, { project: "default", name }, { spec });
  await expect(grow("web", { memoryMib: 2049 })).rejects.toMatchObject({
    code: "CapacityExceeded",
    message: expect.stringContaining("asks for 1 GiB more memory; its host has 1 GiB left"),
  });
  await expect(grow("web", { cpus: 32 })).rejects.toThrow("31 more CPUs; its host has 29 left");
  const results = await Promise.allSettled([
    grow("web", { memoryMib: 2048 }),
    grow("db", { memoryMib: 2048 }),
    grow("api", { memoryMib: 2048 }),
  ]);
  expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(1);
});

test("removals while a fresh quota is counted are not counted", async () => {
  const { services } = await testServices();
  await createImage(services);
  for (let i = 0; i < 10; i++) await createInstance(services, `i${i}`);
  await services.resources.patch(
    system,
    projectKind,
    { name: "default" },
    { spec: { quota: { instances: 11 } } },
  );
  const removals = Array.from({ length: 10 }, (_, i) =>
    services.resources.delete(system, instanceKind, { project: "default", name: `i${i}` }),
  );
  await Promise.all([createInstance(services, "n0"), ...removals, createInstance(services, "n1")]);
  const more = await Promise.allSettled(
    Array.from({ length: 15 }, (_, i) => createInstance(services, `m${i}`)),
  );
  expect(more.filter((result) => result.status === "fulfilled")).toHaveLength(9);
});

test("a project comes with its network, and goes only when it is empty", async () => {
  const { services, store } = await testServices();
  await services.resources.create(system, projectKind, { name: "shop" });
  const network = { project: "shop", name: "default" };
  expect((await services.resources.require(system, networkKind, network)).status.domain).toBe(
    "shop.internal",
  );
  await createImage(services, "debian", "shop");
  await createInstance(services, "web", { protected: true }, "shop");
  await expect(services.resources.delete(system, projectKind, { name: "shop" })).rejects.toThrow("cascade");
  const cascade = { cascade: true };
  await expect(services.resources.delete(system, projectKind, { name: "shop" }, cascade)).rejects.toThrow(
    /"web" is protected/,
  );
  const inShop = { project: "shop", name: "web" };
  await services.resources.patch(system, instanceKind, inShop, { spec: { protected: false } });
  const project = await services.resources.delete(system, projectKind, { name: "shop" }, cascade);
  expect(project?.metadata).toMatchObject({ finalizers: ["contents"], deletedAt: expect.any(String) });
  await expect(createInstance(services, "late", {}, "shop")).rejects.toMatchObject({ code: "Conflict" });
  const uid = project?.metadata.uid ?? "";
  const finish = () =>
    services.resources.removeFinalizer(system, projectKind, { name: "shop" }, uid, "contents");
  await expect(finish()).rejects.toMatchObject({
    code: "Conflict",
    message: expect.stringContaining("networks"),
  });
  const left = await services.resources.require(system, networkKind, network);
  expect(left.metadata.deletedAt).toBeDefined();
  await services.resources.removeFinalizer(system, networkKind, network, left.metadata.uid, "agent");
  await finish();
  const keys = (await store.list("/", { limit: 100 })).entries.map((entry) => entry.key);
  expect(keys.filter((key) => key.includes("shop"))).toEqual(["/closing/shop"]);
  await services.resources.create(system, projectKind, { name: "shop" });
  await createImage(services, "debian", "shop");
});

test("a create that read the project just before its deletion does not slip in", async () => {
  const { services, store } = await testServices();
  await services.resources.create(system, projectKind, { name: "shop" });
  const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test";
  const creates = Array.from({ length: 20 }, (_, i) =>
    services.resources.create(system, keyPairKind, { project: "shop", name: `k${i}`, spec: { publicKey } }),
  );
  const [, ...results] = await Promise.allSettled([
    services.resources.delete(system, projectKind, { name: "shop" }),
    ...creates,
  ]);
  for (const result of results) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "Conflict" });
  }
  await services.ensureDefaults();
  expect((await store.list("/key-pairs/shop/", { limit: 100 })).entries).toEqual([]);
});

test("a project's deletion that was cut short goes on with the next start", async () => {
  const { services, store, clock } = await testServices();
  await services.resources.create(system, projectKind, { name: "shop" });
  const image = await createImage(services, "debian", "shop");
  const entry = await store.get("/projects/shop");
  const value = entry?.value as { metadata: object };
  const metadata = { ...value.metadata, deletedAt: new Date(clock.now()).toISOString() };
  await store.commit([{ put: "/projects/shop", value: { ...value, metadata } as never }]);
  await services.ensureDefaults();
  expect(image.kind).toBe("Image");
  expect(await store.get("/images/shop/debian")).toBeUndefined();
});

test("tokens open what they say, once issued, until they expire or are deleted", async () => {
  const { services, clock } = await testServices();
  const expiresAt = new Date(clock.now() + 60_000).toISOString();
  const { token, secret } = await services.tokens.issue(system, {
    name: "ci",
    spec: { role: "member", project: "default", expiresAt },
  });
  expect(secret).toMatch(/^strata_[0-9a-z]{56}$/);
  expect(await services.tokens.authenticate(secret)).toEqual({
    name: "token:ci",
    role: "member",
    project: "default",
  });
  expect(JSON.stringify(token)).not.toContain(secret);
  expect(token.spec.secretHash).toBe("0".repeat(64));
  const stored = await services.resources.require(system, tokenKind, { name: "ci" });
  expect(stored.spec.secretHash).toBe("0".repeat(64));
  const answers = await Promise.all(
    ["", "x", `${secret}x`, `strata_${"0".repeat(56)}`].map((wrong) =>
      services.tokens.authenticate(wrong).catch((error) => `${error.code}: ${error.message}`),
    ),
  );
  expect(new Set(answers).size).toBe(1);
  await clock.advance(60_001);
  await expect(services.tokens.authenticate(secret)).rejects.toThrow(/unknown, expired or revoked/);
  const forever = await services.tokens.issue(system, { name: "root", spec: { role: "admin" } });
  await services.resources.delete(system, tokenKind, { name: "root" });
  await expect(services.tokens.authenticate(forever.secret)).rejects.toMatchObject({
    code: "Unauthenticated",
  });
});

test.each([
  [{ role: "member" }, "spec.project"],
  [{ role: "viewer", project: "nowhere" }, "spec.project"],
  [{ role: "admin", expiresAt: "2001-01-01T00:00:00Z" }, "spec.expiresAt"],
  [{ role: "root" }, "spec.role"],
  [{ role: "admin", secretHash: "1".repeat(64) }, "spec.secretHash"],
])("the token %j is refused", async (wrong, path) => {
  const { services } = await testServices();
  await expect(services.tokens.issue(system, { name: "bad", spec: wrong })).rejects.toMatchObject({
    code: "Invalid",
    fields: [{ path }],
  });
});

test("a token goes with its project", async () => {
  const { services } = await testServices();
  await services.resources.create(system, projectKind, { name: "shop" });
  const { secret } = await services.tokens.issue(system, {
    name: "shop-ci",
    spec: { role: "admin", project: "shop" },
  });
  await services.resources.delete(system, projectKind, { name: "shop" });
  await expect(services.tokens.authenticate(secret)).rejects.toMatchObject({ code: "Unauthenticated" });
});
