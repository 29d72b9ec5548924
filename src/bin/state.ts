import { join } from "node:path";
import { createMemoryStore } from "../store/memory/memory-store.ts";
import { openSqliteStore } from "../store/sqlite/sqlite-store.ts";
import type { Store } from "../store/store.ts";
import type { Settings } from "./settings.ts";

export interface State {
  store: Store;
  close(): Promise<void>;
}

/**
 * The state of a daemon, which is its alone: one daemon a state directory, whether its host is real or pretended, and also when
 * the state is in memory. A file of its own is the lock, which the kernel lets go of when the process ends.
 * @throws Unavailable when another daemon has the directory.
 */
export async function openState({ stateDir, fake }: Pick<Settings, "stateDir" | "fake">): Promise<State> {
  const lock = openSqliteStore({ path: join(stateDir, "lock.db") });
  try {
    const store = fake ? createMemoryStore() : openSqliteStore({ path: join(stateDir, "store.db") });
    return {
      store,
      close: async () => {
        await store.close();
        await lock.close();
      },
    };
  } catch (error) {
    await lock.close();
    throw error;
  }
}
