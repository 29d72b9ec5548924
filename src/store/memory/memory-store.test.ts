import { storeConformance } from "../conformance.ts";
import { createMemoryStore } from "./memory-store.ts";

storeConformance("the memory store", async () => {
  const store = createMemoryStore();
  return { store, dispose: () => store.close() };
});
