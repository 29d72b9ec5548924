import { mkdtempDisposable, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import type { BalancerStatistics } from "../../host/balancers/balancers.ts";
import { Traffic } from "./traffic.ts";

let traffic: Traffic | undefined;
afterEach(() => traffic?.close());

/** A balancer that gets `rate` requests a second; returns the moments of its reports and what they said. */
async function watch(rates: readonly { untilMs: number; rate: number }[]): Promise<[number, number][]> {
  const clock = new VirtualClock(0);
  let requests = 0;
  let asked = 0;
  const statistics = async (): Promise<BalancerStatistics[]> => {
    asked++;
    const nothing = { errors: 0, sessions: 0, queue: 0 };
    return [{ uid: undefined, requests, ...nothing } as unknown as BalancerStatistics];
  };
  const balancers = { channels: () => ({ holder: "", log: "" }), logPath: () => "/dev/null", statistics };
  const one = new Traffic({
    uid: "b",
    balancers: balancers as never,
    clock,
    resource: () => undefined,
    onChange: () => {},
  });
  traffic = one;
  const reports: [number, number][] = [];
  for (const { untilMs, rate } of rates) {
    while (clock.monotonicMs() < untilMs) {
      await clock.advance(200);
      requests += rate / 5;
      if (rate > 0) one.answered();
      const values = await one.news();
      if (values) reports.push([clock.monotonicMs(), Math.round(values.requests ?? 0)]);
    }
  }
  expect(asked).toBeLessThanOrEqual(clock.monotonicMs() / 200);
  return reports;
}

test("steady traffic is reported once a second, a change at once", async () => {
  const reports = await watch([
    { untilMs: 4_000, rate: 20 },
    { untilMs: 6_000, rate: 60 },
  ]);
  const steady = reports.filter(([at]) => at > 1_500 && at <= 4_000);
  expect(steady.length).toBeLessThanOrEqual(3);
  expect(steady.every(([, rate]) => rate === 20)).toBe(true);
  expect(reports.find(([at]) => at > 4_000)?.[0]).toBe(4_200);
  expect(reports.find(([, rate]) => rate > 33)?.[0]).toBeLessThanOrEqual(4_400);
  expect(reports.at(-1)?.[1]).toBe(60);
});

test("without traffic it is asked once a second only", async () => {
  const reports = await watch([{ untilMs: 5_000, rate: 0 }]);
  expect(reports.length).toBeLessThanOrEqual(5);
  expect(reports.every(([, rate]) => rate === 0)).toBe(true);
});

test("other users of the host do not get to its sockets and its pipe", async () => {
  await using root = await mkdtempDisposable(join(tmpdir(), "strata-traffic-"));
  const directory = join(root.path, "b");
  const jail = join(directory, "jail");
  const channels = () => ({ holder: join(jail, "holder.sock"), log: join(directory, "log.pipe") });
  const one = new Traffic({
    uid: "b",
    balancers: { channels, logPath: () => "/dev/null" } as never,
    clock: new VirtualClock(0),
    resource: () => undefined,
    onChange: () => {},
  });
  traffic = one;
  await one.listen();
  expect((await stat(directory)).mode & 0o777).toBe(0o700);
});
