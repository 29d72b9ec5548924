import { afterEach, beforeEach } from "vitest";
import type { Json } from "../core/json.ts";
import type { Page, Store, Write } from "./store.ts";

/** What the cases of storeConformance share. */
interface StoreUnderTest {
  store: Store;
  /** For stores that outlive their process: closes `store` and opens what it left behind. */
  reopen?(): Promise<Store>;
  /** Closes whatever is open and removes every trace. */
  dispose(): Promise<void>;
}

export type MakeStore = () => Promise<StoreUnderTest>;

/** The store of the test that runs. */
export type Current = () => StoreUnderTest;

export function useStore(makeStore: MakeStore): Current {
  let underTest: StoreUnderTest | undefined;
  beforeEach(async () => {
    underTest = await makeStore();
  });
  afterEach(async () => {
    await underTest?.dispose();
    underTest = undefined;
  });
  return () => {
    if (!underTest) throw new Error("a store exists only while a test runs");
    return underTest;
  };
}

export function put(key: string, value: Json = null, ifRevision?: number): Write {
  return ifRevision === undefined ? { put: key, value } : { put: key, value, ifRevision };
}

/** All pages of one listing. */
export async function listAll(store: Store, prefix: string, at?: number, limit = 100): Promise<Page> {
  let page = await store.list(prefix, at === undefined ? { limit } : { limit, at });
  const entries = [...page.entries];
  while (page.next !== undefined) {
    page = await store.list(prefix, { limit, after: page.next, at: page.revision });
    entries.push(...page.entries);
  }
  return { entries, revision: page.revision };
}

export async function keysUnder(store: Store, prefix: string, at?: number): Promise<string[]> {
  return (await listAll(store, prefix, at)).entries.map((entry) => entry.key);
}
