/**
 * What every driver must do, told as tests. Each test runs twice: with one driver from beginning to end, and with a new
 * driver before every call, as if the daemon had been killed in between. After each test everything is destroyed and
 * the host must be as clean as before.
 */
import { setImmediate } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { newUid, type Uid } from "../core/ids.ts";
import { systemRandom } from "../core/random.ts";
import { fingerprintSchema } from "../kinds/host.ts";
import { type Bench, type DriverHarness, makeBench, noSignal, until } from "./conformance-bench.ts";
import { describeCardCrashes, describeCards, describeResize } from "./conformance-changes.ts";
import { describeDrift } from "./conformance-drift.ts";
import { describeMemory } from "./conformance-memory.ts";
import { describeConsole, describeExec, describeTerminal } from "./conformance-sessions.ts";
import { describeSnapshots } from "./conformance-snapshots.ts";
import { describeVolumes } from "./conformance-volumes.ts";
import type { GuestDriver } from "./driver.ts";

/** From a guest's death to the hint, by contract. */
const hintWithinMs = 1_000;

/** One driver from beginning to end; a new one before each call; callers that are killed. */
type Part = "same" | "anew" | "killed";

/**
 * Runs the suite against a driver. `makeDriver` is called once; the harness is disposed of at the end. A driver whose guests take
 * long to start has its `parts` in several files, which run side by side.
 */
export function driverConformance(
  name: string,
  makeDriver: () => Promise<DriverHarness>,
  parts: readonly Part[] = ["same", "anew", "killed"],
): void {
  describe(`driver ${name}`, () => {
    let harness: DriverHarness;
    beforeAll(async () => {
      harness = await makeDriver();
      expect(await harness.leaks(), "what earlier runs left").toEqual([]);
    });
    afterAll(() => harness?.dispose());

    const titles = { same: "one driver all along", anew: "a new driver before each call" };
    const whole = (["same", "anew"] as const).filter((part) => parts.includes(part));
    describe.each(whole.map((part) => [titles[part], part]))("%s", (_title, part) => {
      let bench: Bench;
      beforeAll(async () => {
        bench = await makeBench(harness, part === "anew");
      });
      afterEach(() => cleanUp(bench));
      const get = () => bench;
      describeLife(get);
      describeStop(get);
      describeEnd(get);
      describeCreate(get);
      describeListing(get);
      describeEvents(get);
      describeExec(get);
      describeTerminal(get);
      describeConsole(get);
      describeCards(get);
      describeResize(get);
      describeVolumes(get);
      describeDrift(get);
      describeSnapshots(get);
      describeMemory(get);
    });

    if (!parts.includes("killed")) return;
    describe("the caller is killed", () => {
      let bench: Bench;
      beforeAll(async () => {
        bench = await makeBench(harness, true);
      });
      afterEach(() => cleanUp(bench));
      describeCrashes(() => bench);
      describeCardCrashes(() => bench);
    });
  });
}

function describeLife(get: () => Bench): void {
  test("tells what it can do, and what it tells fits its methods", async () => {
    const driver = await get().driver();
    const fingerprint = fingerprintSchema.parse(await driver.fingerprint(noSignal));
    expect(fingerprint).toMatchObject({ available: true, message: "" });
    expect(fingerprint.types.length).toBeGreaterThan(0);
    expect(fingerprint.abilities.includes("exec")).toBe(driver.exec !== undefined);
    expect(fingerprint.abilities.includes("console")).toBe(driver.console !== undefined);
    expect(fingerprint.abilities.includes("cards")).toBe(driver.cards !== undefined);
    expect(fingerprint.abilities.includes("resize")).toBe(driver.resize !== undefined);
    expect(fingerprint.abilities.includes("drift")).toBe(driver.drift !== undefined);
    if (fingerprint.abilities.includes("exec-tty")) expect(fingerprint.abilities).toContain("exec");
  });

  test("create, start, stop and destroy, each repeated", async () => {
    const bench = get();
    const { spec, uid, handle } = await bench.created();
    expect(await (await bench.driver()).create(spec, noSignal)).toEqual(handle);
    expect(await bench.inspect(uid)).toEqual({ uid, handle, state: "created" });

    await (await bench.driver()).start(handle, noSignal);
    const first = await bench.inspect(uid);
    expect(first).toMatchObject({ state: "running", runId: expect.any(String), pid: expect.any(Number) });
    expect(first?.exit).toBeUndefined();
    await (await bench.driver()).start(handle, noSignal);
    expect(await bench.inspect(uid)).toEqual(first);
    await bench.harness.untilReady?.(uid);

    for (let repeat = 0; repeat < 2; repeat++) {
      await (await bench.driver()).stop(handle, { graceMs: bench.harness.timeouts.graceMs }, noSignal);
      const stopped = await bench.inspect(uid);
      expect(stopped).toMatchObject({ state: "stopped", exit: { reason: "requested" } });
      expect(stopped?.pid).toBeUndefined();
    }
    for (let repeat = 0; repeat < 2; repeat++) {
      await (await bench.driver()).destroy(handle, noSignal);
      expect(await bench.inspect(uid)).toBeUndefined();
    }
  });

  test("each start is a run of its own; looking and repeating does not change the run", async () => {
    const bench = get();
    const { spec, uid, handle } = await bench.running();
    const first = await bench.inspect(uid);
    await (await bench.driver()).create(spec, noSignal);
    await (await bench.driver()).list();
    expect((await bench.inspect(uid))?.runId).toBe(first?.runId);

    await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
    await (await bench.driver()).start(handle, noSignal);
    const second = await bench.inspect(uid);
    expect(second).toMatchObject({ state: "running" });
    expect(second?.exit).toBeUndefined();
    expect(second?.runId).not.toBe(first?.runId);
  });

  test("destroys a running guest", async () => {
    const bench = get();
    const { uid, handle } = await bench.running();
    await (await bench.driver()).destroy(handle, noSignal);
    expect(await bench.inspect(uid)).toBeUndefined();
    expect(await bench.harness.leaks()).toEqual([]);
  });

  test("knows nothing of a guest it never saw, and cannot start a destroyed one", async () => {
    const bench = get();
    expect(await bench.inspect(newUid(systemRandom))).toBeUndefined();
    const { handle } = await bench.created();
    await (await bench.driver()).destroy(handle, noSignal);
    await expect((await bench.driver()).start(handle, noSignal)).rejects.toMatchObject({ code: "NotFound" });
    await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
  });
}

function describeStop(get: () => Bench): void {
  test("with grace, the guest shuts down by itself", async () => {
    const bench = get();
    const { uid, handle } = await bench.running();
    const { graceMs } = bench.harness.timeouts;
    const before = systemClock.monotonicMs();
    await (await bench.driver()).stop(handle, { graceMs }, noSignal);
    expect(systemClock.monotonicMs() - before).toBeLessThan(graceMs);
    expect(await bench.inspect(uid)).toMatchObject({ state: "stopped", exit: { reason: "requested" } });
  });

  test("without grace, it is killed at once", async () => {
    const bench = get();
    const { uid, handle } = await bench.running();
    await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
    expect(await bench.inspect(uid)).toMatchObject({ state: "stopped", exit: { reason: "requested" } });
  });

  test("a guest that does not listen is killed when the grace period ends", async (context) => {
    const bench = get();
    if (!bench.harness.makeStubbornGuest) return context.skip();
    const spec = await bench.harness.makeStubbornGuest();
    const handle = await (await bench.driver()).create(spec, noSignal);
    await (await bench.driver()).start(handle, noSignal);
    await bench.harness.untilReady?.(spec.uid);
    const before = systemClock.monotonicMs();
    await (await bench.driver()).stop(handle, { graceMs: 500 }, noSignal);
    expect(systemClock.monotonicMs() - before).toBeGreaterThanOrEqual(490);
    expect(await bench.inspect(spec.uid)).toMatchObject({ state: "stopped", exit: { reason: "requested" } });
  });

  test("a guest that never ran stays created", async () => {
    const bench = get();
    const { uid, handle } = await bench.created();
    await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
    expect((await bench.inspect(uid))?.state).not.toBe("running");
  });
}

function describeEnd(get: () => Bench): void {
  test("a guest that shuts itself down has powered off, and can start again", async () => {
    const bench = get();
    const { uid, handle } = await bench.running();
    const first = await bench.inspect(uid);
    await bench.harness.powerOffGuest(uid);
    const ended = await bench.untilState(uid, "stopped");
    expect(ended).toMatchObject({ exit: { reason: "poweroff", message: expect.any(String) } });
    expect(ended.runId).toBe(first?.runId);
    await (await bench.driver()).start(handle, noSignal);
    expect((await bench.inspect(uid))?.runId).not.toBe(first?.runId);
  });

  test("a guest that was killed has crashed, and can start again", async () => {
    const bench = get();
    const { uid, handle } = await bench.running();
    await bench.harness.killGuest(uid);
    const ended = await bench.untilState(uid, "stopped");
    expect(ended).toMatchObject({ exit: { reason: "crash", message: expect.any(String) } });
    await (await bench.driver()).start(handle, noSignal);
    const again = await bench.inspect(uid);
    expect(again).toMatchObject({ state: "running" });
    expect(again?.exit).toBeUndefined();
  });
}

function describeCreate(get: () => Bench): void {
  test("a changed spec is taken over by a stopped guest, and never by a running one", async () => {
    const bench = get();
    const { spec, uid, handle } = await bench.running();
    const runId = (await bench.inspect(uid))?.runId;
    const changed = { ...spec, memoryMib: spec.memoryMib + 64, hostname: "renamed" };
    await (await bench.driver()).create(changed, noSignal);
    expect(await bench.inspect(uid)).toMatchObject({ state: "running", runId });
    expect(await bench.harness.observeSpec(uid)).toEqual({
      memoryMib: spec.memoryMib,
      hostname: spec.hostname,
    });

    await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
    const next = await (await bench.driver()).create(changed, noSignal);
    expect(await bench.inspect(uid)).toMatchObject({ state: "stopped", exit: { reason: "requested" } });
    await (await bench.driver()).start(next, noSignal);
    expect(await bench.harness.observeSpec(uid)).toEqual({
      memoryMib: changed.memoryMib,
      hostname: "renamed",
    });
  });

  test("a call that was cancelled before it began does nothing", async () => {
    const bench = get();
    const spec = await bench.harness.makeGuest();
    const reason = new Error("cancelled");
    const driver = await bench.driver();
    await expect(driver.create(spec, AbortSignal.abort(reason))).rejects.toBe(reason);
    expect(await bench.inspect(spec.uid)).toBeUndefined();
    await bench.harness.forgetGuest?.(spec.uid);
  });
}

function describeListing(get: () => Bench): void {
  test("lists all guests once each, in their states, orphans included", async () => {
    const bench = get();
    const [one, two, three] = [await bench.created(), await bench.running(), await bench.running()];
    await (await bench.driver()).stop(three.handle, { graceMs: 0 }, noSignal);
    const listed = await (await bench.harness.reopen()).list();
    const states = Object.fromEntries(listed.map((guest) => [guest.uid, guest.state]));
    expect(listed).toHaveLength(3);
    expect(states).toEqual({ [one.uid]: "created", [two.uid]: "running", [three.uid]: "stopped" });
    for (const guest of listed) expect(guest).toEqual(await bench.inspect(guest.uid));

    const found = listed.find((guest) => guest.uid === two.uid);
    await (await bench.driver()).destroy(found?.handle ?? {}, noSignal);
    expect((await (await bench.driver()).list()).map((guest) => guest.uid).sort()).toEqual(
      [one.uid, three.uid].sort(),
    );
  });

  test("guests start side by side", async () => {
    const bench = get();
    const guests = [await bench.created(), await bench.created()];
    const driver = await bench.driver();
    await Promise.all(guests.map(({ handle }) => driver.start(handle, noSignal)));
    const runs = await Promise.all(guests.map(({ uid }) => bench.inspect(uid)));
    expect(runs.map((guest) => guest?.state)).toEqual(["running", "running"]);
    expect(new Set(runs.map((guest) => guest?.runId)).size).toBe(2);
  });
}

function describeEvents(get: () => Bench): void {
  test("hints within a second that a guest died which ran before anybody listened", async () => {
    const bench = get();
    const { uid } = await bench.running();
    await expectHint(await bench.driver(), uid, () => bench.harness.killGuest(uid));
    expect(await bench.untilState(uid, "stopped")).toMatchObject({ exit: { reason: "crash" } });
  });

  test("hints that a guest died which was made while somebody listened", async () => {
    const bench = get();
    const driver = await bench.driver();
    const listening = new AbortController();
    const hints = listen(driver, listening.signal);
    const spec = await bench.harness.makeGuest();
    const handle = await driver.create(spec, noSignal);
    await driver.start(handle, noSignal);
    await bench.harness.untilReady?.(spec.uid);
    hints.seen.delete(spec.uid);
    await bench.harness.killGuest(spec.uid);
    await until(() => hints.seen.has(spec.uid), hintWithinMs, "a hint of the guest's death");
    listening.abort();
    await hints.ended;
  });

  test("the hint comes late enough to see the end: looking at the last hint is enough", async () => {
    const bench = get();
    const { uid } = await bench.running();
    const driver = await bench.driver();
    const listening = new AbortController();
    const states: (string | undefined)[] = [];
    const looking = (async () => {
      for await (const hint of driver.events(listening.signal)) {
        if (hint.uid === uid) states.push((await driver.inspect(uid))?.state);
      }
    })();
    await setImmediate();
    await bench.harness.killGuest(uid);
    await until(() => states.at(-1) === "stopped", hintWithinMs, "an inspection that says stopped");
    listening.abort();
    await looking;
  });

  test("ends quietly when the listener goes", async () => {
    const listening = new AbortController();
    const hints = listen(await get().driver(), listening.signal);
    listening.abort();
    await hints.ended;
  });
}

function describeCrashes(get: () => Bench): void {
  test.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])("on its way through create and start, step %i", async (step) => {
    const bench = get();
    const { harness } = bench;
    if (!harness.crashWhileStarting) return;
    const spec = await harness.makeGuest();
    await harness.crashWhileStarting(spec, step);
    const found = await bench.inspect(spec.uid);
    const listed = (await (await bench.driver()).list()).map((guest) => guest.uid);
    expect(listed).toEqual(found === undefined ? [] : [spec.uid]);
    const runId = found?.state === "running" ? found.runId : undefined;

    const handle = await (await bench.driver()).create(spec, noSignal);
    await (await bench.driver()).start(handle, noSignal);
    const running = await bench.inspect(spec.uid);
    expect(running).toMatchObject({ state: "running" });
    if (runId !== undefined) expect(running?.runId).toBe(runId);
    await (await bench.driver()).destroy(handle, noSignal);
    expect(await bench.inspect(spec.uid)).toBeUndefined();
  });

  test.each([2, 5, 8])("and the half-made guest is destroyed, step %i", async (step) => {
    const bench = get();
    if (!bench.harness.crashWhileStarting) return;
    const spec = await bench.harness.makeGuest();
    await bench.harness.crashWhileStarting(spec, step);
    for (const guest of await (await bench.driver()).list()) {
      await (await bench.driver()).destroy(guest.handle, noSignal);
    }
    if ((await bench.inspect(spec.uid)) === undefined) await bench.harness.forgetGuest?.(spec.uid);
    expect(await (await bench.driver()).list()).toEqual([]);
    expect(await bench.harness.leaks()).toEqual([]);
  });
}

async function cleanUp(bench: Bench): Promise<void> {
  const driver = await bench.harness.reopen();
  for (const guest of await driver.list()) {
    await driver.destroy(guest.handle, noSignal);
    await bench.harness.forgetGuest?.(guest.uid);
  }
  expect(await bench.harness.leaks()).toEqual([]);
}

/** Collects hints until the signal aborts. */
function listen(driver: GuestDriver, signal: AbortSignal): { seen: Set<Uid>; ended: Promise<void> } {
  const seen = new Set<Uid>();
  const ended = (async () => {
    for await (const { uid } of driver.events(signal)) seen.add(uid);
  })();
  return { seen, ended };
}

async function expectHint(driver: GuestDriver, uid: Uid, action: () => Promise<void>): Promise<void> {
  const listening = new AbortController();
  const hints = listen(driver, listening.signal);
  await setImmediate();
  hints.seen.delete(uid);
  await action();
  await until(() => hints.seen.has(uid), hintWithinMs, `a hint for guest ${uid}`);
  listening.abort();
  await hints.ended;
}
