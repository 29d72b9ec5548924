import { afterEach, beforeEach, expect, test } from "vitest";
import { startTestApi, type TestApi } from "../api/testing.ts";
import { systemClock } from "../core/clock.ts";
import { createLogger } from "../core/logger.ts";
import { hostKind } from "../kinds/host.ts";
import { resourceKey } from "../kinds/keys.ts";
import type { Resource } from "../kinds/kind.ts";
import type { Client } from "./client.ts";
import { createHttpClient, type HttpClient } from "./http-client.ts";
import { createWatchCache, type WatchCache } from "./watch-cache.ts";

let api: TestApi;
let client: HttpClient;
let ended: AbortController;

beforeEach(async () => {
  api = await startTestApi();
  client = createHttpClient({ socketPath: api.socketPath });
  ended = new AbortController();
});

afterEach(async () => {
  ended.abort();
  client.close();
  await api.close();
});

const options = { clock: systemClock, logger: createLogger("silent") };
const create = (name: string, labels = {}) => client.create(hostKind, { name, spec: {}, labels });

/** Resolves once the condition holds, looking after each change. */
function until<R>(cache: WatchCache<R>, condition: () => boolean): Promise<void> {
  return new Promise((resolve) => {
    if (condition()) return resolve();
    const stop = cache.onChange(() => {
      if (!condition()) return;
      stop();
      resolve();
    });
  });
}

const names = (cache: WatchCache<Resource>) =>
  [...cache.values()].map((item) => item.metadata.name).toSorted();

test("shows what there is once synced, then every change, until aborted", async () => {
  await create("a");
  const cache = createWatchCache(client, hostKind, options, ended.signal);
  await cache.synced;
  expect(names(cache)).toEqual(["a"]);
  const changes: string[] = [];
  cache.onChange((key, next, previous) => changes.push(`${key} ${Boolean(previous)} ${Boolean(next)}`));
  await create("b");
  await client.patch(hostKind, { name: "a" }, { labels: { x: "y" } });
  await client.delete(hostKind, { name: "b" });
  await until(cache, () => changes.length === 3);
  expect(changes).toEqual(["/hosts/b false true", "/hosts/a true true", "/hosts/b true false"]);
  expect(cache.get({ name: "a" })?.metadata.labels).toEqual({ x: "y" });
  expect(cache.size).toBe(1);
  ended.abort();
  await cache.done;
});

test("keys come first for all there is, then for each change, once however often it changed", async () => {
  await create("a");
  await create("b");
  const cache = createWatchCache(client, hostKind, options, ended.signal);
  await cache.synced;
  const keys = cache.keys(ended.signal)[Symbol.asyncIterator]();
  expect(await keys.next()).toMatchObject({ value: "/hosts/a" });
  expect(await keys.next()).toMatchObject({ value: "/hosts/b" });
  for (let i = 0; i < 3; i++) await client.patch(hostKind, { name: "b" }, { labels: { i: String(i) } });
  await create("c");
  await until(cache, () => cache.get({ name: "c" }) !== undefined);
  expect(await keys.next()).toMatchObject({ value: "/hosts/b" });
  expect(await keys.next()).toMatchObject({ value: resourceKey(hostKind, { name: "c" }) });
  const last = keys.next();
  ended.abort();
  expect((await last).done).toBe(true);
});

test("a filter's listing loses what no longer matches", async () => {
  await create("a", { tier: "x" });
  const filter = { ...options, labels: { tier: "x" } };
  const cache = createWatchCache(client, hostKind, filter, ended.signal);
  await cache.synced;
  await create("b", { tier: "x" });
  await create("c", { tier: "y" });
  await client.patch(hostKind, { name: "a" }, { labels: { tier: "y" } });
  await until(cache, () => cache.get({ name: "a" }) === undefined);
  expect(names(cache)).toEqual(["b"]);
});

test("when history is gone it lists again, and tells what was deleted meanwhile", async () => {
  await create("a");
  await create("b");
  // The watch breaks off, and by the time it comes back everything has been compacted.
  let watches = 0;
  let lists = 0;
  const flaky: Client = Object.assign(Object.create(client) as Client, {
    list(...args: Parameters<HttpClient["list"]>) {
      lists++;
      return client.list(...args);
    },
    async *watch(...args: Parameters<HttpClient["watch"]>) {
      if (watches++ === 0) {
        await client.delete(hostKind, { name: "b" });
        await create("c");
        await api.store.compact(await api.store.revision());
      }
      yield* client.watch(...args);
    },
  });
  const cache = createWatchCache(flaky, hostKind, options, ended.signal);
  const deleted: string[] = [];
  cache.onChange((key, next) => {
    if (!next) deleted.push(key);
  });
  await cache.synced;
  await until(cache, () => cache.get({ name: "c" }) !== undefined && cache.get({ name: "b" }) === undefined);
  expect(deleted).toEqual(["/hosts/b"]);
  expect(lists).toBe(2);
});

test("aborted before the first listing, synced says so", async () => {
  await api.api.close();
  const cache = createWatchCache(client, hostKind, options, ended.signal);
  ended.abort(new Error("enough"));
  await expect(cache.synced).rejects.toThrow("enough");
  await cache.done;
});
