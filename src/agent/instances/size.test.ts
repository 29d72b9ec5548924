import { describe, expect, test } from "vitest";
import { planInstance } from "./plan.ts";
import { planSize } from "./size.ts";
import { guestOf, instanceOf, now, runningStatus, worldOf } from "./testing.ts";
import { check } from "./testing-rows.ts";
import type { Sizing } from "./world.ts";

const had = { cpus: 2, memoryMib: 1024 };
const all: Sizing["live"] = { cpus: true, memory: "both" };
const growing: Sizing["live"] = { cpus: true, memory: "grow" };
const onlyMemory: Sizing["live"] = { cpus: false, memory: "both" };
const nothing: Sizing["live"] = { cpus: false, memory: "no" };
const both = { cpus: 4, memoryMib: 2048 };

function sizing(change: Partial<Sizing> = {}): Sizing {
  return { applied: undefined, live: all, refused: undefined, ...change };
}

test.each<[string, Partial<Sizing>, typeof had, typeof had | undefined, RegExp | undefined]>([
  ["as wanted", {}, had, undefined, undefined],
  ["as wanted, and the driver can do nothing", { live: undefined }, had, undefined, undefined],
  ["both at once", {}, both, both, undefined],
  ["smaller", {}, { cpus: 1, memoryMib: 512 }, { cpus: 1, memoryMib: 512 }, undefined],
  ["memory that can grow, grows", { live: growing }, both, both, undefined],
  [
    "memory that can only grow does not shrink",
    { live: growing },
    { cpus: 4, memoryMib: 512 },
    { cpus: 4, memoryMib: 1024 },
    /^512 MiB of memory \(now 1024\): the driver fake/,
  ],
  ["one of two", { live: onlyMemory }, both, { cpus: 2, memoryMib: 2048 }, /^4 CPUs \(now 2\): /],
  ["neither", { live: nothing }, both, undefined, /^4 CPUs \(now 2\) and 2048 MiB of memory \(now 1024\): /],
  ["no such ability", { live: undefined }, both, undefined, /^4 CPUs .* and 2048 MiB/],
  ["done", { applied: both }, both, undefined, undefined],
  [
    "done as far as possible",
    { live: onlyMemory, applied: { cpus: 2, memoryMib: 2048 } },
    both,
    undefined,
    /4 CPUs/,
  ],
  ["refused by this guest", { refused: { size: both, message: "no room" } }, both, undefined, /^no room$/],
  ["another size was refused", { refused: { size: had, message: "no room" } }, both, both, undefined],
])("%s", (_name, change, wanted, apply, restartNeeded) => {
  const instance = instanceOf({ spec: wanted, status: runningStatus({ size: had }) });
  const plan = planSize(instance, sizing(change), "fake");
  expect(plan.apply).toEqual(apply);
  if (restartNeeded) expect(plan.restartNeeded).toMatch(restartNeeded);
  else expect(plan.restartNeeded).toBeUndefined();
});

describe("in the life of an instance", () => {
  const running = (change: Partial<Sizing>, spec = both) =>
    worldOf({
      instance: instanceOf({ spec, status: runningStatus({ size: had }) }),
      guest: guestOf("running"),
      sizing: sizing(change),
    });
  const restart = (world: ReturnType<typeof running>) =>
    planInstance(world, now).status?.status.conditions.find(({ type }) => type === "RestartNeeded");

  test("the size is told once the guest has it", () => {
    check({ name: "", world: running({}), actions: ["resize"], status: { state: "running", size: had } });
    check({
      name: "",
      world: running({ applied: both }),
      status: { state: "running", size: both },
      events: ["Resized"],
    });
  });

  test("what needs a restart is a condition, gone with the restart", () => {
    const world = running({ live: nothing });
    check({ name: "", world, status: { state: "running", size: had } });
    expect(restart(world)).toMatchObject({ status: "true", reason: "SizeChanged" });
    const after = worldOf({
      instance: instanceOf({
        spec: both,
        status: runningStatus({
          size: both,
          conditions: planInstance(world, now).status?.status.conditions ?? [],
        }),
      }),
      guest: guestOf("running"),
      sizing: sizing({ live: nothing }),
    });
    expect(restart(after)).toBeUndefined();
  });

  test("a guest from before sizes were recorded has the size that is wanted", () => {
    const world = worldOf({
      instance: instanceOf({ spec: both, status: runningStatus() }),
      guest: guestOf("running"),
    });
    check({ name: "", world, status: { state: "running", size: both } });
  });
});
