import fc from "fast-check";
import { expect, test } from "vitest";
import { hostKind } from "../kinds/host.ts";
import { type Ref, resourceKey } from "../kinds/keys.ts";
import type { Resource } from "../kinds/kind.ts";
import { networkKind } from "../kinds/network.ts";
import { decodePosition, encodePosition, type Filter } from "./listing.ts";
import { systemPrincipal as system } from "./principal.ts";
import type { Services } from "./services.ts";
import { testServices } from "./testing.ts";
import { afterRevision, type WatchPosition } from "./watching.ts";

async function withHosts(count: number): Promise<Services> {
  const { services } = await testServices();
  for (let i = 0; i < count; i++) {
    const labels = { parity: i % 2 === 0 ? "even" : "odd" };
    await services.resources.create(system, hostKind, { name: `h${String(i).padStart(3, "0")}`, labels });
  }
  return services;
}

async function pages(services: Services, limit: number, filter: Filter): Promise<Resource[][]> {
  const all: Resource[][] = [];
  let after: string | undefined;
  do {
    const page = await services.resources.list(system, hostKind, {
      ...filter,
      limit,
      ...(after === undefined ? {} : { after }),
    });
    all.push(page.items);
    after = page.next;
  } while (after !== undefined);
  return all;
}

test("pages of any size hold every match once, in order", async () => {
  const services = await withHosts(40);
  const filter = fc.constantFrom<Filter>({}, { labels: { parity: "even" } }, { state: "ready" });
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 1, max: 50 }), filter, async (limit, wanted) => {
      const all = await pages(services, limit, wanted);
      const names = all.flat().map((item) => item.metadata.name);
      const expected = Array.from({ length: 40 }, (_, i) => `h${String(i).padStart(3, "0")}`).filter(
        (_, i) => (wanted.labels ? i % 2 === 0 : wanted.state === undefined),
      );
      expect(names).toEqual(expected);
      for (const items of all) expect(items.length).toBeLessThanOrEqual(limit);
    }),
    { numRuns: 40 },
  );
});

test("all pages show one revision, whatever is written between them", async () => {
  const services = await withHosts(10);
  const first = await services.resources.list(system, hostKind, { limit: 4 });
  await services.resources.delete(system, hostKind, { name: "h009" });
  await services.resources.create(system, hostKind, { name: "h0055" });
  const rest = await services.resources.list(system, hostKind, { limit: 100, after: first.next ?? "" });
  expect(rest.revision).toBe(first.revision);
  expect(rest.items.map((item) => item.metadata.name)).toEqual([
    "h004",
    "h005",
    "h006",
    "h007",
    "h008",
    "h009",
  ]);
});

test("what is no `next` of that list is refused", async () => {
  const services = await withHosts(3);
  const foreign = encodePosition({ after: "/tokens/x", at: 1 });
  for (const after of ["", "x", "AAAA", foreign, Buffer.from('[-1,"/hosts/a"]').toString("base64url")]) {
    await expect(services.resources.list(system, hostKind, { after })).rejects.toMatchObject({
      code: "Invalid",
      fields: [{ path: "after" }],
    });
  }
  for (const limit of [0, -1, 1001, 1.5]) {
    await expect(services.resources.list(system, hostKind, { limit })).rejects.toMatchObject({
      code: "Invalid",
    });
  }
  fc.assert(
    fc.property(fc.string(), (text) => {
      try {
        decodePosition(text, "/hosts/");
      } catch (error) {
        expect(error).toMatchObject({ code: "Invalid" });
      }
    }),
  );
});

/** What a client would hold that lists and then watches, with its connection cut after every `cutAfter` events. */
async function follow(services: Services, filter: Filter, target: () => Promise<number>, cutAfter: number) {
  const { items, revision } = await services.resources.list(system, hostKind, { ...filter, limit: 1000 });
  const held = new Map(items.map((item) => [resourceKey(hostKind, item.metadata as Ref), item]));
  let from: WatchPosition = afterRevision(revision);
  const done = await target();
  const seen: string[] = [];
  // The last commit writes one resource, so its first event is the end.
  while (from.revision < done || from.count === 0) {
    const ended = new AbortController();
    let count = 0;
    for await (const event of await services.resources.watch(
      system,
      hostKind,
      { ...filter, from },
      ended.signal,
    )) {
      from = event.position;
      seen.push(`${event.position.revision}.${event.position.count}`);
      if (event.type === "put")
        held.set(resourceKey(hostKind, event.resource.metadata as Ref), event.resource);
      else held.delete(resourceKey(hostKind, event.ref));
      if (++count >= cutAfter || from.revision >= done) break;
    }
    ended.abort();
  }
  expect(new Set(seen).size, "no event twice").toBe(seen.length);
  return [...held.values()].map((item) => item.metadata.name).toSorted();
}

test("a list and its watch, resumed anywhere, hold what a new list shows", async () => {
  const step = fc.record({
    name: fc.constantFrom("a", "b", "c", "d"),
    verb: fc.constantFrom("even", "odd", "delete"),
  });
  const filter = fc.constantFrom<Filter>({}, { labels: { parity: "even" } });
  await fc.assert(
    fc.asyncProperty(
      fc.array(step, { maxLength: 30 }),
      fc.integer({ min: 0, max: 30 }),
      fc.integer({ min: 1, max: 5 }),
      filter,
      async (steps, listAt, cutAfter, wanted) => {
        const { services, store } = await testServices();
        const apply = async ({ name, verb }: (typeof steps)[number]) => {
          if (verb !== "delete") {
            await services.resources.apply(system, hostKind, { name, labels: { parity: verb } });
          } else await services.resources.delete(system, hostKind, { name }).catch(() => {});
        };
        for (const early of steps.slice(0, listAt)) await apply(early);
        const held = await follow(
          services,
          wanted,
          async () => {
            for (const late of steps.slice(listAt)) await apply(late);
            // Something that every filter lets through marks the end.
            await services.resources.apply(system, hostKind, { name: "zz", labels: { parity: "even" } });
            return store.revision();
          },
          cutAfter,
        );
        const now = await services.resources.list(system, hostKind, { ...wanted, limit: 1000 });
        expect(held).toEqual(now.items.map((item) => item.metadata.name));
      },
    ),
    { numRuns: 60 },
  );
});

test("a commit of several resources is resumed in its middle", async () => {
  const { services, store } = await testServices();
  const start = await store.revision();
  const value = (name: string) => ({ kind: "Host", metadata: { name, labels: {} }, spec: {}, status: {} });
  await store.commit(["a", "b", "c"].map((name) => ({ put: `/hosts/${name}`, value: value(name) })));
  const ended = new AbortController();
  const from = { revision: start + 1, count: 2 };
  for await (const event of await services.resources.watch(system, hostKind, { from }, ended.signal)) {
    expect(event).toMatchObject({ type: "put", resource: { metadata: { name: "c" } } });
    expect(event.position).toEqual({ revision: start + 1, count: 3 });
    break;
  }
  ended.abort();
});

test("a watch from where history is gone is told so before it starts", async () => {
  const { services, store } = await testServices();
  for (let i = 0; i < 5; i++) {
    await services.resources.create(system, networkKind, { project: "default", name: `n${i}` });
  }
  await store.compact(await store.revision());
  const watch = services.resources.watch(
    system,
    networkKind,
    { from: afterRevision(1) },
    new AbortController().signal,
  );
  await expect(watch).rejects.toMatchObject({ code: "Compacted" });
});
