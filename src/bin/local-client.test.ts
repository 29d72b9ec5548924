import { afterEach, beforeEach, expect, test } from "vitest";
import { startTestApi, type TestApi } from "../api/testing.ts";
import { clientConformance } from "../client/conformance.ts";
import { createHttpClient, type HttpClient } from "../client/http-client.ts";
import { systemClock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import { settle, VirtualClock } from "../core/virtual-clock.ts";
import { hostKind } from "../kinds/host.ts";
import { createMemoryStore } from "../store/memory/memory-store.ts";
import type { Store } from "../store/store.ts";
import { createLocalClient } from "./local-client.ts";

clientConformance("of the same process", ({ services }, http) =>
  createLocalClient({ services, remote: http, clock: systemClock }),
);

/** A store that is full, for so many commits. */
let refusals = 0;
let api: TestApi;
let http: HttpClient;
beforeEach(async () => {
  refusals = 0;
  const whole = createMemoryStore();
  const store: Store = Object.create(whole, {
    commit: {
      value: async (writes: Parameters<Store["commit"]>[0]) => {
        if (refusals-- > 0) throw new StrataError("Unavailable", "there is no space left");
        return whole.commit(writes);
      },
    },
  });
  for (const name of ["get", "list", "watch", "revision", "compact", "close"] as const) {
    Object.defineProperty(store, name, { value: whole[name].bind(whole) });
  }
  api = await startTestApi({ store });
  http = createHttpClient({ socketPath: api.socketPath });
});
afterEach(async () => {
  http.close();
  await api.close();
});

test("while the store takes nothing, calls are tried again for a while", async () => {
  const clock = new VirtualClock();
  const client = createLocalClient({ services: api.services, remote: http, clock });
  refusals = 3;
  const created = client.create(hostKind, { name: "one", spec: {} });
  for (let i = 0; i < 4; i++) {
    await settle();
    await clock.advance(400);
  }
  expect((await created).metadata.name).toBe("one");
  refusals = Number.POSITIVE_INFINITY;
  const refused = expect(client.create(hostKind, { name: "two", spec: {} })).rejects.toMatchObject({
    code: "Unavailable",
  });
  for (let i = 0; i < 12; i++) {
    await settle();
    await clock.advance(1_000);
  }
  await refused;
  const aborted = new AbortController();
  const ended = expect(
    client.create(hostKind, { name: "two", spec: {} }, { signal: aborted.signal }),
  ).rejects.toThrow("enough");
  await settle();
  aborted.abort(new Error("enough"));
  await ended;
});

test("a long listing lets others have their turn", async () => {
  const client = createLocalClient({ services: api.services, remote: http, clock: systemClock });
  for (let i = 0; i < 450; i++) await client.create(hostKind, { name: `h${i}`, spec: {} });
  let turns = 0;
  let listed = false;
  const count = () => {
    turns++;
    if (!listed) setImmediate(count);
  };
  setImmediate(count);
  expect((await client.list(hostKind, {})).items).toHaveLength(450);
  listed = true;
  expect(turns).toBeGreaterThanOrEqual(3);
});
