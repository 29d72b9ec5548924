/** The part of the conformance suite about what a guest's root has become since it was made. */
import { describe, expect, type TestContext, test } from "vitest";
import { compareRoots } from "../host/drift/compare-roots.ts";
import { type Bench, type GuestDriverHandle, noSignal } from "./conformance-bench.ts";
import type { GuestSpec } from "./driver.ts";

async function driftOf(get: () => Bench, context: TestContext) {
  const bench = get();
  const { harness } = bench;
  const { originalOf, writeRoot } = harness;
  if (!(await bench.driver()).drift || !originalOf || !writeRoot) return context.skip();
  return {
    bench,
    write: (uid: GuestSpec["uid"], path: string, text: string) => writeRoot.call(harness, uid, path, text),
    async read(handle: GuestDriverHandle, { root }: GuestSpec) {
      const { drift } = await bench.driver();
      if (!drift) throw new Error("the ability went away");
      const original = await originalOf.call(harness, root);
      const { listings, reading } = await drift.read(handle, { root, original }, noSignal);
      const unusual = compareRoots(original, listings).filter(({ usual }) => usual === undefined);
      return { reading, found: unusual.map(({ change, path }) => `${change} ${path}`) };
    },
  };
}

export function describeDrift(get: () => Bench): void {
  describe("drift", () => {
    test("a guest is as its image, then exactly what was written is found, running or not", async (context) => {
      const kit = await driftOf(get, context);
      const { spec, uid, handle } = await kit.bench.running();
      const first = await kit.read(handle, spec);
      expect(first.found).toEqual([]);
      expect(["running", "frozen", "paused"]).toContain(first.reading);
      const runId = (await kit.bench.inspect(uid))?.runId;
      await kit.write(uid, "etc/drifted", "by somebody");
      for (let repeat = 0; repeat < 2; repeat++) {
        expect((await kit.read(handle, spec)).found).toEqual(["added /etc/drifted"]);
      }
      expect(await kit.bench.inspect(uid)).toMatchObject({ state: "running", runId });
      const { graceMs } = kit.bench.harness.timeouts;
      await (await kit.bench.driver()).stop(handle, { graceMs }, noSignal);
      expect(await kit.read(handle, spec)).toEqual({ reading: "idle", found: ["added /etc/drifted"] });
    });

    test("of a guest that is gone is NotFound", async (context) => {
      const kit = await driftOf(get, context);
      const { spec, handle } = await kit.bench.created();
      await (await kit.bench.driver()).destroy(handle, noSignal);
      await expect(kit.read(handle, spec)).rejects.toMatchObject({ code: "NotFound" });
    });
  });
}
