import { expect, test } from "vitest";
import { groupKind } from "../../kinds/group.ts";
import { boundsAt } from "../../kinds/scaling/bounds.ts";
import { changesOf, rehearse } from "./rehearse.ts";
import { planShortYear, toShort } from "./short-year.ts";

const day = (text: string) => Date.parse(`${text}T00:00:00Z`);
const spec = groupKind.spec.parse({
  template: { type: "container", image: "debian" },
  min: 1,
  max: 3,
  policies: [
    { type: "target", name: "load", metric: "requests", target: 30 },
    {
      type: "calendar",
      name: "terms",
      calendar: {
        timeZone: "Europe/Berlin",
        events: [{ name: "enrollment", every: "year", from: "09-01", until: "10-01", min: 3 }],
      },
    },
  ],
});
const from = day("2026-08-01");
const until = day("2027-08-01");
const startAt = Date.parse("2026-11-28T10:00:00Z");

test("the changes of a year", () => {
  expect(changesOf([spec], from, until)).toEqual([
    Date.parse("2026-08-31T22:00:00Z"),
    Date.parse("2026-09-30T22:00:00Z"),
  ]);
});

test("a rehearsed year wants in minutes what the real one wants in months", () => {
  const stretches = planShortYear({
    first: { year: 2026, month: 8 },
    months: 12,
    timeZone: "Europe/Berlin",
    changes: changesOf([spec], from, until),
    busyMs: 60_000,
    quietMs: 5_000,
  });
  const policies = rehearse(spec.policies, stretches, startAt);
  const rehearsed = groupKind.spec.parse({ ...spec, policies });
  expect(policies.map(({ name }) => name)).toEqual(["load", "terms"]);
  const wanted = (real: string) => boundsAt(rehearsed, startAt + toShort(stretches, day(real))).min;
  expect(
    ["2026-08-15", "2026-09-02", "2026-09-15", "2026-09-29", "2026-10-15", "2027-04-15"].map(wanted),
  ).toEqual([1, 3, 3, 3, 1, 1]);
});

test("a calendar without anything in the time that is rehearsed is left out", () => {
  const stretches = planShortYear({
    first: { year: 2026, month: 11 },
    months: 2,
    changes: [],
    busyMs: 60_000,
    quietMs: 5_000,
  });
  expect(rehearse(spec.policies, stretches, startAt).map(({ name }) => name)).toEqual(["load"]);
});
