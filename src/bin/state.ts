import { rm } from "node:fs/promises";
import { join } from "node:path";
import { openSqliteStore } from "../store/sqlite/sqlite-store.ts";
import type { Store } from "../store/store.ts";
import type { Settings } from "./settings.ts";

export interface State {
  store: Store;
  close(): Promise<void>;
}

/**
 * The state of a daemon, which is its alone: one daemon a state directory, whether its host is real or pretended. A file of
 * its own is the lock, which the kernel lets go of when the process ends.
 *
 * A pretended host forgets its guests when it ends, so its state begins anew; it is in a file all the same, because that takes
 * less memory, and behaves as that of a real one.
 * @throws Unavailable when another daemon has the directory.
 */
export async function openState({ stateDir, fake }: Pick<Settings, "stateDir" | "fake">): Promise<State> {
  const lock = openSqliteStore({ path: join(stateDir, "lock.db") });
  try {
    const path = join(stateDir, fake ? "pretended.db" : "store.db");
    if (fake) for (const suffix of ["", "-wal", "-shm"]) await rm(`${path}${suffix}`, { force: true });
    const store = openSqliteStore({ path });
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
