import { expect, test } from "vitest";
import type { Instant } from "../../core/clock.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import type { Kind } from "../../kinds/kind.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import { createMemoryMetricStore } from "../../metrics/memory/memory-metric-store.ts";
import type { MetricStore, RangeQuery } from "../../metrics/metric-store.ts";
import { GroupWorldForTests } from "../groups/testing.ts";
import { Forecasts } from "./forecasts.ts";
import { subjectOf } from "./signals.ts";

const hourMs = 3_600_000;
const weekMs = 168 * hourMs;
/** A Monday, 07:00 in UTC. */
const now = Date.UTC(2030, 0, 7, 7);

/** At work from 08:00 to 18:00, every day. */
const busy = (at: Instant) => {
  const hour = new Date(at).getUTCHours();
  return hour >= 8 && hour < 18 ? 100 : 10;
};

function groupOf(metric: string, aheadSeconds: number): Group {
  const policies = [{ type: "forecast", name: "season", metric, target: 10, aheadSeconds }];
  return {
    kind: "Group",
    metadata: { name: "web", project: "p", uid: "group-uid", revision: 1, generation: 1 } as never,
    spec: groupKind.spec.parse({ template: { type: "container", image: "debian" }, max: 20, policies }),
    status: groupKind.initialStatus(),
  };
}

function balancerOf(name: string): LoadBalancer {
  const metadata = { name, project: "p", uid: `${name}-uid`, revision: 1, generation: 1 } as never;
  const spec = loadBalancerKind.spec.parse({ listeners: [{ port: 80 }], group: "web", targetPort: 80 });
  return { kind: "LoadBalancer", metadata, spec, status: loadBalancerKind.initialStatus() };
}

/** A store that counts how often it is asked for a range. */
function countingStore(clock: VirtualClock) {
  const store = createMemoryMetricStore({ clock });
  const asked: RangeQuery[] = [];
  const range = store.range.bind(store);
  store.range = (query) => {
    asked.push(query);
    return range(query);
  };
  return { store, asked };
}

function recordWeeks(
  store: MetricStore,
  series: { subject: string; uid: string; metric: string },
  weeks: number,
  value: (at: Instant) => number,
): void {
  const samples = Array.from({ length: weeks * 168 }, (_, index) => {
    const at = now - weeks * weekMs + index * hourMs;
    return { ...series, at, value: value(at) };
  });
  store.record(samples);
}

const custom = (group: Group) => ({
  ...subjectOf(groupKind as unknown as Kind, group),
  metric: "custom/jobs",
});
const requests = (balancer: LoadBalancer) => ({
  ...subjectOf(loadBalancerKind as unknown as Kind, balancer),
  metric: "requests",
});

test("what is expected up to aheadSeconds from now, and no further", () => {
  const { store } = countingStore(new VirtualClock(now));
  const forecasts = new Forecasts(store);
  const near = groupOf("custom/jobs", 1_800);
  recordWeeks(store, custom(near), 3, busy);
  const of = (group: Group, at: Instant) => forecasts.of({ group, members: [], balancers: [] }, at).season;
  expect(of(near, now)).toMatchObject({ value: 10, error: { mape: 0, mase: 1 } });
  expect(of(near, now + hourMs / 2)).toMatchObject({ value: 100, at: now + hourMs });
  forecasts.forget(near.metadata.uid);
  expect(of(groupOf("custom/jobs", 3_600), now)).toMatchObject({ value: 100, at: now + hourMs });
});

test("requests are the sum over the group's balancers; those of others do not count", () => {
  const { store } = countingStore(new VirtualClock(now));
  const balancers = [balancerOf("front"), balancerOf("back")];
  for (const balancer of [...balancers, balancerOf("other")]) {
    recordWeeks(store, requests(balancer), 3, (at) => busy(at) / 2);
  }
  const forecast = new Forecasts(store).of(
    { group: groupOf("requests", 3_600), members: [], balancers },
    now,
  );
  expect(forecast).toMatchObject({ season: { value: 100 } });
});

test("nothing is expected of less than two weeks, of none, and of a group without such a policy", () => {
  const { store, asked } = countingStore(new VirtualClock(now));
  const group = groupOf("custom/jobs", 3_600);
  const of = (one: Group) => new Forecasts(store).of({ group: one, members: [], balancers: [] }, now);
  expect(of(group)).toEqual({ season: undefined });
  recordWeeks(store, custom(group), 1, busy);
  expect(of(group)).toEqual({ season: undefined });
  asked.length = 0;
  expect(of({ ...group, spec: { ...group.spec, policies: [] } })).toEqual({});
  expect(asked).toEqual([]);
});

test("it is learned anew once an hour, of whole hours; and when the metric changes or the group was forgotten", () => {
  const { store, asked } = countingStore(new VirtualClock(now));
  const forecasts = new Forecasts(store);
  const group = groupOf("custom/jobs", 60);
  recordWeeks(store, custom(group), 3, busy);
  const look = (at: Instant, one = group) => {
    asked.length = 0;
    forecasts.of({ group: one, members: [], balancers: [] }, at);
    return asked.map(({ metric, until }) => [metric, until]);
  };
  expect(look(now)).toEqual([["custom/jobs", now]]);
  expect(look(now + 59 * 60_000)).toEqual([]);
  expect(look(now + hourMs + 60_000)).toEqual([["custom/jobs", now + hourMs]]);
  expect(look(now + hourMs + 60_000, groupOf("custom/mails", 60))).toEqual([["custom/mails", now + hourMs]]);
  forecasts.forget(group.metadata.uid);
  expect(look(now + hourMs + 60_000)).toEqual([["custom/jobs", now + hourMs]]);
});

test("a group grows before the demand comes, and says by which policy", async () => {
  const world = await GroupWorldForTests.start();
  try {
    const begin = world.clock.now();
    const hour = Math.floor(begin / hourMs) * hourMs;
    // In one hour of every day; what is recorded now is learned from when the next hour begins.
    const rise = hour + 2 * hourMs;
    const demand = (at: Instant) => ((at - rise) % (24 * hourMs) === 0 ? 100 : 10);
    const group = await world.createGroup("web", {
      max: 20,
      behavior: { inStabilizationSeconds: 0, inCooldownSeconds: 0 },
      policies: [
        { type: "target", name: "jobs", metric: "custom/jobs", target: 10 },
        { type: "forecast", name: "season", metric: "custom/jobs", target: 10, aheadSeconds: 600 },
      ],
    });
    const series = custom(group);
    const push = async () => {
      world.metrics.record([{ ...series, at: world.clock.now(), value: 10 }]);
      await world.pass(0);
      await world.ready("web");
    };
    world.metrics.record(
      Array.from({ length: 3 * 168 }, (_, index) => {
        const at = hour - 3 * weekMs + index * hourMs;
        return { ...series, at, value: demand(at) };
      }),
    );
    const passTo = async (at: Instant) => {
      await world.pass(at - world.clock.now());
      await push();
    };
    await passTo(rise - 900_000);
    expect((await world.group("web")).status).toMatchObject({ wanted: 1, desired: 1 });
    await passTo(rise - 600_000);
    expect((await world.group("web")).status).toMatchObject({ wanted: 10, desired: 10, ready: 10 });
    expect((await world.decisions()).at(-1)).toMatchObject({
      winner: "season",
      wants: [
        { policy: "manual", members: 1 },
        { policy: "jobs" },
        {
          policy: "season",
          members: 10,
          reason: expect.stringContaining("custom/jobs 100 expected, 10 each"),
        },
      ],
    });
  } finally {
    await world.stop();
  }
});
