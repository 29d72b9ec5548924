import { expect, test } from "vitest";
import { eventKind } from "../kinds/event.ts";
import { hostKind } from "../kinds/host.ts";
import { instanceKind } from "../kinds/instance.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import type { Ref } from "../kinds/keys.ts";
import { leaseKind } from "../kinds/lease.ts";
import { idempotencyTtlMs } from "./idempotency.ts";
import { systemPrincipal as system } from "./principal.ts";
import { createImage, testServices } from "./testing.ts";

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test";
const key: Ref & { project: string } = { project: "default", name: "laptop" };
const web = { project: "default", name: "web" };
const webSpec = { type: "container", image: "debian" };

async function withInstance() {
  const parts = await testServices();
  await createImage(parts.services);
  const instance = await parts.services.resources.create(system, instanceKind, { ...web, spec: webSpec });
  return { ...parts, resources: parts.services.resources, instance };
}

test("create completes the resource, get shows it, a second create is refused", async () => {
  const { resources, instance } = await withInstance();
  expect(instance.metadata).toMatchObject({ generation: 1, labels: {}, finalizers: ["agent"] });
  expect(instance.spec).toMatchObject({ memoryMib: 512, network: "default" });
  expect(await resources.get(system, instanceKind, web)).toEqual(instance);
  await expect(resources.create(system, instanceKind, { ...web, spec: webSpec })).rejects.toMatchObject({
    code: "AlreadyExists",
  });
});

test("of 50 creates of one name exactly one wins", async () => {
  const { services, store } = await testServices();
  const tries = Array.from({ length: 50 }, () =>
    services.resources.create(system, keyPairKind, { ...key, spec: { publicKey } }),
  );
  const results = await Promise.allSettled(tries);
  expect(results.filter((result) => result.status === "fulfilled")).toHaveLength(1);
  for (const result of results) {
    if (result.status === "rejected") expect(result.reason).toMatchObject({ code: "AlreadyExists" });
  }
  expect((await store.list("/key-pairs/", { limit: 10 })).entries).toHaveLength(1);
});

test("50 instances created at once get an address each, in a commit that takes nothing twice", async () => {
  const { services, store } = await testServices();
  await createImage(services);
  const created = await Promise.all(
    Array.from({ length: 50 }, (_, i) =>
      services.resources.create(system, instanceKind, { project: "default", name: `i${i}`, spec: webSpec }),
    ),
  );
  const addresses = created.map((instance) => instance.status.nic?.ipAddress);
  expect(new Set(addresses).size).toBe(50);
  expect((await store.list("/allocations/cards/", { limit: 200 })).entries).toHaveLength(100);
  expect((await store.list("/volumes/", { limit: 100 })).entries).toHaveLength(50);
});

test("names that could be read as paths never reach the store", async () => {
  const { services } = await testServices();
  for (const name of ["", "a/b", "../x", "A", "a b", "-a", "a".repeat(64), "ä"]) {
    const ref = { project: "default", name };
    await expect(services.resources.get(system, keyPairKind, ref)).rejects.toMatchObject({ code: "Invalid" });
    await expect(
      services.resources.create(system, keyPairKind, { ...ref, spec: { publicKey } }),
    ).rejects.toMatchObject({ code: "Invalid" });
    const inProject = { project: name, name: "laptop" };
    await expect(services.resources.delete(system, keyPairKind, inProject)).rejects.toMatchObject({
      code: "Invalid",
    });
  }
});

test("apply creates, replaces, and commits nothing when nothing changes", async () => {
  const { services, store } = await testServices();
  const draft = { name: "one", spec: { cordoned: true } };
  const first = await services.resources.apply(system, hostKind, draft);
  expect(first.created).toBe(true);
  const before = await store.revision();
  const same = await services.resources.apply(system, hostKind, draft);
  expect(same).toEqual({ created: false, resource: first.resource });
  expect(await store.revision()).toBe(before);
  const labelled = await services.resources.apply(system, hostKind, { ...draft, labels: { rack: "a" } });
  expect(labelled.resource.metadata).toMatchObject({ generation: 1, labels: { rack: "a" } });
  const reset = await services.resources.apply(system, hostKind, { name: "one" });
  expect(reset.resource.metadata).toMatchObject({ generation: 2, labels: {} });
  expect(reset.resource.spec.cordoned).toBe(false);
});

test("an apply that does not say how often to restart leaves that alone", async () => {
  const { resources } = await withInstance();
  await resources.patch(system, instanceKind, web, { spec: { restarts: 3 } });
  const { resource } = await resources.apply(system, instanceKind, { ...web, spec: webSpec });
  expect(resource.spec.restarts).toBe(3);
});

test("patch merges, counts generations of the spec only, and refuses what cannot change", async () => {
  const { resources, store } = await withInstance();
  const labelled = await resources.patch(system, instanceKind, web, { labels: { tier: "front", x: "y" } });
  expect(labelled.metadata).toMatchObject({ generation: 1, labels: { tier: "front", x: "y" } });
  const stopped = await resources.patch(system, instanceKind, web, {
    labels: { x: null },
    spec: { power: "stopped" },
  });
  expect(stopped.metadata).toMatchObject({ generation: 2, labels: { tier: "front" } });
  const before = await store.revision();
  await resources.patch(system, instanceKind, web, { spec: { power: "stopped" } });
  expect(await store.revision()).toBe(before);
  await expect(
    resources.patch(system, instanceKind, web, { spec: { image: "other" } }),
  ).rejects.toMatchObject({ code: "Invalid", fields: [{ path: "spec.image", allowed: '"debian"' }] });
  await expect(resources.patch(system, instanceKind, web, { spec: { pwer: "x" } })).rejects.toMatchObject({
    fields: [{ path: "spec.pwer", message: expect.stringContaining("power") }],
  });
});

test("a revision that is not the current one is a conflict, for every verb that takes one", async () => {
  const { resources, instance } = await withInstance();
  const old = { ifRevision: instance.metadata.revision };
  const patched = await resources.patch(system, instanceKind, web, { labels: { a: "b" } }, old);
  const conflict = {
    code: "Conflict",
    message: expect.stringContaining(`at revision ${patched.metadata.revision}`),
  };
  await expect(resources.patch(system, instanceKind, web, { labels: { a: "c" } }, old)).rejects.toMatchObject(
    conflict,
  );
  await expect(resources.apply(system, instanceKind, { ...web, spec: webSpec }, old)).rejects.toMatchObject(
    conflict,
  );
  await expect(resources.delete(system, instanceKind, web, old)).rejects.toMatchObject(conflict);
  const { uid } = instance.metadata;
  await expect(
    resources.patchStatus(system, instanceKind, web, uid, { state: "running" }, old),
  ).rejects.toMatchObject(conflict);
  await expect(
    resources.apply(system, keyPairKind, { ...key, spec: { publicKey } }, { ifRevision: 5 }),
  ).rejects.toMatchObject({ code: "Conflict", message: expect.stringContaining("does not exist") });
});

test("concurrent patches of different fields are all kept", async () => {
  const { resources } = await withInstance();
  await Promise.all(
    Array.from({ length: 30 }, (_, i) =>
      resources.patch(system, instanceKind, web, { labels: { [`l${i}`]: "x" } }),
    ),
  );
  const { metadata } = await resources.require(system, instanceKind, web);
  expect(Object.keys(metadata.labels)).toHaveLength(30);
});

test("status: merged, checked, bound to the uid, and its fixed parts fixed", async () => {
  const { resources, instance, store } = await withInstance();
  const { uid, revision } = instance.metadata;
  const patch = (status: object, forUid: string = uid) =>
    resources.patchStatus(system, instanceKind, web, forUid, status as never);
  const placed = await patch({ host: "one", state: "starting" });
  expect(placed.metadata).toMatchObject({ generation: 1 });
  expect(placed.metadata.revision).toBeGreaterThan(revision);
  expect(placed.status).toMatchObject({ host: "one", state: "starting", nic: instance.status.nic });
  const before = await store.revision();
  await patch({ host: "one" });
  expect(await store.revision()).toBe(before);
  await expect(patch({ state: "flying" })).rejects.toMatchObject({ fields: [{ path: "status.state" }] });
  await expect(patch({ nic: { ipAddress: "10.0.0.9" } })).rejects.toMatchObject({
    fields: [{ path: "status.nic" }],
  });
  await expect(patch({ state: "running" }, "0000000000000000")).rejects.toMatchObject({ code: "NotFound" });
});

test("delete waits for finalizers, is repeatable, bars changes, and frees everything with the last one", async () => {
  const { resources, instance, store } = await withInstance();
  const { uid } = instance.metadata;
  await resources.patchStatus(system, instanceKind, web, uid, { host: "one" });
  const volumes = async () => (await store.list("/volumes/", { limit: 10 })).entries;
  const [volume] = await volumes();
  const marked = await resources.delete(system, instanceKind, web);
  expect(marked?.metadata).toMatchObject({ finalizers: ["agent"], deletedAt: expect.any(String) });
  expect(await volumes(), "the volume was never made, so it goes at once").toEqual([]);
  expect(volume).toBeDefined();
  const again = await resources.delete(system, instanceKind, web);
  expect(again?.metadata.deletedAt).toBe(marked?.metadata.deletedAt);
  await expect(
    resources.patch(system, instanceKind, web, { spec: { power: "stopped" } }),
  ).rejects.toMatchObject({ code: "Conflict" });
  await resources.removeFinalizer(system, instanceKind, web, "0000000000000000", "agent");
  await resources.removeFinalizer(system, instanceKind, web, uid, "other");
  expect(await resources.get(system, instanceKind, web)).toBeDefined();
  await resources.removeFinalizer(system, instanceKind, web, uid, "agent");
  expect(await resources.get(system, instanceKind, web)).toBeUndefined();
  expect((await store.list("/allocations/cards/", { limit: 10 })).entries).toEqual([]);
  await resources.removeFinalizer(system, instanceKind, web, uid, "agent");
  await expect(resources.delete(system, instanceKind, web)).rejects.toMatchObject({ code: "NotFound" });
});

test("what was never placed is gone at once, and its name and address are free", async () => {
  const { resources, store } = await withInstance();
  expect(await resources.delete(system, instanceKind, web)).toBeUndefined();
  for (const prefix of ["/instances/", "/volumes/", "/allocations/cards/"]) {
    expect((await store.list(prefix, { limit: 10 })).entries).toEqual([]);
  }
  const anew = await resources.create(system, instanceKind, { ...web, spec: webSpec });
  expect(anew.metadata.uid).not.toBe("");
});

test("a new instance gets a volume of its own while the old one's disk is still being removed", async () => {
  const { resources, instance, store } = await withInstance();
  const entries = (await store.list("/volumes/", { limit: 10 })).entries;
  const volume = entries[0]?.value as unknown as { metadata: { uid: string; name: string } };
  const { volumeKind } = await import("../kinds/volume.ts");
  const volumeRef = { project: "default", name: volume.metadata.name };
  await resources.patchStatus(system, volumeKind, volumeRef, volume.metadata.uid, { host: "one" });
  await resources.patchStatus(system, instanceKind, web, instance.metadata.uid, { host: "one" });
  await resources.delete(system, instanceKind, web);
  await resources.removeFinalizer(system, instanceKind, web, instance.metadata.uid, "agent");
  const anew = await resources.create(system, instanceKind, { ...web, spec: webSpec });
  const names = (await store.list("/volumes/default/", { limit: 10 })).entries.map((entry) => entry.key);
  expect(names).toHaveLength(2);
  expect(names).toContain("/volumes/default/web-root");
  await resources.delete(system, instanceKind, web);
  const left = (await store.list("/volumes/default/", { limit: 10 })).entries;
  expect(left.map((entry) => (entry.value as never as { metadata: { uid: string } }).metadata.uid)).toEqual([
    volume.metadata.uid,
  ]);
  expect(anew.metadata.uid).not.toBe(instance.metadata.uid);
});

test("a missing thing is told with one of a similar name", async () => {
  const { resources } = await withInstance();
  await expect(resources.require(system, instanceKind, { project: "default", name: "wbe" })).rejects.toThrow(
    'there is no instance "wbe" in project "default" (did you mean "web"?)',
  );
  await expect(resources.list(system, instanceKind, { project: "defualt" })).rejects.toThrow(
    'there is no project "defualt" (did you mean "default"?)',
  );
});

test("an idempotency key gives the same resource again for a day, and no other", async () => {
  const { services, clock } = await testServices();
  const create = (name: string, options: { idempotencyKey: string }) =>
    services.resources.create(system, keyPairKind, { ...key, name, spec: { publicKey } }, options);
  const first = await create("laptop", { idempotencyKey: "k1" });
  expect(await create("laptop", { idempotencyKey: "k1" })).toEqual(first);
  await expect(create("other", { idempotencyKey: "k1" })).rejects.toMatchObject({ code: "Conflict" });
  await expect(create("laptop", { idempotencyKey: "k2" })).rejects.toMatchObject({ code: "AlreadyExists" });
  await expect(create("laptop", { idempotencyKey: "\n" })).rejects.toMatchObject({ code: "Invalid" });
  const other = { name: "token:x", role: "member" as const, project: "default" };
  await expect(
    services.resources.create(other, keyPairKind, { ...key, spec: { publicKey } }, { idempotencyKey: "k1" }),
  ).rejects.toMatchObject({ code: "AlreadyExists" });
  await services.resources.delete(system, keyPairKind, key);
  await expect(create("laptop", { idempotencyKey: "k1" })).rejects.toMatchObject({ code: "NotFound" });
  await clock.advance(idempotencyTtlMs + 1);
  expect((await create("laptop", { idempotencyKey: "k1" })).metadata.uid).not.toBe(first.metadata.uid);
});

test("repeating one create at once, as after lost answers, makes one resource", async () => {
  const { services } = await testServices();
  const results = await Promise.all(
    Array.from({ length: 20 }, () =>
      services.resources.create(
        system,
        keyPairKind,
        { ...key, spec: { publicKey } },
        { idempotencyKey: "same" },
      ),
    ),
  );
  expect(new Set(results.map((result) => result.metadata.uid)).size).toBe(1);
});

test("prune forgets lapsed keys and keeps the others", async () => {
  const { services, clock, store } = await testServices();
  const create = (name: string) =>
    services.resources.create(
      system,
      keyPairKind,
      { ...key, name, spec: { publicKey } },
      { idempotencyKey: name },
    );
  for (let i = 0; i < 70; i++) await create(`old${i}`);
  await clock.advance(idempotencyTtlMs / 2);
  await create("young");
  await clock.advance(idempotencyTtlMs / 2 + 1);
  await services.prune();
  expect((await store.list("/idempotency/", { limit: 100 })).entries).toHaveLength(1);
});

test("leases are renewed by applying them", async () => {
  const { services, clock } = await testServices();
  const renew = () =>
    services.resources.apply(system, leaseKind, {
      name: "host-one",
      spec: { holder: "one", durationMs: 10_000, renewedAt: new Date(clock.now()).toISOString() },
    });
  const first = await renew();
  await clock.advance(5000);
  const second = await renew();
  expect(second.resource.metadata.uid).toBe(first.resource.metadata.uid);
  expect(second.resource.metadata.revision).toBeGreaterThan(first.resource.metadata.revision);
});

test("events are recorded in order, and a failure to record one is nobody's failure", async () => {
  const { services, clock, resources, instance } = await withInstance();
  for (const reason of ["Created", "Started"]) {
    await services.recordEvent(instance, { severity: "normal", reason, message: "x".repeat(2000) });
    await clock.advance(10);
  }
  const { items } = await resources.list(system, eventKind, { project: "default" });
  expect(items.map((item) => (item.spec as { reason: string }).reason)).toEqual(["Created", "Started"]);
  const orphan = { ...instance, metadata: { ...instance.metadata, project: "gone" } };
  await services.recordEvent(orphan, { severity: "warning", reason: "Lost", message: "nobody hears this" });
});
