import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { arbitrate, type Capacity, type Claim, type Grant } from "./arbiter.ts";

const claim = (key: string, fields: Partial<Claim>): Claim => ({
  key,
  min: 1,
  wanted: 1,
  current: 1,
  priority: 0,
  lends: true,
  member: { cpus: 1, memoryMib: 512 },
  ...fields,
});
const hosts = (cpus: number): Capacity => ({ cpus, memoryMib: 1_000_000 });
const granted = (grants: Map<string, Grant>) =>
  Object.fromEntries([...grants].map(([key, grant]) => [key, grant.granted]));

describe("arbitrate", () => {
  test("everyone gets what is wanted while there is enough", () => {
    const grants = arbitrate([claim("a", { wanted: 3 }), claim("b", { wanted: 4 })], hosts(7));
    expect([...grants.values()]).toEqual([
      { granted: 3, lent: 0 },
      { granted: 4, lent: 0 },
    ]);
  });

  test("in september the enrollment servers take what the LMS lends, in april the other way round", () => {
    const at = (enrollment: number, lms: number, current: [number, number]) =>
      arbitrate(
        [
          claim("enrollment", { wanted: enrollment, current: current[0], priority: 10 }),
          claim("lms", { wanted: lms, current: current[1] }),
        ],
        hosts(4),
      );
    const september = at(3, 3, [1, 3]);
    expect(september.get("enrollment")).toEqual({ granted: 3, lent: 0 });
    expect(september.get("lms")).toEqual({
      granted: 1,
      lent: 2,
      takers: ["enrollment"],
      reason: "1 of 3: 2 lent to enrollment",
    });
    expect(granted(at(1, 3, [3, 1]))).toEqual({ enrollment: 1, lms: 3 });
  });

  test("a minimum that a calendar raises is lent to as well, whatever the priority", () => {
    const claims = [
      claim("high", { min: 2, wanted: 4, current: 4, priority: 5 }),
      claim("low", { min: 3, usual: 1, wanted: 3 }),
    ];
    expect(arbitrate(claims, hosts(5)).get("high")).toMatchObject({ granted: 2, lent: 2, takers: ["low"] });
    const usual = claims.map((one) => ({ ...one, usual: one.min }));
    expect(arbitrate(usual, hosts(5)).get("high")).toMatchObject({ granted: 2, lent: 0 });
  });

  test("reasons call groups by name, and do not name those of other projects", () => {
    const reason = (project: string) => {
      const taker = claim("/groups/campus/a", { name: "a", project: "campus", wanted: 3, priority: 5 });
      const lender = claim("/groups/x/b", { name: "b", project, wanted: 3 });
      return arbitrate([taker, lender], hosts(4)).get("/groups/x/b")?.reason;
    };
    expect(reason("campus")).toBe("1 of 3: 2 lent to a");
    expect(reason("x")).toBe("1 of 3: 2 lent to another project");
  });

  test("no group of higher priority takes from a minimum, or from one that does not lend", () => {
    const high = claim("high", { wanted: 9, priority: 5, current: 1 });
    expect(granted(arbitrate([high, claim("low", { min: 3, wanted: 3, current: 3 })], hosts(6)))).toEqual({
      high: 3,
      low: 3,
    });
    const keeps = claim("low", { wanted: 4, current: 4, lends: false });
    expect(granted(arbitrate([high, keeps], hosts(6)))).toEqual({ high: 2, low: 4 });
  });

  test("one that does not lend gives back what it does not want any more", () => {
    const keeps = claim("low", { wanted: 2, current: 4, lends: false });
    expect(granted(arbitrate([claim("high", { wanted: 9, priority: 5 }), keeps], hosts(6)))).toEqual({
      high: 4,
      low: 2,
    });
  });

  test("one that does not lend keeps what it was given, whatever comes and goes meanwhile", () => {
    const high = claim("high", { wanted: 9, priority: 5, current: 2 });
    const keeps = { wanted: 9, given: 4, lends: false };
    // Two have just been replaced, and those before them are still leaving; or one was lost and waits for a host.
    for (const current of [6, 4, 3, 0]) {
      expect(granted(arbitrate([high, claim("low", { ...keeps, current })], hosts(6)))).toEqual({
        high: 2,
        low: 4,
      });
    }
  });

  test("what one that does not lend was given and does not have yet comes after the minimums of others", () => {
    const keeps = claim("keeps", { wanted: 9, given: 5, current: 3, priority: 5, lends: false });
    const low = claim("low", { min: 3, wanted: 4, current: 2 });
    expect(granted(arbitrate([keeps, low], hosts(6)))).toEqual({ keeps: 3, low: 3 });
    expect(granted(arbitrate([keeps, low], hosts(8)))).toEqual({ keeps: 5, low: 3 });
  });

  test("minimums that exceed the hosts: what is held stays, then higher priority first", () => {
    const grants = arbitrate(
      [
        claim("a", { min: 3, wanted: 3, current: 0, priority: 9 }),
        claim("b", { min: 3, wanted: 3, current: 3 }),
      ],
      hosts(4),
    );
    expect(grants.get("a")).toEqual({
      granted: 1,
      lent: 0,
      reason: "1 of 3: the hosts lack capacity for 2 of 1 CPU and 512 MiB",
    });
    expect(grants.get("b")).toEqual({ granted: 3, lent: 0 });
  });

  test("where hosts were lost, a minimum outlasts what others keep beyond theirs", () => {
    const keeper = claim("keeper", { wanted: 9, current: 9, priority: 5, lends: false });
    const low = claim("low", { min: 3, wanted: 5, current: 5 });
    expect(granted(arbitrate([keeper, low], hosts(6)))).toEqual({ keeper: 3, low: 3 });
  });

  test("equal priorities share by what their members take of the hosts", () => {
    const big = { cpus: 2, memoryMib: 512 };
    const claims = [claim("big", { wanted: 9, member: big }), claim("small", { wanted: 9 })];
    expect(granted(arbitrate(claims, hosts(12)))).toEqual({ big: 3, small: 6 });
  });

  test("what is too big for what is left does not keep smaller ones from it", () => {
    const claims = [
      claim("big", { min: 0, wanted: 2, priority: 9, member: { cpus: 4, memoryMib: 1 } }),
      claim("small", { min: 0, wanted: 9 }),
    ];
    expect(granted(arbitrate(claims, hosts(6)))).toEqual({ big: 1, small: 2 });
  });
});

const someClaims = fc
  .array(
    fc.record({
      min: fc.integer({ min: 0, max: 4 }),
      more: fc.integer({ min: 0, max: 8 }),
      current: fc.integer({ min: 0, max: 10 }),
      given: fc.option(fc.integer({ min: 0, max: 10 }), { nil: undefined }),
      priority: fc.integer({ min: 0, max: 2 }),
      lends: fc.boolean(),
      member: fc.record({
        cpus: fc.integer({ min: 1, max: 4 }),
        memoryMib: fc.integer({ min: 128, max: 2048 }),
      }),
    }),
    { minLength: 1, maxLength: 6 },
  )
  .map((list) =>
    list.map(({ more, given, ...fields }, index) =>
      claim(`g${index}`, {
        ...fields,
        wanted: fields.min + more,
        ...(given === undefined ? {} : { given }),
      }),
    ),
  );
const someCapacity = fc.record({
  cpus: fc.integer({ min: 0, max: 60 }),
  memoryMib: fc.integer({ min: 0, max: 30_000 }),
});

describe("whatever is claimed", () => {
  test("it is never beyond capacity and never more than is wanted", () => {
    fc.assert(
      fc.property(someClaims, someCapacity, (claims, capacity) => {
        const grants = arbitrate(claims, capacity);
        const used = { cpus: 0, memoryMib: 0 };
        for (const { key, wanted, member } of claims) {
          const { granted: count, lent } = grants.get(key) ?? { granted: -1, lent: 0 };
          expect(count).toBeGreaterThanOrEqual(0);
          expect(count + lent).toBeLessThanOrEqual(wanted);
          used.cpus += count * member.cpus;
          used.memoryMib += count * member.memoryMib;
        }
        expect(used.cpus).toBeLessThanOrEqual(capacity.cpus);
        expect(used.memoryMib).toBeLessThanOrEqual(capacity.memoryMib);
      }),
    );
  });

  test("nothing goes back and forth once it is followed", () => {
    fc.assert(
      fc.property(someClaims, someCapacity, (claims, capacity) => {
        let current = claims;
        const follow = () => {
          const grants = arbitrate(current, capacity);
          current = current.map((one) => {
            const count = grants.get(one.key)?.granted ?? 0;
            return { ...one, current: count, given: count };
          });
          return granted(grants);
        };
        const first = follow();
        expect(follow()).toEqual(first);
        expect(follow()).toEqual(first);
      }),
    );
  });

  test("members that come and go change nothing while all minimums are met", () => {
    const comings = fc.array(fc.integer({ min: 0, max: 12 }), { minLength: 6, maxLength: 6 });
    fc.assert(
      fc.property(someClaims, someCapacity, comings, (claims, capacity, counts) => {
        const first = granted(arbitrate(claims, capacity));
        fc.pre(claims.every(({ key, min }) => (first[key] ?? 0) >= min));
        const after = claims.map((one, index) => ({
          ...one,
          given: first[one.key] ?? 0,
          current: counts[index] ?? 0,
        }));
        expect(granted(arbitrate(after, capacity))).toEqual(first);
      }),
    );
  });

  test("the order of the claims does not matter", () => {
    fc.assert(
      fc.property(someClaims, someCapacity, (claims, capacity) => {
        expect(granted(arbitrate(claims.toReversed(), capacity))).toEqual(
          granted(arbitrate(claims, capacity)),
        );
      }),
    );
  });

  test("nobody is below the minimum while one of lower priority that lends is above", () => {
    fc.assert(
      fc.property(someClaims, someCapacity, (claims, capacity) => {
        const same = claims.map((one) => ({ ...one, member: { cpus: 1, memoryMib: 128 } }));
        const grants = arbitrate(same, capacity);
        const of = (key: string) => grants.get(key)?.granted ?? 0;
        const short = same.filter((one) => of(one.key) < one.min);
        const above = same.filter((one) => one.lends && of(one.key) > one.min);
        expect(short.length > 0 && above.length > 0).toBe(false);
      }),
    );
  });

  test("what was lent returns when the need ends", () => {
    fc.assert(
      fc.property(someClaims, someCapacity, (claims, capacity) => {
        const lending = claims.map((one) => ({ ...one, lends: true, current: one.min }));
        const before = granted(arbitrate(lending, capacity));
        const peak = claim("peak", { min: 0, wanted: 20, current: 0, priority: 9 });
        const during = arbitrate([...lending, peak], capacity);
        const after = [...lending, { ...peak, wanted: 0, current: 20 }].map((one) => ({
          ...one,
          current: during.get(one.key)?.granted ?? 0,
        }));
        const { peak: gone, ...others } = granted(arbitrate(after, capacity));
        expect(gone).toBe(0);
        expect(others).toEqual(before);
      }),
    );
  });
});
