/** The part of the conformance suite about guests that go on where they were when their memory was kept. */
import { copyFile, rename } from "node:fs/promises";
import { describe, expect, type TestContext, test } from "vitest";
import { newUid } from "../core/ids.ts";
import { systemRandom } from "../core/random.ts";
import { type Bench, type GuestDriverHandle, noSignal } from "./conformance-bench.ts";
import type { DiskCopies, GuestSpec } from "./driver.ts";

interface Guest {
  spec: GuestSpec;
  uid: GuestSpec["uid"];
  handle: GuestDriverHandle;
}

/** What a test works with; skips the test where the driver cannot keep memory. */
async function keeping(get: () => Bench, context: TestContext) {
  const bench = get();
  const { remember, recall, memoryPath } = bench.harness;
  const copies = async (): Promise<DiskCopies<GuestDriverHandle> | undefined> => {
    const { snapshots } = await bench.driver();
    return snapshots?.keptStillBy === "driver" ? snapshots.copies : undefined;
  };
  if (!(await copies())?.memory || !remember || !recall || !memoryPath) return context.skip();
  const required = async () => {
    const found = await copies();
    if (!found?.memory) throw new Error("the ability went away");
    return { ...found, memory: found.memory };
  };
  return {
    ...{ bench, remember, recall, required },
    /** All of it is kept; it knows the word `then` at that moment, and `now` afterwards. */
    async kept({ uid, handle, spec }: Guest) {
      const path = memoryPath();
      const id = newUid(systemRandom);
      await remember(uid, "then");
      const disks = spec.root.type === "disk" ? [{ from: spec.root.path, to: `${spec.root.path}.kept` }] : [];
      const request = { id, disks, meanwhile: async () => {}, memory: { to: path } };
      const begun = await (await required()).begin(handle, request, noSignal);
      expect(begun).toMatchObject({ memory: { sizeBytes: expect.any(Number) } });
      expect(await (await required()).complete(id, noSignal)).toBe(true);
      await (await required()).forget(id);
      expect(await recall(uid)).toBe("then");
      await remember(uid, "now");
      return path;
    },
    async stopAndPutBack({ handle, spec }: Guest, path: string, id: string) {
      await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
      if (spec.root.type === "disk") {
        await copyFile(`${spec.root.path}.kept`, `${spec.root.path}.new`);
        await rename(`${spec.root.path}.new`, spec.root.path);
      }
      await (await required()).memory.putBack(handle, { id, path }, noSignal);
      const { memory } = (await bench.inspect(spec.uid)) ?? {};
      expect(memory).toEqual({ id, state: "waiting", message: "" });
    },
  };
}

export function describeMemory(get: () => Bench): void {
  describe("memory", () => {
    test("is declared as an ability exactly where the driver has it", async () => {
      const driver = await get().driver();
      const { snapshots } = driver;
      const has = snapshots?.keptStillBy === "driver" && snapshots.copies?.memory !== undefined;
      const { abilities } = await driver.fingerprint(noSignal);
      expect(abilities.includes("memory")).toBe(has);
    });

    test("a guest goes on where it was, once for each time that it is put back", async (context) => {
      const { bench, kept, stopAndPutBack, recall } = await keeping(get, context);
      const guest = await bench.running();
      const { uid, handle } = guest;
      const path = await kept(guest);
      const { runId } = (await bench.inspect(uid)) ?? {};
      for (const id of ["first", "second"]) {
        await stopAndPutBack(guest, path, id);
        for (let repeat = 0; repeat < 2; repeat++) await (await bench.driver()).start(handle, noSignal);
        const observed = await bench.inspect(uid);
        expect(observed).toMatchObject({ state: "running", memory: { id, state: "resumed", message: "" } });
        expect(observed?.runId).not.toBe(runId);
        expect(await recall(uid)).toBe("then");
      }
      await (await bench.driver()).stop(handle, { graceMs: 0 }, noSignal);
      await (await bench.driver()).start(handle, noSignal);
      expect((await bench.inspect(uid))?.memory).toBeUndefined();
      await bench.harness.untilReady?.(uid);
      expect(await recall(uid)).toBe("");
    });

    test("a guest that would be another one boots, and that is told", async (context) => {
      const { bench, kept, stopAndPutBack, recall } = await keeping(get, context);
      const guest = await bench.running();
      const { uid, handle, spec } = guest;
      const path = await kept(guest);
      await stopAndPutBack(guest, path, "larger");
      await (await bench.driver()).create({ ...spec, memoryMib: spec.memoryMib + 32 }, noSignal);
      await (await bench.driver()).start(handle, noSignal);
      const { memory } = (await bench.inspect(uid)) ?? {};
      expect(memory).toEqual({ id: "larger", state: "booted", message: expect.stringMatching(/./) });
      await bench.harness.untilReady?.(uid);
      expect(await recall(uid)).toBe("");
    });

    test("what is not to be used any more is not used", async (context) => {
      const { bench, kept, stopAndPutBack, required } = await keeping(get, context);
      const guest = await bench.running();
      const { uid, handle } = guest;
      const path = await kept(guest);
      const { memory } = await required();
      await expect(memory.putBack(handle, { id: "early", path }, noSignal)).rejects.toMatchObject({
        code: "Conflict",
      });
      await stopAndPutBack(guest, path, "left");
      for (let repeat = 0; repeat < 2; repeat++) {
        await (await required()).memory.leave(handle, noSignal);
        expect((await bench.inspect(uid))?.memory).toBeUndefined();
      }
      await (await bench.driver()).start(handle, noSignal);
      expect((await bench.inspect(uid))?.memory).toBeUndefined();
    });
  });
}
