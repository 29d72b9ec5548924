/**
 * The whole story on real guests: the campus' groups behind their load balancers live through a rehearsed autumn and
 * spring, with load all the time. In September three enrollment servers and one LMS, in April one and three; no request
 * fails. (That it comes up by itself, answers and says that nothing is to change is what .ci/run sees.)
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { MonthRow } from "../src/cli/demo/rehearsal.ts";
import { groupKind } from "../src/kinds/group.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { TestDaemon } from "./test-daemon.ts";

const campus = new URL("../examples/campus.yaml", import.meta.url).pathname;
/** A container is there at once; two emulated machines boot at the same time, and are healthy, well within a month. */
const containerMonth = 25;
const machineMonth = 180;

let daemon: TestDaemon;
let before: Snapshot;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
}, 120_000);

afterAll(async () => {
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 300_000);

/** A year's months from that one on, as the demonstration tells them. */
async function live(from: string, months: number, seconds: number, svg: string): Promise<MonthRow[]> {
  const pace = ["--from", from, "--months", String(months), "--busy", String(seconds), "--quiet", "3"];
  const result = await daemon.ok(["demo", campus, ...pace, "--svg", svg, "--json"], { timeoutMs: 900_000 });
  return JSON.parse(result.stdout) as MonthRow[];
}

const row = (rows: readonly MonthRow[], label: string) => {
  const found = rows.find((one) => one.label === label);
  if (!found) throw new Error(`there is no ${label}`);
  return found;
};
const lastOf = ({ groups }: MonthRow) => Object.fromEntries(groups.map(({ name, last }) => [name, last]));

describe("the campus", () => {
  it("has three enrollment servers in September, and no request fails", async () => {
    const svg = join(await daemon.scratch("charts"), "autumn.svg");
    const rows = await live("2026-08", 3, containerMonth, svg);
    expect(lastOf(row(rows, "Aug"))).toEqual({ enrollment: 1, lms: 1 });
    expect(lastOf(row(rows, "Sep"))).toEqual({ enrollment: 3, lms: 1 });
    expect(lastOf(row(rows, "Oct"))).toEqual({ enrollment: 1, lms: 1 });
    expect(rows.reduce((sum, { failed }) => sum + failed, 0)).toBe(0);
    expect(rows.every(({ sent }) => sent > 100)).toBe(true);
    expect(await readFile(svg, "utf8")).toContain("enrollment");
  }, 1_000_000);

  it("has three learning management systems in April, and no request fails", async () => {
    const rows = await live("2027-04", 1, machineMonth, join(await daemon.scratch("charts"), "spring.svg"));
    expect(lastOf(row(rows, "Apr"))).toEqual({ enrollment: 1, lms: 3 });
    expect(rows.reduce((sum, { failed }) => sum + failed, 0)).toBe(0);
  }, 1_000_000);

  it("leaves nothing behind, and a bad wish is refused before anything is made", async () => {
    expect((await daemon.client.list(groupKind, {})).items).toEqual([]);
    expect((await daemon.client.list(instanceKind, {})).items).toEqual([]);
    for (const [args, message] of [
      [["--from", "2026-13"], /--from is "2026-13"; it must be a month such as 2026-08/],
      [["--months", "99"], /--months is 99; it must be from 1 to 24/],
      [["--busy", "0"], /--busy is 0; it must be a number of seconds from 1 to 3600/],
      [["--from", "2026-11", "--months", "1"], /no calendar of the stack's groups changes anything/],
    ] as const) {
      const result = await daemon.strata(["demo", campus, ...args]);
      expect(result.stderr).toMatch(message);
      expect(result.status).toBe(2);
    }
    const servers = new URL("../examples/servers.yaml", import.meta.url).pathname;
    expect((await daemon.strata(["demo", servers])).stderr).toMatch(/the stack has no groups/);
  });
});
