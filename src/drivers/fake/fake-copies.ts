/** Copies of simulated disks: nothing but the time they take and the guest that they depend on. */
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { DiskCopies } from "../driver.ts";
import type { FakeWorld } from "./fake-world.ts";

const copyingMs = 300;

export function fakeCopies(world: FakeWorld, uidOf: (handle: JsonObject) => Uid): DiskCopies<JsonObject> {
  return {
    begin: (handle, { id, meanwhile }, signal) => {
      const guest = uidOf(handle);
      return world.call("copy", guest, signal, async () => {
        world.copies.delete(id);
        const { state, runId = "" } = world.require(guest);
        if (state !== "running") return { guest: "idle" };
        await meanwhile([], signal);
        world.copies.set(id, { guest, runId, doneMs: world.clock.monotonicMs() + copyingMs });
        return { guest: "frozen", stillMs: 1 };
      });
    },
    complete: async (id, signal) => {
      const copy = world.copies.get(id);
      if (!copy) return false;
      await world.clock.sleep(Math.max(0, copy.doneMs - world.clock.monotonicMs()), signal);
      const { state, runId } = world.guests.get(copy.guest) ?? {};
      if (state === "running" && runId === copy.runId) return true;
      throw new StrataError("Unavailable", "the disks were not copied to the end: the fake guest has ended");
    },
    forget: async (id) => {
      const copy = world.copies.get(id);
      if (!copy) return;
      await world.call("forget", copy.guest, undefined, () => {
        world.copies.delete(id);
      });
    },
  };
}
