import { describe, expect, test } from "vitest";
import type { FieldError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { snapshotKind } from "../kinds/snapshot.ts";
import { type HostPool, type StoragePool, storagePoolKind } from "../kinds/storage-pool.ts";
import { volumeKind } from "../kinds/volume.ts";
import { systemPrincipal as system } from "./principal.ts";
import { testServices } from "./testing.ts";

const hostPool = {
  state: "ready",
  message: "",
  prepared: true,
  fileSystem: "xfs",
  reflink: true,
  capacityMib: 1000,
  usedMib: 100,
  freeMib: 900,
  allocatedMib: 0,
  promisedMib: 0,
  full: false,
};

async function start() {
  const { services } = await testServices();
  const { resources } = services;
  const ref = (name: string) => ({ project: "default", name });
  return {
    pool: (name: string, spec: object) => resources.create(system, storagePoolKind, { name, spec }),
    ready: (pool: StoragePool, change: Partial<HostPool> = {}) =>
      resources.patchStatus(system, storagePoolKind, { name: pool.metadata.name }, pool.metadata.uid, {
        state: "ready",
        hosts: { alpha: { ...hostPool, ...change } as JsonObject },
      }),
    dropPool: (name: string) => resources.delete(system, storagePoolKind, { name }),
    volume: (name: string, spec: object) =>
      resources.create(system, volumeKind, {
        ...ref(name),
        spec: { sizeMib: 512, fileSystem: "ext4", ...spec },
      }),
    grow: (name: string, sizeMib: number) =>
      resources.patch(system, volumeKind, ref(name), { spec: { sizeMib } }),
    dropVolume: (name: string) => resources.delete(system, volumeKind, ref(name)),
    snapshot: async (volume: string, name: string) => {
      const { metadata } = await resources.require(system, volumeKind, ref(volume));
      const uid = metadata.uid;
      await resources.patchStatus(system, volumeKind, ref(volume), uid, { host: "alpha" });
      const made = await resources.create(system, snapshotKind, { ...ref(name), spec: { volume } });
      const taken = { state: "ready" as const };
      return resources.patchStatus(system, snapshotKind, ref(name), made.metadata.uid, taken);
    },
  };
}

async function refusal(attempt: Promise<unknown>): Promise<string> {
  const error = (await attempt.then(
    () => ({ code: "none", message: "it was accepted", fields: [] }),
    (failure) => failure,
  )) as { code: string; message: string; fields: FieldError[] };
  const fields = error.fields.map(({ path, message }) => `${path} ${message}`);
  return [error.code, error.message, ...fields].join("; ");
}

describe("the path of a pool", () => {
  test.each([
    "srv/fast",
    "/srv/../etc",
    "/srv//fast",
    "/srv/fast/",
    "/",
    "/srv/./fast",
    "/srv/a b",
    "/srv/a\nb",
  ])("is refused: %j", async (path) => {
    const { pool } = await start();
    expect(await refusal(pool("fast", { path }))).toMatch(/^Invalid; .*spec\.path must be an absolute path/s);
  });

  test("is apart from those of other pools, whoever of two comes first", async () => {
    const { pool } = await start();
    await pool("fast", { path: "/srv/fast" });
    expect(await refusal(pool("same", { path: "/srv/fast" }))).toContain(
      'is the directory of storage pool "fast"',
    );
    expect(await refusal(pool("inner", { path: "/srv/fast/x" }))).toContain('is inside storage pool "fast"');
    expect(await refusal(pool("outer", { path: "/srv" }))).toContain('holds storage pool "fast"');
    await pool("beside", { path: "/srv/faster" });
    const both = await Promise.allSettled([pool("a", { path: "/mnt/a" }), pool("b", { path: "/mnt/a/b" })]);
    expect(both.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
  });
});

describe("a volume in a pool", () => {
  test("needs one that is there and ready", async () => {
    const { pool, ready, volume } = await start();
    expect(await refusal(volume("a", { pool: "fast" }))).toContain("not among the storage pools");
    const fast = await pool("fast", { path: "/srv/fast" });
    expect(await refusal(volume("a", { pool: "fast" }))).toMatch(
      /^Unavailable; .*not ready: waiting for a host/,
    );
    await ready(fast);
    expect((await volume("a", { pool: "fast" })).status.pool).toBe("fast");
  });

  test("is refused where more would be promised than the pool may, with the numbers; what is deleted makes room", async () => {
    const { pool, ready, volume, grow, dropVolume } = await start();
    await ready(await pool("fast", { path: "/srv/fast", maxOvercommit: 1.5 }));
    await volume("a", { pool: "fast", sizeMib: 1024 });
    const message = await refusal(volume("b", { pool: "fast" }));
    expect(message).toMatch(/^CapacityExceeded; /);
    expect(message).toContain(
      'storage pool "fast" has 1000 MiB and may promise 1.5 GiB (1.5 times that), 1 GiB are promised, and this asks for 512 MiB',
    );
    await grow("a", 1500);
    expect(await refusal(grow("a", 1501))).toMatch(/^CapacityExceeded; .*asks for 1 MiB/);
    await volume("outside", { sizeMib: 100_000 });
    await dropVolume("a");
    await volume("b", { pool: "fast", sizeMib: 1500 });
  });

  test("never promises the same room twice", async () => {
    const { pool, ready, volume } = await start();
    await ready(await pool("fast", { path: "/srv/fast", maxOvercommit: 1 }));
    const names = ["a", "b", "c", "d"];
    const all = await Promise.allSettled(names.map((name) => volume(name, { pool: "fast", sizeMib: 400 })));
    expect(all.filter(({ status }) => status === "fulfilled")).toHaveLength(2);
  });

  test("that takes all its space at once needs it now, and a file system that writes in place", async () => {
    const { pool, ready, volume } = await start();
    const fast = await pool("fast", { path: "/srv/fast" });
    await ready(fast, { freeMib: 500 });
    expect(await refusal(volume("a", { pool: "fast", allocation: "full" }))).toMatch(
      /^CapacityExceeded; .*has 500 MiB free.*512 MiB at once/,
    );
    await ready(fast, { fileSystem: "btrfs" });
    expect(await refusal(volume("a", { pool: "fast", allocation: "full" }))).toMatch(/^Unsupported; .*btrfs/);
    await volume("a", { pool: "fast" });
  });
});

test("a pool stays while a volume or a snapshot is in it; what is made of a snapshot lies beside it", async () => {
  const { pool, ready, volume, snapshot, dropPool, dropVolume } = await start();
  await ready(await pool("fast", { path: "/srv/fast" }));
  await volume("a", { pool: "fast" });
  expect((await snapshot("a", "monday")).status.pool).toBe("fast");
  const clone = await volume("clone", { source: { snapshot: "monday" } });
  expect(clone.status).toMatchObject({ pool: "fast", host: "alpha" });
  const message = await refusal(dropPool("fast"));
  expect(message).toMatch(/^Conflict; /);
  for (const user of ['volume "a"', 'volume "clone"', 'snapshot "monday"']) expect(message).toContain(user);
  await dropVolume("a");
  expect(await refusal(dropPool("fast"))).toContain('volume "a"');
});
