/** The part of the conformance suite about guests whose disks are copied at one moment. */
import { describe, expect, type TestContext, test } from "vitest";
import { type Bench, type GuestDriverHandle, noSignal } from "./conformance-bench.ts";

/** What a test works with; skips the test where the driver does not keep its guests still itself. */
async function stillness(get: () => Bench, context: TestContext) {
  const bench = get();
  if ((await bench.driver()).snapshots?.keptStillBy !== "driver") return context.skip();
  return {
    bench,
    async whileStill<Result>(handle: GuestDriverHandle, use: () => Promise<Result>) {
      const { snapshots } = await bench.driver();
      if (snapshots?.keptStillBy !== "driver") throw new Error("the ability went away");
      return snapshots.whileStill(handle, use, noSignal);
    },
  };
}

export function describeSnapshots(get: () => Bench): void {
  describe("snapshots", () => {
    test("are declared as an ability exactly where the driver has them", async () => {
      const driver = await get().driver();
      const { abilities } = await driver.fingerprint(noSignal);
      expect(abilities.includes("snapshots")).toBe(driver.snapshots !== undefined);
    });

    test("a running guest is kept still once for each call and goes on in the same run", async (context) => {
      const { bench, whileStill } = await stillness(get, context);
      const { uid, handle } = await bench.running();
      const before = await bench.inspect(uid);
      let calls = 0;
      for (let repeat = 0; repeat < 2; repeat++) {
        const held = await whileStill(handle, async () => ++calls);
        expect(held.result).toBe(repeat + 1);
        expect(["frozen", "paused"]).toContain(held.guest);
      }
      expect(await bench.inspect(uid)).toEqual(before);
    });

    test("a copy that fails is told, and the guest goes on", async (context) => {
      const { bench, whileStill } = await stillness(get, context);
      const { uid, handle } = await bench.running();
      const before = await bench.inspect(uid);
      await expect(whileStill(handle, () => Promise.reject(new Error("no space")))).rejects.toThrow(
        "no space",
      );
      expect(await bench.inspect(uid)).toEqual(before);
      expect((await whileStill(handle, async () => "again")).result).toBe("again");
    });

    test("a guest that does not run needs nothing", async (context) => {
      const { bench, whileStill } = await stillness(get, context);
      const { handle } = await bench.created();
      expect(await whileStill(handle, async () => "copied")).toEqual({ result: "copied", guest: "idle" });
    });
  });
}
