/** Copies of simulated disks: nothing but the time they take and the guest that they depend on; and what guests have in mind. */
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { DiskCopies, GuestMemory } from "../driver.ts";
import type { FakeWorld } from "./fake-world.ts";

const copyingMs = 300;

export function fakeCopies(world: FakeWorld, uidOf: (handle: JsonObject) => Uid): DiskCopies<JsonObject> {
  return {
    memory: fakeMemory(world, uidOf),
    begin: (handle, { id, meanwhile, memory }, signal) => {
      const guest = uidOf(handle);
      return world.call("copy", guest, signal, async () => {
        world.copies.delete(id);
        const { state, runId = "", spec, thought } = world.require(guest);
        if (state !== "running") return { guest: "idle" };
        if (memory) world.memories.set(memory.to, { spec: structuredClone(spec), thought });
        await meanwhile([], signal);
        world.copies.set(id, { guest, runId, doneMs: world.clock.monotonicMs() + copyingMs });
        const sizeBytes = spec.memoryMib * 1024 ** 2;
        return { guest: "frozen", stillMs: 1, ...(memory && { memory: { sizeBytes } }) };
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

function fakeMemory(world: FakeWorld, uidOf: (handle: JsonObject) => Uid): GuestMemory<JsonObject> {
  return {
    putBack: (handle, { id, path }, signal) => {
      const uid = uidOf(handle);
      return world.call("put-back", uid, signal, () => {
        const guest = world.require(uid);
        if (guest.state === "running") throw new StrataError("Conflict", "the fake guest runs");
        guest.putBack = { id, path, after: guest.runId };
      });
    },
    leave: (handle, signal) => {
      const uid = uidOf(handle);
      return world.call("leave", uid, signal, () => {
        const guest = world.guests.get(uid);
        delete guest?.putBack;
        delete guest?.memory;
      });
    },
  };
}
