import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Resource } from "../../kinds/kind.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(async () => {
  terminal = new TestTerminal();
  terminal.env = { STRATA_PROJECT: "campus" };
  terminal.cwd = await mkdtemp(join(tmpdir(), "volumes-"));
  terminal.client.react = settle;
  for (const name of ["web", "db"]) {
    terminal.client.resources.set(`/instances/campus/${name}`, {
      kind: "Instance",
      metadata: {
        name,
        project: "campus",
        uid: `${name}0000000000000000`.slice(0, 16) as Uid,
        revision: 1,
        generation: 1,
        labels: {},
        createdAt: "2026-11-28T12:00:00Z",
        finalizers: [],
      },
      spec: instanceKind.spec.parse({ type: "container", image: "debian" }),
      status: { ...instanceKind.initialStatus(), state: "running" },
    });
  }
});
afterEach(() => rm(terminal.cwd, { recursive: true }));

/** An agent that does everything at once. */
function settle(resource: Resource): Resource | undefined {
  if (resource.metadata.deletedAt) return undefined;
  const { instance, sizeMib } = resource.spec as { instance?: string; sizeMib?: number };
  const status = {
    ...(resource.status as object),
    message: "",
    observedGeneration: resource.metadata.generation,
  };
  if (resource.kind === "Snapshot") {
    const taken = {
      sizeMib: 1024,
      fileSystem: "ext4",
      consistency: "crash",
      takenAt: "2026-11-28T12:00:00Z",
    };
    return { ...resource, status: { ...status, state: "ready", ...taken } };
  }
  if (resource.kind !== "Volume") return resource;
  const state = instance === undefined ? "available" : "attached";
  return { ...resource, status: { ...status, state, sizeMib } };
}

async function ok(...args: string[]) {
  const result = await terminal.run(...args);
  expect(result).toMatchObject({ status: 0 });
  return result;
}

const spec = (name: string) => terminal.client.resources.get(`/volumes/campus/${name}`)?.spec;

test("a volume is created, attached, grown, detached and deleted", async () => {
  await ok("volume", "create", "records", "--size", "1GiB", "--path", "/srv/records");
  expect(spec("records")).toMatchObject({ sizeMib: 1024, fileSystem: "ext4", path: "/srv/records" });
  const attached = await ok("volume", "attach", "records", "web");
  expect(attached.out).toContain("attached");
  expect(attached.err).toContain("/srv/records");
  const taken = await terminal.run("volume", "attach", "records", "db");
  expect(taken.status).toBe(4);
  expect(taken.err).toContain("`strata volume detach records` takes it off");
  await ok("volume", "grow", "records", "2GiB");
  expect(spec("records")).toMatchObject({ sizeMib: 2048, instance: "web" });
  expect((await ok("volume", "detach", "records")).out).toContain("available");
  await ok("volume", "protect", "records");
  expect(spec("records")).toMatchObject({ protected: true });
  await ok("volume", "protect", "records", "--off");
  await ok("volume", "delete", "records", "--yes");
  expect(spec("records")).toBeUndefined();
});

test("a volume needs a size, and may go without a file system", async () => {
  const { status, err } = await terminal.run("volume", "create", "records");
  expect(status).not.toBe(0);
  expect(err).toContain("20GiB");
  await ok("volume", "create", "empty", "--size", "64MiB", "--file-system", "none");
  expect(spec("empty")).not.toHaveProperty("fileSystem");
});

test("a snapshot says when nobody was frozen for it, and becomes a volume of its size", async () => {
  await ok("volume", "create", "records", "--size", "1GiB", "--instance", "web");
  const { err, out } = await ok("snapshot", "create", "records", "monday");
  expect(err).toContain("as a disk is after a power cut");
  expect(out).toContain("crash");
  await ok("snapshot", "restore", "monday", "again");
  expect(spec("again")).toMatchObject({ sizeMib: 1024, fileSystem: "ext4", source: { snapshot: "monday" } });
  await ok("snapshot", "restore", "monday", "larger", "--size", "4GiB", "--instance", "db");
  expect(spec("larger")).toMatchObject({ sizeMib: 4096, instance: "db" });
  expect((await ok("snapshot", "list")).out).toContain("records");
  expect((await ok("volume", "list")).out).toContain("larger");
});
