import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { VirtualClock } from "../core/virtual-clock.ts";
import type { CgroupLayout } from "./cgroups.ts";
import { type CgroupKernel, openCgroups } from "./kernel-cgroups.ts";

/** Files that the kernel makes in each new group, by hierarchy. */
const files: Record<string, Record<string, string>> = {
  cpu: { "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1" },
  "cpu,cpuacct": { "cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1", "cpuacct.usage": "0" },
  cpuacct: { "cpuacct.usage": "0" },
  memory: {
    "memory.limit_in_bytes": "9223372036854771712",
    "memory.memsw.limit_in_bytes": "9223372036854771712",
    "memory.usage_in_bytes": "0",
  },
  pids: { "pids.max": "max", "pids.current": "0" },
  freezer: { "freezer.state": "THAWED" },
  unified: { "cgroup.events": "populated 0\nfrozen 0\n", "cgroup.kill": "", "cgroup.controllers": "" },
  v2: {
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cgroup.kill": "",
    "cgroup.controllers": "cpu memory pids",
    "cgroup.subtree_control": "",
    "cpu.max": "max 100000",
    "cpu.stat": "usage_usec 1234\nuser_usec 1000\n",
    "memory.max": "max",
    "memory.high": "max",
    "memory.swap.max": "max",
    "memory.current": "4096",
    "pids.max": "max",
    "pids.current": "2",
  },
};

const hierarchiesOf: Record<CgroupLayout, string[]> = {
  v1: ["cpu,cpuacct", "memory", "pids", "freezer"],
  hybrid: ["cpu", "cpuacct", "memory", "pids", "freezer", "unified"],
  v2: ["v2"],
};

/** A directory tree that behaves like the kernel's where it matters. */
class FakeTree implements CgroupKernel {
  readonly root = mkdtempSync(join(tmpdir(), "strata-cgroups-"));
  readonly layout: CgroupLayout;
  readonly killed: number[] = [];
  immortal = false;

  constructor(layout: CgroupLayout) {
    this.layout = layout;
    for (const name of hierarchiesOf[layout]) {
      const path = name === "v2" ? this.root : join(this.root, name);
      mkdirSync(path, { recursive: true });
      this.#fill(path, name);
    }
  }

  async mkdir(path: string): Promise<void> {
    mkdirSync(path);
    this.#fill(path, this.#hierarchyOf(path));
  }

  async rmdir(path: string): Promise<void> {
    const entries = readdirSync(path); // ENOENT as the kernel
    if (
      entries.some((entry) => statSync(join(path, entry)).isDirectory()) ||
      this.read(path, "cgroup.procs")
    ) {
      throw Object.assign(new Error("busy"), { code: "EBUSY" });
    }
    rmSync(path, { recursive: true });
  }

  kill(pid: number): void {
    this.killed.push(pid);
    if (!this.immortal) this.#remove(this.root, pid);
  }

  read(...path: string[]): string {
    return readFileSync(join(...path), "utf8");
  }

  /** A hierarchy's path on this tree, whatever the layout. */
  at(controller: string, ...path: string[]): string {
    const name = hierarchiesOf[this.layout].find(
      (entry) => entry === "v2" || entry.split(",").includes(controller),
    );
    return join(this.root, name === "v2" || name === undefined ? "" : name, ...path);
  }

  #remove(path: string, pid: number): void {
    for (const entry of readdirSync(path, { withFileTypes: true })) {
      const child = join(path, entry.name);
      if (entry.isDirectory()) this.#remove(child, pid);
      else if (entry.name === "cgroup.procs") {
        writeFileSync(child, readFileSync(child, "utf8").replace(new RegExp(`^${pid}\n`, "m"), ""));
      }
    }
  }

  #fill(path: string, hierarchy: string): void {
    writeFileSync(join(path, "cgroup.procs"), "");
    for (const [name, text] of Object.entries(files[hierarchy] ?? {})) writeFileSync(join(path, name), text);
  }

  #hierarchyOf(path: string): string {
    if (this.layout === "v2") return "v2";
    let top = path;
    while (dirname(top) !== this.root) top = dirname(top);
    return top.slice(this.root.length + 1);
  }
}

const group = "strata/0123456789abcdef";

describe.each<CgroupLayout>(["v2", "hybrid", "v1"])("cgroups on a %s host", (layout) => {
  let tree: FakeTree;
  beforeEach(() => {
    tree = new FakeTree(layout);
  });
  afterEach(() => rmSync(tree.root, { recursive: true, force: true }));
  const open = () => openCgroups({ clock: systemClock, root: tree.root, kernel: tree });

  test("finds the layout", async () => {
    expect((await open()).layout).toBe(layout);
  });

  test("refuses less memory than is in use, as the kernel does by itself in version 1", async () => {
    const cgroups = await open();
    await cgroups.ensure(group, { memoryMib: 64 });
    if (layout !== "v2") return;
    writeFileSync(join(tree.root, group, "memory.current"), String(40 * 1024 ** 2));
    await expect(cgroups.ensure(group, { memoryMib: 32 })).rejects.toMatchObject({ code: "Conflict" });
    expect(tree.read(tree.root, group, "memory.max")).toBe(String(64 * 1024 ** 2));
    expect(tree.read(tree.root, group, "memory.high")).toBe("max");
    await cgroups.ensure(group, { memoryMib: 48 });
    expect(tree.read(tree.root, group, "memory.max")).toBe(String(48 * 1024 ** 2));
  });

  test("sets each limit, and takes it away again when it is left out", async () => {
    const cgroups = await open();
    await cgroups.ensure(group, { cpus: 1.5, memoryMib: 64, processes: 99 });
    const limits = () =>
      layout === "v2"
        ? ["cpu.max", "memory.max", "memory.swap.max", "pids.max"].map((file) =>
            tree.read(tree.root, group, file),
          )
        : [
            tree.read(tree.at("cpu", group, "cpu.cfs_quota_us")),
            tree.read(tree.at("memory", group, "memory.limit_in_bytes")),
            tree.read(tree.at("memory", group, "memory.memsw.limit_in_bytes")),
            tree.read(tree.at("pids", group, "pids.max")),
          ];
    expect(limits()).toEqual(
      layout === "v2" ? ["150000 100000", "67108864", "0", "99"] : ["150000", "67108864", "67108864", "99"],
    );
    await cgroups.ensure(`/${group}`, {});
    expect(limits()).toEqual(
      layout === "v2" ? ["max 100000", "max", "max", "max"] : ["-1", "-1", "-1", "max"],
    );
  });

  test("says where a process enters", async () => {
    const cgroups = await open();
    await cgroups.ensure(group, {});
    const expected = hierarchiesOf[layout].filter((name) => name !== "freezer");
    expect(cgroups.procsFiles(group).sort()).toEqual(
      expected.map((name) => join(tree.root, name === "v2" ? "" : name, group, "cgroup.procs")).sort(),
    );
    for (const file of cgroups.procsFiles(group)) expect(tree.read(file)).toBe("");
  });

  test("finds processes in sub-groups, and kills them all", async () => {
    const cgroups = await open();
    await cgroups.ensure(group, { processes: 5 });
    const inner = tree.at(layout === "hybrid" ? "unified" : "pids", group, "payload");
    await tree.mkdir(inner);
    writeFileSync(join(inner, "cgroup.procs"), "400\n401\n");
    expect((await cgroups.pids(group)).sort()).toEqual([400, 401]);
    if (layout !== "v1") return; // there the kernel does it: see e2e
    await cgroups.kill(group);
    expect(tree.killed.sort()).toEqual([400, 401]);
    expect(tree.read(tree.at("pids", group, "pids.max"))).toBe("5");
  });

  test("removes a group from every hierarchy, also from those where others made it", async () => {
    const cgroups = await open();
    await cgroups.ensure(group, {});
    if (layout !== "v2") {
      await tree.mkdir(tree.at("freezer", "strata"));
      await tree.mkdir(tree.at("freezer", group));
    }
    await tree.mkdir(tree.at("memory", group, "payload"));
    await tree.mkdir(tree.at("memory", group, "payload", "deeper"));
    expect(await cgroups.list("strata")).toEqual(["0123456789abcdef"]);
    await cgroups.remove(group);
    await cgroups.remove(group);
    expect(await cgroups.list("strata")).toEqual([]);
    expect(await cgroups.pids(group)).toEqual([]);
    expect(await cgroups.isPopulated(group)).toBe(false);
  });

  test("refuses to remove a group with processes", async () => {
    const cgroups = await open();
    await cgroups.ensure(group, {});
    const tracking = tree.at(layout === "hybrid" ? "unified" : "pids", group);
    writeFileSync(join(tracking, "cgroup.procs"), "400\n");
    if (layout !== "v1") writeFileSync(join(tracking, "cgroup.events"), "populated 1\n");
    await expect(cgroups.remove(group)).rejects.toMatchObject({ code: "Conflict" });
  });

  test("tells what is used, and NotFound for an absent group", async () => {
    const cgroups = await open();
    await expect(cgroups.usage(group)).rejects.toMatchObject({ code: "NotFound" });
    await cgroups.ensure(group, {});
    expect(await cgroups.usage(group)).toEqual(
      layout === "v2"
        ? { memoryBytes: 4096, cpuMicros: 1234, processes: 2 }
        : { memoryBytes: 0, cpuMicros: 0, processes: 0 },
    );
  });

  test.each(["", "..", "a/../b", "a//b", "-a", "a b", "a\nb", "a/"])("refuses %j as a name", async (name) => {
    const cgroups = await open();
    await expect(cgroups.ensure(name, {})).rejects.toMatchObject({ code: "Invalid" });
    expect(() => cgroups.procsFiles(name)).toThrow(expect.objectContaining({ code: "Invalid" }));
  });
});

test("on v2, controllers are enabled in every group above, and not in the group itself", async () => {
  const tree = new FakeTree("v2");
  const cgroups = await openCgroups({ clock: systemClock, root: tree.root, kernel: tree });
  await cgroups.ensure(group, {});
  expect(tree.read(tree.root, "cgroup.subtree_control")).toBe("+cpu +memory +pids");
  expect(tree.read(tree.root, "strata", "cgroup.subtree_control")).toBe("+cpu +memory +pids");
  expect(tree.read(tree.root, group, "cgroup.subtree_control")).toBe("");
  rmSync(tree.root, { recursive: true });
});

test("processes that cannot be killed are reported, with the limit of processes as it was", async () => {
  const tree = new FakeTree("v1");
  tree.immortal = true;
  const clock = new VirtualClock();
  const cgroups = await openCgroups({ clock, root: tree.root, kernel: tree });
  await cgroups.ensure(group, { processes: 7 });
  writeFileSync(tree.at("pids", group, "cgroup.procs"), "400\n");
  let outcome: unknown;
  const killing = cgroups.kill(group).catch((error: unknown) => {
    outcome = error;
  });
  while (outcome === undefined) await clock.advance(1_000);
  await killing;
  expect(outcome).toMatchObject({ code: "Timeout" });
  expect(tree.read(tree.at("pids", group, "pids.max"))).toBe("7");
  rmSync(tree.root, { recursive: true });
});

test("on v1, a change of the population is seen by looking once a second", async () => {
  const tree = new FakeTree("v1");
  const clock = new VirtualClock();
  const cgroups = await openCgroups({ clock, root: tree.root, kernel: tree });
  await cgroups.ensure(group, {});
  const seen: boolean[] = [];
  const end = cgroups.watch(group, (populated) => seen.push(populated));
  const until = async (count: number) => {
    while (seen.length < count) await clock.advance(100);
  };
  writeFileSync(tree.at("pids", group, "cgroup.procs"), "");
  while (clock.nextAt() === undefined) await clock.advance(0);
  writeFileSync(tree.at("pids", group, "cgroup.procs"), "400\n");
  await until(1);
  writeFileSync(tree.at("pids", group, "cgroup.procs"), "");
  await until(2);
  end();
  expect(seen).toEqual([true, false]);
  expect(clock.nextAt()).toBeUndefined();
  rmSync(tree.root, { recursive: true });
});

test("on a host without cgroups or without a needed controller, says what is missing", async () => {
  const root = mkdtempSync(join(tmpdir(), "strata-cgroups-"));
  await expect(openCgroups({ clock: systemClock, root })).rejects.toMatchObject({ code: "Unavailable" });
  mkdirSync(join(root, "pids"));
  writeFileSync(join(root, "pids", "cgroup.procs"), "");
  await expect(openCgroups({ clock: systemClock, root })).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining("controller cpu"),
  });
  rmSync(root, { recursive: true });
});
