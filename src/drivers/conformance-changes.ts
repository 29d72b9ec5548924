/** The part of the conformance suite about what changes while a guest runs: its cards and its size. */
import { describe, expect, type TestContext, test } from "vitest";
import { type Bench, type GuestDriverHandle, noSignal } from "./conformance-bench.ts";
import type { Cards, GuestNic, GuestSpec, Resize } from "./driver.ts";

type Guest = Awaited<ReturnType<Bench["running"]>>;

/** What a test of cards works with; skips the test where the driver or its harness has none. */
async function cardsOf(get: () => Bench, context: TestContext) {
  const bench = get();
  const { harness } = bench;
  const { makeCard, observeCards, reachesCard } = harness;
  if (!(await bench.driver()).cards || !makeCard || !observeCards || !reachesCard) return context.skip();
  const cards = async (): Promise<Cards<GuestDriverHandle>> => {
    const found = (await bench.driver()).cards;
    if (!found) throw new Error("the ability went away");
    return found;
  };
  return {
    bench,
    makeCard: (network: "same" | "another") => makeCard.call(harness, network),
    attach: async (handle: GuestDriverHandle, nic: GuestNic) => (await cards()).attach(handle, nic, noSignal),
    detach: async (handle: GuestDriverHandle, nic: GuestNic) => (await cards()).detach(handle, nic, noSignal),
    /** These cards, no others, and each with a working way to its network. */
    async expectCards({ uid }: Guest, ...nics: readonly (GuestNic | undefined)[]): Promise<void> {
      const wanted = nics.map((nic) => nic?.macAddress).sort();
      expect((await observeCards.call(harness, uid)).sort()).toEqual(wanted);
      for (const nic of nics) {
        if (nic) expect(await reachesCard.call(harness, uid, nic), `${nic.name} works`).toBe(true);
      }
    },
    async restart({ uid, handle }: Guest): Promise<void> {
      await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
      await (await bench.driver()).start(handle, noSignal);
      await harness.untilReady?.(uid);
    },
  };
}

export function describeCards(get: () => Bench): void {
  describe("cards", () => {
    test("come and go while the guest runs, each call repeated, and last over a restart", async (context) => {
      const kit = await cardsOf(get, context);
      const guest = await kit.bench.running();
      const own = guest.spec.nics[0];
      const [near, far] = [await kit.makeCard("same"), await kit.makeCard("another")];
      const runId = (await kit.bench.inspect(guest.uid))?.runId;
      for (const nic of [near, near, far, far]) await kit.attach(guest.handle, nic);
      await kit.expectCards(guest, own, near, far);

      for (let repeat = 0; repeat < 2; repeat++) await kit.detach(guest.handle, near);
      await kit.expectCards(guest, own, far);
      expect((await kit.bench.inspect(guest.uid))?.runId).toBe(runId);
      await kit.restart(guest);
      await kit.expectCards(guest, own, far);

      await kit.attach(guest.handle, near);
      await kit.expectCards(guest, own, far, near);
      for (const nic of [far, near]) await kit.detach(guest.handle, nic);
      await kit.expectCards(guest, own);
    });

    test("of several networks are there from the start, and can be taken out", async (context) => {
      const kit = await cardsOf(get, context);
      const { nics } = await kit.bench.harness.makeGuest();
      const [near, far] = [await kit.makeCard("same"), await kit.makeCard("another")];
      const guest = await kit.bench.running({ nics: [...nics, far, near] });
      await kit.expectCards(guest, ...nics, far, near);
      await kit.detach(guest.handle, far);
      await kit.expectCards(guest, ...nics, near);
      await kit.restart(guest);
      await kit.expectCards(guest, ...nics, near);
    });

    test("of a guest that does not run are there, or gone, with its next start", async (context) => {
      const kit = await cardsOf(get, context);
      const created = await kit.bench.created();
      const card = await kit.makeCard("another");
      await kit.attach(created.handle, card);
      await (await kit.bench.driver()).start(created.handle, noSignal);
      await kit.bench.harness.untilReady?.(created.uid);
      await kit.expectCards(created, created.spec.nics[0], card);

      await (await kit.bench.driver()).stop(created.handle, { graceMs: 0 }, noSignal);
      for (let repeat = 0; repeat < 2; repeat++) await kit.detach(created.handle, card);
      await (await kit.bench.driver()).start(created.handle, noSignal);
      await kit.bench.harness.untilReady?.(created.uid);
      await kit.expectCards(created, created.spec.nics[0]);
    });

    test("go from one guest to another", async (context) => {
      const kit = await cardsOf(get, context);
      const [one, two] = [await kit.bench.running(), await kit.bench.running()];
      const card = await kit.makeCard("same");
      await kit.attach(one.handle, card);
      await kit.detach(one.handle, card);
      await kit.attach(two.handle, card);
      await kit.expectCards(one, one.spec.nics[0]);
      await kit.expectCards(two, two.spec.nics[0], card);
    });

    test("of a guest that is gone cannot be attached, and need not be detached", async (context) => {
      const kit = await cardsOf(get, context);
      const { handle } = await kit.bench.created();
      const card = await kit.makeCard("same");
      await (await kit.bench.driver()).destroy(handle, noSignal);
      await expect(kit.attach(handle, card)).rejects.toMatchObject({ code: "NotFound" });
      await kit.detach(handle, card);
    });

    test("that cannot be attached leave nothing", async (context) => {
      const kit = await cardsOf(get, context);
      const guest = await kit.bench.running();
      const card = { ...(await kit.makeCard("another")), bridge: "br-none" };
      if (kit.bench.harness.simulated) return context.skip();
      await expect(kit.attach(guest.handle, card)).rejects.toMatchObject({ code: "Unavailable" });
      await kit.detach(guest.handle, card);
      await kit.expectCards(guest, guest.spec.nics[0]);
    });
  });
}

/** In the middle of attaching a card, the caller dies. */
export function describeCardCrashes(get: () => Bench): void {
  test.for([0, 1, 2, 3, 4, 5])("on its way through attaching a card, step %i", async (step, context) => {
    const kit = await cardsOf(get, context);
    const { crashWhileAttaching } = kit.bench.harness;
    if (!crashWhileAttaching) return context.skip();
    const guest = await kit.bench.running();
    const [card, other] = [await kit.makeCard("another"), await kit.makeCard("same")];
    await crashWhileAttaching.call(kit.bench.harness, guest.handle, card, step);
    await kit.attach(guest.handle, card);
    await kit.expectCards(guest, guest.spec.nics[0], card);

    // Cut short, and never completed: what there is of it goes with the guest.
    await crashWhileAttaching.call(kit.bench.harness, guest.handle, other, step);
    await (await kit.bench.driver()).destroy(guest.handle, noSignal);
    expect(await kit.bench.harness.leaks()).toEqual([]);
  });
}

type Size = Pick<GuestSpec, "cpus" | "memoryMib">;

async function resizeOf(get: () => Bench, context: TestContext) {
  const bench = get();
  const { harness } = bench;
  const { observeSize } = harness;
  const resize = (await bench.driver()).resize;
  if (!resize || !observeSize) return context.skip();
  const apply = async (handle: GuestDriverHandle, size: Size) => {
    const driver = await bench.driver();
    await (driver.resize as Resize<GuestDriverHandle>).apply(handle, size, noSignal);
  };
  const observe = (guest: Guest) => observeSize.call(harness, guest.uid);
  return {
    bench,
    live: resize.live,
    apply,
    observe,
    /** What the guest sees of `size`: virtual machines keep some of their memory to themselves, always as much. */
    async expectSize(guest: Guest, size: Size, hiddenMib: number): Promise<void> {
      const seen = await observe(guest);
      expect(seen.cpus).toBe(size.cpus);
      const tolerance = hiddenMib === 0 ? 0 : hiddenMib * 0.5 + size.memoryMib * 0.05;
      expect(Math.abs(seen.memoryMib + hiddenMib - size.memoryMib)).toBeLessThanOrEqual(tolerance);
    },
  };
}

export function describeResize(get: () => Bench): void {
  describe("resize", () => {
    test("what is declared live changes while the guest runs, and lasts over a restart", async (context) => {
      const kit = await resizeOf(get, context);
      const guest = await kit.bench.running();
      const { cpus, memoryMib } = guest.spec;
      const hiddenMib = memoryMib - (await kit.observe(guest)).memoryMib;
      const larger = {
        cpus: kit.live.cpus ? cpus + 1 : cpus,
        memoryMib: kit.live.memory === "no" ? memoryMib : memoryMib + 256,
      };
      const before = await kit.bench.inspect(guest.uid);
      for (let repeat = 0; repeat < 2; repeat++) await kit.apply(guest.handle, larger);
      await kit.expectSize(guest, larger, hiddenMib);
      if (kit.live.memory === "both") {
        const smaller = { cpus, memoryMib: memoryMib + 128 };
        for (let repeat = 0; repeat < 2; repeat++) await kit.apply(guest.handle, smaller);
        await kit.expectSize(guest, smaller, hiddenMib);
        await kit.apply(guest.handle, larger);
        await kit.expectSize(guest, larger, hiddenMib);
      }
      expect(await kit.bench.inspect(guest.uid)).toEqual(before);

      await (await kit.bench.driver()).stop(guest.handle, { graceMs: 0 }, noSignal);
      await (await kit.bench.driver()).start(guest.handle, noSignal);
      await kit.bench.harness.untilReady?.(guest.uid);
      await kit.expectSize(guest, larger, hiddenMib);
    });

    test("what is not declared live is Unsupported, and nothing changes", async (context) => {
      const kit = await resizeOf(get, context);
      const { live } = kit;
      if (live.cpus && live.memory !== "no") return context.skip();
      const guest = await kit.bench.running();
      const before = await kit.observe(guest);
      const { cpus, memoryMib } = guest.spec;
      const size = live.cpus ? { cpus, memoryMib: memoryMib + 256 } : { cpus: cpus + 1, memoryMib };
      await expect(kit.apply(guest.handle, size)).rejects.toMatchObject({ code: "Unsupported" });
      expect(await kit.observe(guest)).toEqual(before);
    });

    test("of a guest that does not run is there with its next start", async (context) => {
      const kit = await resizeOf(get, context);
      const created = await kit.bench.created();
      const size = { cpus: created.spec.cpus + 1, memoryMib: created.spec.memoryMib + 128 };
      await kit.apply(created.handle, size);
      await (await kit.bench.driver()).start(created.handle, noSignal);
      await kit.bench.harness.untilReady?.(created.uid);
      expect((await kit.observe(created)).cpus).toBe(size.cpus);
      expect((await kit.bench.harness.observeSpec(created.uid)).memoryMib).toBe(size.memoryMib);
    });

    test("of a guest that is gone is NotFound", async (context) => {
      const kit = await resizeOf(get, context);
      const { handle, spec } = await kit.bench.created();
      await (await kit.bench.driver()).destroy(handle, noSignal);
      await expect(kit.apply(handle, spec)).rejects.toMatchObject({ code: "NotFound" });
    });
  });
}
