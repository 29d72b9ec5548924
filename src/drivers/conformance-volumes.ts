/** The part of the conformance suite about volumes that come and go while a guest runs. */
import { describe, expect, type TestContext, test } from "vitest";
import { type Bench, type GuestDriverHandle, noSignal } from "./conformance-bench.ts";
import type { GuestVolume, Volumes } from "./driver.ts";

/** What a test of volumes works with; skips the test where the driver or its harness has none. */
async function volumesOf(get: () => Bench, context: TestContext) {
  const bench = get();
  const { harness } = bench;
  const { makeVolume, dropVolume, writeVolume, readVolume } = harness;
  if (!(await bench.driver()).volumes || !makeVolume || !dropVolume || !writeVolume || !readVolume) {
    return context.skip();
  }
  const volumes = async (): Promise<Volumes<GuestDriverHandle>> => {
    const found = (await bench.driver()).volumes;
    if (!found) throw new Error("the ability went away");
    return found;
  };
  return {
    bench,
    makeVolume: () => makeVolume.call(harness),
    /** Nothing may use it any more. */
    dropVolume: (volume: GuestVolume) => dropVolume.call(harness, volume),
    write: (uid: GuestUid, volume: GuestVolume, text: string) => writeVolume.call(harness, uid, volume, text),
    read: (uid: GuestUid, volume: GuestVolume) => readVolume.call(harness, uid, volume),
    attach: async (handle: GuestDriverHandle, volume: GuestVolume) =>
      (await volumes()).attach(handle, volume, noSignal),
    detach: async (handle: GuestDriverHandle, volume: GuestVolume) =>
      (await volumes()).detach(handle, volume, noSignal),
    async restart({ uid, handle }: Awaited<ReturnType<Bench["running"]>>): Promise<void> {
      await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
      await (await bench.driver()).start(handle, noSignal);
      await harness.untilReady?.(uid);
    },
  };
}

type GuestUid = Awaited<ReturnType<Bench["running"]>>["uid"];

export function describeVolumes(get: () => Bench): void {
  describe("volumes", () => {
    test("come and go while the guest runs, each call repeated, and last over a restart", async (context) => {
      const kit = await volumesOf(get, context);
      const guest = await kit.bench.running();
      const [one, two] = [await kit.makeVolume(), await kit.makeVolume()];
      const runId = (await kit.bench.inspect(guest.uid))?.runId;
      for (const volume of [one, one, two, two]) await kit.attach(guest.handle, volume);
      await kit.write(guest.uid, one, "first");
      await kit.write(guest.uid, two, "second");

      for (let repeat = 0; repeat < 2; repeat++) await kit.detach(guest.handle, one);
      expect(await kit.read(guest.uid, one)).toBeUndefined();
      expect(await kit.read(guest.uid, two)).toBe("second");
      expect((await kit.bench.inspect(guest.uid))?.runId).toBe(runId);
      await kit.restart(guest);
      expect(await kit.read(guest.uid, two)).toBe("second");

      await kit.attach(guest.handle, one);
      expect(await kit.read(guest.uid, one)).toBe("first");
      for (const volume of [one, two]) await kit.detach(guest.handle, volume);
      for (const volume of [one, two]) await kit.dropVolume(volume);
    });

    test("go from one guest to another with all that was written", async (context) => {
      const kit = await volumesOf(get, context);
      const volume = await kit.makeVolume();
      const first = await kit.bench.running({ volumes: [volume] });
      await kit.write(first.uid, volume, "kept");
      await kit.detach(first.handle, volume);
      const second = await kit.bench.running();
      await kit.attach(second.handle, volume);
      expect(await kit.read(second.uid, volume)).toBe("kept");
      expect(await kit.read(first.uid, volume)).toBeUndefined();
      await (await kit.bench.driver()).destroy(second.handle, noSignal);
      await kit.dropVolume(volume);
    });

    test("of a guest that does not run are there, or gone, with its next start", async (context) => {
      const kit = await volumesOf(get, context);
      const guest = await kit.bench.created();
      const volume = await kit.makeVolume();
      await kit.attach(guest.handle, volume);
      await (await kit.bench.driver()).start(guest.handle, noSignal);
      await kit.bench.harness.untilReady?.(guest.uid);
      await kit.write(guest.uid, volume, "here");

      await (await kit.bench.driver()).stop(guest.handle, { graceMs: 0 }, noSignal);
      for (let repeat = 0; repeat < 2; repeat++) await kit.detach(guest.handle, volume);
      await (await kit.bench.driver()).start(guest.handle, noSignal);
      await kit.bench.harness.untilReady?.(guest.uid);
      expect(await kit.read(guest.uid, volume)).toBeUndefined();
      await kit.dropVolume(volume);
    });

    test("of a guest that is gone cannot be attached, and need not be detached", async (context) => {
      const kit = await volumesOf(get, context);
      const { handle } = await kit.bench.created();
      const volume = await kit.makeVolume();
      await (await kit.bench.driver()).destroy(handle, noSignal);
      await expect(kit.attach(handle, volume)).rejects.toMatchObject({ code: "NotFound" });
      await kit.detach(handle, volume);
      await kit.dropVolume(volume);
    });
  });
}
