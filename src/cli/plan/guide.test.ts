import { readFile } from "node:fs/promises";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { groupKind } from "../../kinds/group.ts";
import { occurrences } from "../../kinds/scaling/calendar.ts";
import { calendarSchema } from "../../kinds/scaling/calendar-schema.ts";
import { localTime, planRows } from "./plan-text.ts";
import { drawPlan } from "./svg.ts";
import { blocksOf, examplePlan, scalingGuide } from "./testing-example.ts";

const timeZone = "Europe/Berlin";
const dayMs = 86_400_000;
const guide = await readFile(scalingGuide, "utf8");

test("the drawing in the guide is that of its example (node tools/draw-plan.ts)", async () => {
  const svg = await readFile(new URL("../../../docs/group-plan.svg", import.meta.url), "utf8");
  expect(drawPlan(await examplePlan())).toBe(svg);
});

test("so are the rows of its table", async () => {
  const shown = await examplePlan();
  const rows = planRows(shown).map((row) => row.map((cell) => (typeof cell === "string" ? cell : cell.text)));
  const table = blocksOf(guide, "").find((block) => block.startsWith("WHEN")) ?? "";
  const lines = table.trim().split("\n").slice(1);
  expect(lines).toHaveLength(4);
  for (const line of lines)
    expect(rows.map((row) => row.join(" ").trim())).toContain(line.replace(/ +/g, " "));
  expect(localTime(shown.plan.from, timeZone)).toBe("2026-11-28 00:00");
});

test("every example of policies is one that a group may have", () => {
  const examples = blocksOf(guide, "yaml").slice(1);
  expect(examples).toHaveLength(2);
  for (const example of examples) {
    const spec = { template: { type: "container", image: "debian" }, max: 10, ...parse(example) };
    const parsed = groupKind.spec.parse(spec);
    expect(parsed.policies.length).toBeGreaterThan(0);
  }
});

const row = /^\| (day|year) \| (\S+) \| (\S+) \| (\d{4}-\d\d-\d\d) \| (.+) \|$/gm;
const rows = [...guide.matchAll(row)].map(([, ...cells]) => cells);

test("the table of daylight saving and 29 February is there", () => {
  expect(rows).toHaveLength(11);
});

test.each(rows)("every %s from %s until %s on %s: %s", (every, from, until, on, expected) => {
  const calendar = calendarSchema.parse({ timeZone, events: [{ name: "e", every, from, until, min: 1 }] });
  const start = Temporal.PlainDate.from(on ?? "").toZonedDateTime(timeZone).epochMilliseconds;
  const found = occurrences(calendar, start, start + dayMs).map(({ start: first, end }) =>
    [first, end]
      .map((at) => Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(timeZone))
      .map((at) => at.toString({ smallestUnit: "minute", timeZoneName: "never" }))
      .join(" … "),
  );
  expect(found).toEqual(expected === "not at all" ? [] : [expected]);
});
