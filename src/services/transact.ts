import { hasCode, StrataError } from "../core/errors.ts";
import type { KeyedLock } from "../core/keyed-lock.ts";
import type { Revision, Store, Write } from "../store/store.ts";

/** Rounds before a verb gives up against writers that keep changing what it read. */
export const maxAttempts = 20;

/** What one round decided after reading: nothing to write, or these writes and what to answer once they stand. */
export interface Outcome<T> {
  writes: readonly Write[];
  result: (revision: Revision) => T;
}

/** An outcome that writes nothing. */
export function unchanged<T>(value: T): Outcome<T> {
  return { writes: [], result: () => value };
}

export interface Transaction {
  store: Store;
  locks: KeyedLock;
  /** What is under way, for the message: `create instance "web"`. */
  action: string;
  /** Rounds after the first queue up under this key, so that losers of one race don't race each other again. */
  lockKey: string;
}

/**
 * Reads, decides and commits, again from the start whenever another writer came first. `attempt` must read everything
 * it decides on and have no other effect.
 * @throws what `attempt` throws; Conflict after maxAttempts rounds; what the store throws.
 */
export async function transact<T>(transaction: Transaction, attempt: () => Promise<Outcome<T>>): Promise<T> {
  const { store, locks, action, lockKey } = transaction;
  const first = await round(store, attempt);
  if (first.committed) return first.value;
  return locks.run(lockKey, async () => {
    let cause = first.conflict;
    for (let count = 1; count < maxAttempts; count++) {
      const next = await round(store, attempt);
      if (next.committed) return next.value;
      cause = next.conflict;
    }
    throw new StrataError(
      "Conflict",
      `cannot ${action}: others changed the same things ${maxAttempts} times meanwhile; try again`,
      { cause },
    );
  });
}

type Round<T> = { committed: true; value: T } | { committed: false; conflict: StrataError };

async function round<T>(store: Store, attempt: () => Promise<Outcome<T>>): Promise<Round<T>> {
  const { writes, result } = await attempt();
  if (writes.length === 0) return { committed: true, value: result(0) };
  try {
    return { committed: true, value: result(await store.commit(writes)) };
  } catch (error) {
    if (hasCode(error, "Conflict")) return { committed: false, conflict: error };
    throw error;
  }
}
