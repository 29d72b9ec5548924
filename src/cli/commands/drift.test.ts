import { beforeEach, expect, test } from "vitest";
import type { Difference, DriftReport } from "../../kinds/drift.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind } from "../../kinds/kind.ts";
import { TestTerminal } from "../test-terminal.ts";
import { foldDifferences } from "./drift.ts";

const plain = (
  change: Difference["change"],
  path: string,
  type: Difference["type"] = "file",
): Difference => ({
  ...{ path, change, type, aspects: change === "changed" ? ["content"] : [] },
});

let terminal: TestTerminal;
beforeEach(() => {
  terminal = new TestTerminal();
  for (const name of ["web", "db", "new"]) {
    terminal.client.seed(instanceKind as Kind, {
      ...{ name, project: "default" },
      spec: { type: "container", image: "debian" },
    });
  }
  const report: DriftReport = {
    imageDigest: "sha256:0",
    at: "2026-11-28T12:00:00Z",
    reading: "idle",
    differences: [],
  };
  terminal.client.drifts.set("db", report);
  terminal.client.drifts.set("web", {
    ...{ ...report, reading: "paused" },
    differences: [
      { ...plain("changed", "/etc/hosts"), usual: "identity of the machine" },
      plain("changed", "/etc/motd"),
      plain("added", "/srv/www", "directory"),
      plain("added", "/srv/www/index"),
    ],
  });
});

test("what every guest makes is hidden, and counted; a new directory stands for what is in it", async () => {
  const { out, err, status } = await terminal.run("instance", "drift", "web");
  expect(status).toBe(0);
  expect(out).toMatch(/changed +\/etc\/motd +content/);
  expect(out).toMatch(/added +\/srv\/www +directory, and 1 below/);
  expect(out).not.toContain("/etc/hosts");
  expect(err).toMatch(
    /not written to its disk yet is missing; 1 that every guest makes are not shown \(--all\)/,
  );
});

test("--all shows each path, with the rule that knows it", async () => {
  const { out } = await terminal.run("instance", "drift", "web", "--all");
  expect(out).toMatch(/\/etc\/hosts +content +identity of the machine/);
  expect(out).toContain("/srv/www/index");
});

test("a report that is cut off says so", async () => {
  const report = terminal.client.drifts.get("web");
  if (report) terminal.client.drifts.set("web", { ...report, more: 12 });
  const { err } = await terminal.run("instance", "drift", "web");
  expect(err).toContain("the first 4 differences by path; there are 12 more");
});

test("--json is the report, without what is hidden", async () => {
  const read = async (...args: string[]) =>
    (JSON.parse((await terminal.run("instance", "drift", "web", "--json", ...args)).out) as DriftReport)
      .differences;
  expect((await read()).map(({ path }) => path)).toEqual(["/etc/motd", "/srv/www", "/srv/www/index"]);
  expect(await read("--all")).toHaveLength(4);
});

test("an unchanged instance is said to be so; one without a root is an error", async () => {
  expect((await terminal.run("instance", "drift", "db")).err).toContain("db is as its image");
  const { status, err } = await terminal.run("instance", "drift", "new");
  expect(status).not.toBe(0);
  expect(err).toContain("no root to look at");
});

test("a directory stands for what is below it, and for nothing else", () => {
  const folded = foldDifferences([
    plain("added", "/a", "directory"),
    plain("added", "/a/b", "directory"),
    plain("added", "/a/b/c"),
    plain("added", "/ab"),
    plain("removed", "/x", "directory"),
    plain("removed", "/x/y"),
    plain("changed", "/z", "directory"),
    plain("added", "/z/new"),
  ]);
  expect(folded.map(({ path, below }) => [path, below])).toEqual([
    ["/a", 2],
    ["/ab", 0],
    ["/x", 1],
    ["/z", 0],
    ["/z/new", 0],
  ]);
});
