/** The part of the conformance suite about guests whose disks are copied at one moment. */
import { describe, expect, type TestContext, test } from "vitest";
import { newUid } from "../core/ids.ts";
import { systemRandom } from "../core/random.ts";
import { type Bench, type GuestDriverHandle, noSignal } from "./conformance-bench.ts";
import type { DiskCopies, GuestSpec } from "./driver.ts";

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

    test("disks are copied while the guest goes on, until it is forgotten", async (context) => {
      const { bench, copies } = await copying(get, context);
      const { uid, handle, spec } = await bench.running();
      const before = await bench.inspect(uid);
      const [id, disks] = [newUid(systemRandom), disksOf(spec)];
      let calls = 0;
      const meanwhile = async () => {
        calls++;
      };
      const begun = await (await copies()).begin(handle, { id, disks, meanwhile }, noSignal);
      expect(["frozen", "paused"]).toContain(begun.guest);
      expect(calls).toBe(1);
      for (let repeat = 0; repeat < 2; repeat++) {
        expect(await (await copies()).complete(id, noSignal)).toBe(true);
      }
      expect(await bench.inspect(uid)).toEqual(before);
      for (let repeat = 0; repeat < 2; repeat++) await (await copies()).forget(id);
      expect(await (await copies()).complete(id, noSignal)).toBe(false);
    });

    test("copies that cannot begin leave nothing, and the guest goes on", async (context) => {
      const { bench, copies } = await copying(get, context);
      const { uid, handle, spec } = await bench.running();
      const before = await bench.inspect(uid);
      const [id, disks] = [newUid(systemRandom), disksOf(spec)];
      const meanwhile = () => Promise.reject(new Error("no space"));
      const begin = (await copies()).begin(handle, { id, disks, meanwhile }, noSignal);
      await expect(begin).rejects.toThrow("no space");
      expect(await (await copies()).complete(id, noSignal)).toBe(false);
      expect(await bench.inspect(uid)).toEqual(before);
    });

    test("copies end with the guest, and that is told", async (context) => {
      const { bench, copies } = await copying(get, context);
      const { uid, handle, spec } = await bench.running();
      const id = newUid(systemRandom);
      const request = { id, disks: disksOf(spec), meanwhile: async () => {} };
      await (await copies()).begin(handle, request, noSignal);
      await bench.harness.killGuest(uid);
      await bench.untilState(uid, "stopped");
      await expect((await copies()).complete(id, noSignal)).rejects.toMatchObject({ code: "Unavailable" });
      await (await copies()).forget(id);
      expect(await (await copies()).complete(id, noSignal)).toBe(false);
      expect(await (await copies()).begin(handle, request, noSignal)).toEqual({ guest: "idle" });
    });
  });
}

/** As above, where the driver copies disks of its guests itself. */
async function copying(get: () => Bench, context: TestContext) {
  const bench = get();
  const copies = async (): Promise<DiskCopies<GuestDriverHandle> | undefined> => {
    const { snapshots } = await bench.driver();
    return snapshots?.keptStillBy === "driver" ? snapshots.copies : undefined;
  };
  if (!(await copies())) return context.skip();
  const required = async () => {
    const found = await copies();
    if (!found) throw new Error("the ability went away");
    return found;
  };
  return { bench, copies: required };
}

function disksOf({ root }: GuestSpec) {
  return root.type === "disk" ? [{ from: root.path, to: `${root.path}.copy` }] : [];
}
