import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { groupKind } from "../group.ts";
import { decide } from "./decide.ts";

const template = { type: "container", image: "debian" };

/** `PATH MESSAGE` of all that is wrong; paths without `policies.0.`. */
function errors(spec: object): string[] {
  const parsed = (groupKind.spec as unknown as import("zod").ZodType).safeParse({
    template,
    max: 10,
    ...spec,
  });
  if (parsed.success) return [];
  return parsed.error.issues.map(
    ({ path, message }) => `${path.join(".").replace(/^policies\.0\./, "")} ${message}`,
  );
}

const calendar = (events: object[], timeZone?: string) => ({
  type: "calendar",
  name: "c",
  calendar: {
    ...(timeZone === undefined ? {} : { timeZone }),
    events: events.map((event, index) => ({ name: `e${index}`, ...event })),
  },
});
const calendarErrors = (events: object[], timeZone?: string) =>
  errors({ policies: [calendar(events, timeZone)] }).map((text) =>
    text.replace(/^calendar\.(events\.)?/, ""),
  );

const september = { every: "year", from: "09-01", until: "10-01" };

describe("a calendar that cannot be is refused", () => {
  test.each<[string, object, string]>([
    [
      "a day that no year has",
      { every: "year", from: "02-30", until: "03-02", min: 1 },
      '0.from is "02-30"; it must be a day that some year has, MM-DD or MM-DDTHH:MM, such as 09-01',
    ],
    [
      "a date where a day of the year is asked for",
      { every: "year", from: "2026-09-01", until: "10-01", min: 1 },
      '0.from is "2026-09-01"; it must be a day that some year has, MM-DD or MM-DDTHH:MM, such as 09-01',
    ],
    [
      "a weekday that is none",
      { every: "week", from: "mo 08:00", until: "fri", min: 1 },
      '0.from is "mo 08:00"; it must be a day of the week, DAY or DAY HH:MM, such as mon 08:00',
    ],
    [
      "an hour that is none",
      { every: "day", from: "08:00", until: "24:00", min: 1 },
      '0.until is "24:00"; it must be a time of day, HH:MM, such as 08:00',
    ],
    [
      "a date in a year without it",
      { from: "2026-02-29", until: "2026-03-02", min: 1 },
      '0.from is "2026-02-29"; it must be a date, YYYY-MM-DD or YYYY-MM-DDTHH:MM[:SS], such as 2026-12-24 (or give every: year, week or day)',
    ],
    [
      "an end before the start",
      { from: "2026-12-24", until: "2026-12-24", min: 1 },
      "0.until is not after from: it never takes place",
    ],
    [
      "no length",
      { every: "day", from: "08:00", until: "08:00", min: 1 },
      "0.until is the same as from: it never lasts (for all the time, set the group's own min and max)",
    ],
    [
      "its only day excepted",
      { from: "2026-12-24T08:00", until: "2026-12-26", min: 1, except: ["2026-12-24"] },
      "0.except takes its only day away: it never takes place",
    ],
    ["no effect", september, "0.min or max must be given: it would change nothing"],
    ["min above its own max", { ...september, min: 4, max: 2 }, "0.min is 4, more than its max (2)"],
    ["min above the group's max", { ...september, min: 11 }, "0.min is 11, more than the group's max (10)"],
    [
      "max below the group's min",
      { ...september, max: 0 },
      "0.max is 0, less than the group's min (1); give the event a min of at most 0 too",
    ],
  ])("%s", (_, event, message) => {
    expect(calendarErrors([event])).toEqual([message]);
  });

  test("in the hour that daylight saving skips", () => {
    const event = { from: "2026-03-29T02:10", until: "2026-03-29T02:50", min: 1 };
    expect(calendarErrors([event], "Europe/Berlin")).toEqual([
      "0.from lies with until in an hour that daylight saving skips: it never takes place",
    ]);
    expect(calendarErrors([event], "UTC")).toEqual([]);
  });

  test("a time zone that does not exist", () => {
    const zones = ["Europe/Berlinn", "Mars/Olympus", "+02:00", ""];
    expect(zones.map((zone) => calendarErrors([{ ...september, min: 1 }], zone))).toEqual([
      [
        'timeZone is "Europe/Berlinn", which is no IANA time zone (did you mean "Europe/Berlin"?); write one such as Europe/Berlin or UTC',
      ],
      [expect.stringMatching(/^timeZone is "Mars\/Olympus", which is no IANA time zone/)],
      [expect.stringMatching(/^timeZone is "\+02:00", which is no IANA time zone/)],
      [expect.stringMatching(/^timeZone is "", which is no IANA time zone/)],
    ]);
  });

  test("the same name twice", () => {
    const events = [
      { ...september, name: "a", min: 1 },
      { ...september, name: "a", min: 2 },
    ];
    expect(calendarErrors(events)).toEqual(['1.name is "a" a second time']);
  });
});

describe("a calendar that contradicts itself is refused", () => {
  const sunday = { every: "week", from: "sun", until: "mon", max: 2 };

  test.each<[string, object[], string | undefined]>([
    [
      "a year's event and a week's",
      [sunday, { ...september, min: 5 }],
      '1.min is 5, more than the max of event "e0" (2) while both last, such as 2024-09-01T00:00',
    ],
    [
      "one day of the year is a Sunday in some years only",
      [sunday, { every: "year", from: "12-24", until: "12-25", min: 5 }],
      '1.min is 5, more than the max of event "e0" (2) while both last, such as 2028-12-24T00:00',
    ],
    [
      "a date far away",
      [sunday, { from: "2051-01-01", until: "2051-01-02", min: 5 }],
      '1.min is 5, more than the max of event "e0" (2) while both last, such as 2051-01-01T00:00',
    ],
    [
      "a date that is excepted there",
      [
        { ...sunday, except: ["2051-01-01"] },
        { from: "2051-01-01", until: "2051-01-02", min: 5 },
      ],
      undefined,
    ],
    ["they never meet", [sunday, { every: "week", from: "tue", until: "wed", min: 5 }], undefined],
    ["a later event settles it", [sunday, { ...september, min: 5 }, { ...sunday, max: 5 }], undefined],
    [
      "a later event settles it for a part only",
      [sunday, { ...september, min: 5 }, { every: "day", from: "00:00", until: "12:00", max: 5 }],
      '1.min is 5, more than the max of event "e0" (2) while both last, such as 2024-09-01T12:00',
    ],
  ])("%s", (_, events, message) => {
    expect(calendarErrors(events)).toEqual(message === undefined ? [] : [message]);
  });

  test("or another one of the group", () => {
    const policies = [calendar([sunday]), { ...calendar([{ ...september, min: 5 }]), name: "d" }];
    expect(errors({ policies })).toEqual([
      'policies.1.calendar.events.0.min is 5, more than the max of event "e0" (2) while both last, such as 2024-09-01T00:00',
    ]);
  });

  test("two hundred events are checked at once", () => {
    const days = Array.from({ length: 100 }, (_, day) => [
      { every: "day", from: "01:00", until: "02:00", min: 5, name: `a${day}` },
      { every: "day", from: "03:00", until: "04:00", max: 3, name: `b${day}` },
    ]).flat();
    const before = performance.now();
    expect(calendarErrors(days)).toEqual([]);
    expect(performance.now() - before).toBeLessThan(5_000);
  });
});

describe("policies that cannot work are refused", () => {
  const steps = (metric: string, list: object[]) => ({ type: "step", name: "s", metric, steps: list });
  const out = { from: 70, change: 1 };

  test.each<[string, object, string]>([
    ["no range", steps("cpu", [{ change: 1 }]), "steps.0 needs from, below or both"],
    [
      "an empty range",
      steps("cpu", [{ from: 5, below: 5, change: 1 }]),
      "steps.0 applies from 5 below 5, so never; from must be less than below",
    ],
    [
      "ranges that overlap",
      steps("queue", [out, { below: 71, change: -1 }]),
      "steps.1 overlaps step 0; ranges must not overlap",
    ],
    [
      "more than all of it",
      steps("memory", [{ from: 101, change: 1 }]),
      "steps.0.from is 101; memory is in per cent and never above 100",
    ],
    [
      "a target of more than all of it",
      { type: "target", name: "t", metric: "cpu", target: 120 },
      "target is 120; cpu is in per cent and never above 100",
    ],
    [
      "an unknown metric",
      { type: "target", name: "t", metric: "cpus", target: 1 },
      "metric must be one of cpu, memory, requests, latency, queue or custom/NAME",
    ],
    [
      "steps that would swing",
      steps("cpu", [out, { below: 40, change: -1 }]),
      "steps would swing for ever: 70 cpu each at 1 leads to 2, where the same load is 35 each and leads back; leave more room between the ranges that scale out and in",
    ],
    [
      "steps without room between them",
      steps("requests", [
        { from: 50, change: 1 },
        { below: 50, change: -1 },
      ]),
      "steps would swing for ever: 50 requests each at 1 leads to 2, where the same load is 25 each and leads back; leave more room between the ranges that scale out and in",
    ],
    [
      "steps that swing over three sizes",
      steps("custom/jobs", [
        { from: 60, change: 2 },
        { below: 40, change: -1 },
      ]),
      "steps would swing for ever: 60 custom/jobs each at 1 leads to 3, where the same load is 20 each and leads back; leave more room between the ranges that scale out and in",
    ],
  ])("%s", (_, policy, message) => {
    expect(errors({ policies: [policy] })).toEqual([message]);
  });

  test("with room enough they do not", () => {
    expect(errors({ policies: [steps("cpu", [out, { below: 35, change: -1 }])] })).toEqual([]);
    const narrow = steps("cpu", [out, { below: 60, change: -1 }]);
    expect(errors({ policies: [narrow] })).toHaveLength(1);
    expect(errors({ min: 6, policies: [narrow] }), "of many one more changes little").toEqual([]);
    expect(errors({ min: 5, policies: [narrow] })).toHaveLength(1);
  });

  test("of what does not divide by the number of members nobody can know", () => {
    expect(
      errors({
        policies: [
          steps("latency", [
            { from: 200, change: 1 },
            { below: 190, change: -1 },
          ]),
        ],
      }),
    ).toEqual([]);
  });
});

describe("steps that are accepted", () => {
  const someSteps = fc
    .uniqueArray(fc.integer({ min: 1, max: 99 }), { minLength: 1, maxLength: 5 })
    .chain((edges) => {
      const sorted = edges.sort((a, b) => a - b);
      const ranges = [undefined, ...sorted].map((from, index) => ({ from, below: sorted[index] }));
      return fc
        .tuple(...ranges.map(() => fc.integer({ min: -3, max: 3 })))
        .map((changes) => ranges.map((range, index) => ({ ...range, change: changes[index] ?? 0 })));
    });

  test("come to rest under any constant load", () => {
    let accepted = 0;
    let refused = 0;
    fc.assert(
      fc.property(
        someSteps,
        fc.double({ min: 0, max: 1500, noNaN: true }),
        fc.nat({ max: 12 }),
        (list, load, start) => {
          const policies = [{ type: "step", name: "s", metric: "requests", steps: list }];
          const behavior = { inStabilizationSeconds: 0, inCooldownSeconds: 0 };
          const parsed = groupKind.spec.safeParse({ template, max: 12, policies, behavior });
          if (!parsed.success) {
            refused++;
            return;
          }
          accepted++;
          let desired = start;
          const sizes: number[] = [];
          for (let round = 0; round < 40; round++) {
            const requests = { value: load, members: desired, ageMs: 0 };
            const signals = { metrics: { requests }, forecasts: {}, held: 0 };
            ({ desired } = decide({
              spec: parsed.data,
              state: { desired, recentWanted: [] },
              signals,
              now: round * 1000,
            }));
            sizes.push(desired);
          }
          expect(new Set(sizes.slice(20)).size).toBe(1);
        },
      ),
      { numRuns: 500 },
    );
    expect(Math.min(accepted, refused)).toBeGreaterThan(20);
  });
});
