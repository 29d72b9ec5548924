import { expect, test } from "vitest";
import { groupKind } from "../../kinds/group.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { beforeTheYear, type DemoGroup, inTheYear, plannedAt, planRehearsal, portsOf } from "./rehearsal.ts";

const startAt = Date.parse("2026-11-28T10:00:00Z");
const pace = { first: { year: 2026, month: 8 }, months: 3, busyMs: 75_000, quietMs: 3_000 };

function groupWith(events: object[]): DemoGroup {
  const calendar = { timeZone: "Europe/Berlin", events };
  const policies = events.length === 0 ? [] : [{ type: "calendar", name: "terms", calendar }];
  const spec = groupKind.spec.parse({ template: { type: "container", image: "debian" }, max: 3, policies });
  return { name: "enrollment", spec, ports: [] };
}

const september = { name: "enrollment", every: "year", from: "09-01", until: "10-01", min: 3 };

test("a month begins when it begins where the calendar is from", () => {
  const group = groupWith([september]);
  const stretches = planRehearsal([group], pace);
  expect(stretches.map(({ label }) => label)).toEqual(["Aug", "Sep", "Oct"]);
  const spec = inTheYear(group.spec, stretches, startAt);
  const [, sep, oct] = stretches;
  const planned = (shortMs: number) => plannedAt(spec, startAt, shortMs);
  expect(
    [0, (sep?.fromMs ?? 0) - 1, sep?.fromMs ?? 0, (oct?.fromMs ?? 0) - 1, oct?.fromMs ?? 0].map(planned),
  ).toEqual([1, 1, 3, 3, 1]);
  expect(spec.behavior.inStabilizationSeconds).toBeLessThan(5);
  expect(beforeTheYear(group.spec).policies).toEqual([]);
});

test("a year in which nothing happens is refused", () => {
  expect(() => planRehearsal([], pace)).toThrow(/the stack has no groups/);
  expect(() => planRehearsal([groupWith([])], pace)).toThrow(
    /no calendar of the stack's groups changes anything in the 3 months from 2026-08 on/,
  );
});

test("load goes to the listeners that speak plain HTTP", () => {
  const balancer = loadBalancerKind.spec.parse({
    group: "web",
    targetPort: 80,
    listeners: [
      { port: 80, redirectTo: 443 },
      { port: 443, protocol: "https", certificates: ["own"] },
      { port: 8080 },
    ],
  });
  expect(portsOf("web", [balancer])).toEqual([8080]);
  expect(portsOf("db", [balancer])).toEqual([]);
});
