import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { JsonObject } from "../../core/json.ts";
import { groupKind } from "../../kinds/group.ts";
import { hostKind } from "../../kinds/host.ts";
import type { Kind } from "../../kinds/kind.ts";
import { calendarPolicy } from "../../kinds/scaling/testing-groups.ts";
import { TestTerminal } from "../test-terminal.ts";

let terminal: TestTerminal;
beforeEach(async () => {
  terminal = new TestTerminal();
  terminal.env = { STRATA_PROJECT: "campus" };
  terminal.cwd = await mkdtemp(join(tmpdir(), "plan-"));
});
afterEach(() => rm(terminal.cwd, { recursive: true }));

function group(name: string, fields: object, project = "campus") {
  const template = { type: "container", image: "debian", cpus: 1, memoryMib: 1024 };
  terminal.client.seed(groupKind as Kind, {
    name,
    project,
    spec: { template, max: 10, ...(fields as JsonObject) },
  });
}

function host(cpus: number) {
  const allocatable = { cpus, memoryMib: 64 * 1024, diskMib: 1 };
  const draft = { name: "alpha", spec: { cpuOvercommit: 2 } };
  terminal.client.seed(hostKind as Kind, draft, { state: "ready", allocatable });
}

const rush = { name: "rush", every: "year", from: "09-01", until: "10-01", min: 3 };
function campus() {
  host(2);
  group("enrollment", { priority: 10, policies: [calendarPolicy("terms", [rush])] });
  group("lms", { desired: 3 });
}

const year = ["--from", "2026-01-01", "--until", "2027-01-01"];

test("a table of what changes when and why", async () => {
  campus();
  const { status, out } = await terminal.run("group", "plan", ...year);
  expect(status).toBe(0);
  expect(
    out,
  ).toBe(`2026-01-01 00:00 to 2027-01-01 00:00 (Europe/Berlin); the hosts have 4 CPUs and 64 GiB for groups

WHEN              GROUP       MEMBERS  WHY
2026-01-01 00:00  enrollment  1        at first
2026-01-01 00:00  lms         3        at first
2026-09-01 00:00  enrollment  1 → 3    terms/rush begins
2026-09-01 00:00  lms         3 → 1    lends 2 to enrollment
2026-10-01 00:00  enrollment  3 → 1    terms/rush ends
2026-10-01 00:00  lms         1 → 3    gets 2 back from enrollment

Conflicts, minimums that the hosts cannot hold: none
Lent:
FROM              UNTIL             GROUP  LENDS  TO
2026-09-01 00:00  2026-10-01 00:00  lms    2      enrollment
Unused: 0 CPUs and 60 GiB on average, at least 0 CPUs and 60 GiB (2026-01-01 00:00)
`);
});

test("what comes every day is one row, and conflicts are told", async () => {
  host(1);
  const office = { name: "office", every: "day", from: "08:00", until: "18:00", min: 3 };
  group("shop", { policies: [calendarPolicy("hours", [office])] });
  const { out } = await terminal.run("group", "plan", "--from", "2026-01-01", "--until", "2026-01-11");
  expect(out).toContain(
    "2026-01-01 08:00  shop   1 → 2    hours/office begins; needs 3  9 more, last 2026-01-10 08:00",
  );
  expect(out).toMatch(
    /2026-01-01 08:00 {2}2026-01-01 18:00 {2}shop {3}3 {8}2 {5}9 more, last 2026-01-10 08:00/,
  );
});

test("groups of other projects take their part, and only those asked for are shown", async () => {
  campus();
  group("batch", { min: 2, priority: 50 }, "other");
  const { out } = await terminal.run("group", "plan", "lms", ...year, "--json");
  const plan = JSON.parse(out);
  expect(plan.groups).toHaveLength(1);
  expect(plan.groups[0].segments.map(({ from, granted }: JsonObject) => [from, granted])).toEqual([
    ["2025-12-31T23:00:00.000Z", 1],
  ]);
  expect(plan.capacity).toEqual({ cpus: 4, memoryMib: 65_536 });
  expect(plan.unused.leastAt).toBe("2025-12-31T23:00:00.000Z");
});

test("a drawing, the same whenever it is drawn, with all text escaped", async () => {
  campus();
  const { out } = await terminal.run("group", "plan", ...year, "--svg", "plan.svg");
  expect(out).toContain(`drawn in ${join(terminal.cwd, "plan.svg")}`);
  const svg = await readFile(join(terminal.cwd, "plan.svg"), "utf8");
  expect(svg.match(/<path class="steps color-\d"/g)).toHaveLength(2);
  expect(svg).toMatch(/<rect class="lent" x="[\d.]+" y="[\d.]+" width="[\d.]+" height="[\d.]+"\/>/);
  expect(svg).not.toContain('class="missing');
  expect(svg).toContain(">Sep</text>");
  expect(svg).not.toMatch(/NaN|undefined|Infinity/);
  await terminal.run("group", "plan", ...year, "--svg", "again.svg");
  expect(await readFile(join(terminal.cwd, "again.svg"), "utf8")).toBe(svg);
});

test("without a host that can be seen there is a plan, but no conflicts", async () => {
  group("web", { min: 2 });
  const { out } = await terminal.run("group", "plan", ...year);
  expect(out).toContain("no host can be seen from here, so what is missing is not known");
  expect(out).not.toContain("Unused");
});

test("a project without groups", async () => {
  expect((await terminal.run("group", "plan")).out).toBe("project campus has no groups\n");
});

test.each([
  [["lsm"], 3, 'there is no group "lsm" in project campus (did you mean "lms"?)'],
  [["--from", "2026-02-30"], 2, '--from is "2026-02-30"; it must be a date such as 2026-09-01'],
  [["--until", "soon"], 2, '--until is "soon"; it must be a date'],
  [["--from", "2026-02-01", "--until", "2026-02-01"], 2, "--until (2026-02-01) must be after --from"],
  [["--from", "2026-02-01", "--until", "2036-02-01"], 2, "is more than 5 years after --from"],
  [[...year, "--svg", "no/such/folder.svg"], 2, "cannot write the drawing to"],
])("%j is refused", async (argv, status, message) => {
  campus();
  const outcome = await terminal.run("group", "plan", ...argv);
  expect(outcome.err).toContain(message);
  expect(outcome.status).toBe(status);
});
