import { expect, it } from "vitest";
import { settle, VirtualClock } from "../../core/virtual-clock.ts";
import type { Cgroups } from "../cgroups.ts";
import { NetworkEvents } from "./network-events.ts";
import { networkNames } from "./network-plan.ts";

const names = networkNames({ namespace: "strata", runDir: "/run/strata" }, "0123456789abcdef");

/** Only what is watched; `die` empties a group. */
function fakeCgroups() {
  const watchers = new Map<string, (populated: boolean) => void>();
  const watch: Cgroups["watch"] = (group, onChange) => {
    watchers.set(group, onChange);
    return () => watchers.delete(group);
  };
  return { cgroups: { watch } as Cgroups, watchers, die: (group: string) => watchers.get(group)?.(false) };
}

function setUp() {
  const clock = new VirtualClock();
  const fake = fakeCgroups();
  const events = new NetworkEvents(fake.cgroups, clock, () => ({ close: () => {} }));
  const ending = new AbortController();
  const seen: string[] = [];
  const reading = (async () => {
    for await (const { uid } of events.read(ending.signal)) seen.push(uid);
  })();
  return { clock, ...fake, events, ending, seen, reading };
}

it("tells once that a process died, and again after the network was mended", async () => {
  const { events, die, seen, watchers, clock } = setUp();
  events.watch(names);
  events.watch(names);
  expect(watchers.size).toBe(2);
  die(names.dnsGroup);
  die(names.dhcpGroup);
  await settle();
  expect(seen).toEqual([names.uid]);
  expect(watchers.size).toBe(0);
  await clock.advance(3_600_000);
  events.watch(names);
  die(names.dhcpGroup);
  await settle();
  expect(seen).toEqual([names.uid, names.uid]);
});

it("tells of a network that keeps dying at growing intervals", async () => {
  const { events, die, seen, clock } = setUp();
  const waits: number[] = [];
  for (let death = 0; death < 9; death++) {
    events.watch(names);
    die(names.dnsGroup);
    const start = clock.now();
    await settle();
    while (seen.length <= death) await clock.advance(500);
    waits.push(clock.now() - start);
  }
  expect(waits).toEqual([0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
});

it("does not tell what was ended on purpose", async () => {
  const { events, die, seen } = setUp();
  events.watch(names);
  events.unwatch(names.uid);
  die(names.dnsGroup);
  await settle();
  expect(seen).toEqual([]);
});

it("ends with its signal", async () => {
  const { events, ending, reading, seen } = setUp();
  ending.abort();
  await reading;
  events.hint(names.uid);
  expect(seen).toEqual([]);
});
