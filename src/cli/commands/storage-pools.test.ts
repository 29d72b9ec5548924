import { beforeEach, expect, test } from "vitest";
import type { JsonObject } from "../../core/json.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { snapshotKind } from "../../kinds/snapshot.ts";
import type { HostPool } from "../../kinds/storage-pool.ts";
import { volumeKind } from "../../kinds/volume.ts";
import { TestTerminal } from "../test-terminal.ts";

const here: HostPool = {
  state: "ready",
  message: "",
  prepared: true,
  fileSystem: "xfs",
  reflink: true,
  capacityMib: 1000,
  usedMib: 850,
  freeMib: 150,
  allocatedMib: 1200,
  promisedMib: 1500,
  full: false,
};

let terminal: TestTerminal;
beforeEach(() => {
  terminal = new TestTerminal();
  terminal.client.react = look;
});

/** An agent that finds every directory but those with `none` in their path. */
function look(resource: Resource): Resource | undefined {
  if (resource.metadata.deletedAt) return undefined;
  if (resource.kind !== "StoragePool") return resource;
  const { path } = resource.spec as { path: string };
  const before = resource.status as object;
  const status = path.includes("none")
    ? { ...before, state: "failed", message: `${path} does not exist; make the directory first` }
    : { ...before, state: "ready", message: "", hosts: { alpha: here } };
  return { ...resource, status };
}

const names = () => [...terminal.client.resources.keys()];

test("a pool is created, listed, shown, changed and deleted", async () => {
  const created = await terminal.run("pool", "create", "fast", "/srv/fast", "--max-overcommit", "1.5");
  expect([created.status, created.err]).toEqual([0, ""]);
  expect(created.out).toMatch(/fast +ready +1000 MiB/);

  const { out: list } = await terminal.run("pool", "list");
  expect(list).toContain("█████████░ 850 MiB (85 %)");
  expect(list).toContain("1.2 GiB (120 %)");
  expect(list).toContain("1.5 GiB (150 %)");

  const { out: shown } = await terminal.run("pool", "show", "fast");
  expect(shown).toContain("may promise: 1.5 times its capacity");
  expect(shown).toContain("xfs: snapshots share blocks");
  expect(shown).toMatch(/promised +1\.5 GiB +██████████ +150 %/);
  expect(shown).toContain("150 MiB can be written, which is little");
  const json = JSON.parse((await terminal.run("pool", "show", "fast", "--json")).out);
  expect(json.status.hosts.alpha).toMatchObject({ allocatedMib: 1200 });

  const set = await terminal.run("pool", "set", "fast", "--warn-percent", "90", "--json");
  expect(JSON.parse(set.out).spec).toMatchObject({ warnPercent: 90, maxOvercommit: 1.5 });
  expect((await terminal.run("pool", "delete", "fast", "--yes")).status).toBe(0);
  expect(names()).toEqual([]);
});

test("what cannot be a pool is said, and nothing stays", async () => {
  const { status, err } = await terminal.run("pool", "create", "fast", "/srv/none");
  expect(status).not.toBe(0);
  expect(err).toContain(
    'cannot create storage pool "fast": /srv/none does not exist; make the directory first',
  );
  expect(names()).toEqual([]);
});

async function pooled(name: string, spec: object, kind = volumeKind as Kind): Promise<void> {
  const { client } = terminal;
  client.react = (resource) =>
    resource.kind === kind.name
      ? { ...resource, status: { ...(resource.status as object), pool: "fast" } }
      : look(resource);
  await client.asClient().create(kind, { name, project: "school", spec: spec as JsonObject });
  client.react = (resource) => (resource.metadata.deletedAt ? undefined : resource);
}

test("a lost pool goes with all that was in it, once nothing stands against it and somebody has said yes", async () => {
  await terminal.run("pool", "create", "fast", "/srv/fast");
  await pooled("records", { sizeMib: 64, protected: true });
  await pooled("monday", { volume: "records" }, snapshotKind as Kind);
  const all = names();
  const refused = await terminal.run("pool", "delete", "fast", "--lost", "--yes");
  expect(refused.err).toContain(
    'volume "records" of project "school" is protected (strata volume protect records --off)',
  );
  expect(names()).toEqual(all);
  await terminal.run("volume", "protect", "records", "--off", "-p", "school");

  const unsaid = await terminal.run("pool", "delete", "fast", "--lost");
  expect(unsaid.status).not.toBe(0);
  expect(names()).toEqual(all);
  const done = await terminal.run("pool", "delete", "fast", "--lost", "--yes");
  expect([done.status, done.err]).toEqual([0, ""]);
  expect(names()).toEqual([]);
});

test("what was said to be lost may be taken back", async () => {
  await terminal.run("pool", "create", "fast", "/srv/fast");
  await terminal.run("pool", "set", "fast", "--lost", "yes");
  expect((await terminal.run("pool", "show", "fast")).out).toContain("lost: it will not come back");
  const back = await terminal.run("pool", "set", "fast", "--lost", "no", "--json");
  expect(JSON.parse(back.out).spec.lost).toBe(false);
});

test("numbers are numbers", async () => {
  expect((await terminal.run("pool", "create", "a", "/srv/a", "--warn-percent", "much")).err).toContain(
    '--warn-percent must be a number, not "much"',
  );
  await terminal.run("pool", "create", "a", "/srv/a");
  expect((await terminal.run("pool", "set", "a")).err).toContain("say what to set");
});
