import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { storeConformance } from "../conformance.ts";
import { openSqliteStore } from "./sqlite-store.ts";

storeConformance("the SQLite store", async () => {
  const directory = mkdtempSync(join(tmpdir(), "strata-store-"));
  const path = join(directory, "store.db");
  let store = openSqliteStore({ path });
  return {
    store,
    async reopen() {
      await store.close();
      store = openSqliteStore({ path });
      return store;
    },
    async dispose() {
      await store.close();
      rmSync(directory, { recursive: true });
    },
  };
});
