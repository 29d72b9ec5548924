import { setImmediate as nextTurn } from "node:timers/promises";
import type { ReadAt } from "../images/partition-table.ts";

const readsPerTurn = 64;

/**
 * Everything that is read of a guest's disk comes through here, however the guest arranged it: so whatever else the
 * process does gets its turn, although most reads are answered from memory, and an abort ends any of it.
 */
export function takingTurns(read: ReadAt, signal?: AbortSignal): ReadAt {
  let reads = 0;
  return async (offset, length) => {
    signal?.throwIfAborted();
    if (++reads % readsPerTurn === 0) {
      await nextTurn();
      signal?.throwIfAborted();
    }
    return read(offset, length);
  };
}
