/** What every client of the native API does alike, over a wire or without one. For tests. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { startTestApi, type TestApi } from "../api/testing.ts";
import { systemClock, toTimestamp } from "../core/clock.ts";
import { hostKind } from "../kinds/host.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import type { Client, WatchEvent } from "./client.ts";
import { createHttpClient, type HttpClient } from "./http-client.ts";

const spec = { publicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test" };
const laptop = { project: "default", name: "laptop" };
const signal = () => AbortSignal.timeout(15_000);

/** `make`: the client under test, of that API; `http` may be what it asks for the rest. */
export function clientConformance(name: string, make: (api: TestApi, http: HttpClient) => Client): void {
  describe(`client: ${name}`, () => {
    let api: TestApi;
    let http: HttpClient;
    let client: Client;

    beforeEach(async () => {
      api = await startTestApi();
      http = createHttpClient({ socketPath: api.socketPath });
      client = make(api, http);
    });

    afterEach(async () => {
      http.close();
      await api.close();
    });

    test("every verb on resources and what it answers", async () => {
      expect(await client.version()).toEqual({ version: "1.2.3", apiVersion: "v1" });
      expect(await client.get(keyPairKind, laptop)).toBeUndefined();
      const created = await client.create(keyPairKind, { ...laptop, spec, labels: { a: "b" } });
      expect(await client.get(keyPairKind, laptop)).toEqual(created);
      expect(await client.apply(keyPairKind, { ...laptop, spec, labels: { a: "b" } })).toEqual(created);
      const patched = await client.patch(keyPairKind, laptop, { labels: { a: null, c: "d" } });
      expect(patched.metadata.labels).toEqual({ c: "d" });
      expect((await client.list(keyPairKind, { labels: { c: "d" } })).items).toEqual([patched]);
      expect((await client.list(keyPairKind, { labels: { c: "e" } })).items).toEqual([]);
      await client.delete(keyPairKind, laptop);
      await expect(client.delete(keyPairKind, laptop)).rejects.toMatchObject({ code: "NotFound" });
      await expect(client.require(keyPairKind, laptop)).rejects.toMatchObject({ code: "NotFound" });
      const host = await client.create(hostKind, { name: "one", spec: {} });
      const { uid } = host.metadata;
      const status = { state: "ready", facts: { os: "Debian" } };
      expect((await client.patchStatus(hostKind, { name: "one" }, uid, status)).status).toMatchObject(status);
      await client.removeFinalizer(hostKind, { name: "one" }, uid, "none/such");
      const certificate = { project: "default", name: "shop" };
      expect(await client.certificateMaterial(certificate)).toBeUndefined();
      await expect(client.repositorySecrets(certificate)).rejects.toMatchObject({ code: "NotFound" });
    });

    test("a change may depend on the revision", async () => {
      const { metadata } = await client.create(keyPairKind, { ...laptop, spec });
      await client.patch(keyPairKind, laptop, { labels: { a: "b" } }, { ifRevision: metadata.revision });
      const late = { ifRevision: metadata.revision };
      const conflict = { code: "Conflict" };
      await expect(client.patch(keyPairKind, laptop, { labels: {} }, late)).rejects.toMatchObject(conflict);
      await expect(client.apply(keyPairKind, { ...laptop, spec }, late)).rejects.toMatchObject(conflict);
      await expect(client.delete(keyPairKind, laptop, late)).rejects.toMatchObject(conflict);
      await expect(client.apply(keyPairKind, { ...laptop, spec }, { ifRevision: 0 })).rejects.toMatchObject({
        code: "AlreadyExists",
      });
    });

    test("the same create again gives the first answer", async () => {
      const create = () => client.create(keyPairKind, { ...laptop, spec }, { idempotencyKey: "once" });
      expect(await create()).toEqual(await create());
      await expect(client.create(keyPairKind, { ...laptop, spec })).rejects.toMatchObject({
        code: "AlreadyExists",
      });
    });

    test("errors have code, message and fields", async () => {
      const wrong = { ...laptop, spec: { publicKy: "x" } };
      await expect(client.create(keyPairKind, wrong)).rejects.toMatchObject({
        code: "Invalid",
        message: expect.stringContaining("key pair"),
        fields: expect.arrayContaining([expect.objectContaining({ path: "spec.publicKy" })]),
      });
    });

    test("a call whose signal is aborted changes nothing and throws the reason", async () => {
      const aborted = { signal: AbortSignal.abort(new Error("enough")) };
      await expect(client.create(keyPairKind, { ...laptop, spec }, aborted)).rejects.toThrow("enough");
      await expect(client.list(keyPairKind, {}, aborted)).rejects.toThrow("enough");
      expect(await client.get(keyPairKind, laptop)).toBeUndefined();
    });

    test("what goes in and comes out are copies, without members that are undefined", async () => {
      const labels: Record<string, string> = { a: "b" };
      const written = { ...laptop, spec: { ...spec, comment: undefined } as never, labels };
      const creating = client.create(keyPairKind, written);
      labels.a = "changed";
      const created = await creating;
      expect(created.metadata.labels).toEqual({ a: "b" });
      created.metadata.labels.a = "changed";
      const { items } = await client.list(keyPairKind, {});
      expect(items[0]?.metadata.labels).toEqual({ a: "b" });
      for (const item of items) item.metadata.labels.a = "changed";
      expect((await client.require(keyPairKind, laptop)).metadata.labels).toEqual({ a: "b" });
    });

    test("all pages of a listing are one list", async () => {
      for (let i = 0; i < 1_020; i++) {
        await api.services.resources.apply({ name: "x", role: "admin" }, hostKind, { name: `h${i}` });
      }
      const { items, revision } = await client.list(hostKind, {});
      expect(items).toHaveLength(1_020);
      expect(revision).toBe(await api.store.revision());
      const page = await client.listPage(hostKind, { limit: 10 });
      expect(page.items).toHaveLength(10);
      const next = await client.listPage(hostKind, { limit: 10, after: page.next ?? "" });
      expect(next.items[0]).toEqual(items[10]);
    });

    test("a watch tells what its filter wants, each once, and what no longer matches as gone", async () => {
      const { revision } = await client.list(hostKind, {});
      const ended = new AbortController();
      const query = { after: revision, labels: { room: "a" } };
      const events: WatchEvent<{ metadata: { name: string } }>[] = [];
      const watching = (async () => {
        for await (const event of client.watch(hostKind, query, ended.signal)) {
          events.push(event);
          if (event.type === "put" && event.resource.metadata.name === "last") return;
        }
      })();
      await client.create(hostKind, { name: "one", spec: {}, labels: { room: "a" } });
      await client.create(hostKind, { name: "two", spec: {}, labels: { room: "b" } });
      await client.patch(hostKind, { name: "one" }, { labels: { room: "b" } });
      await client.create(hostKind, { name: "last", spec: {}, labels: { room: "a" } });
      await watching;
      ended.abort();
      expect(events[0]).toEqual({ type: "bookmark", revision });
      const told = events.flatMap((event) =>
        event.type === "put"
          ? [`+${event.resource.metadata.name}`]
          : event.type === "delete"
            ? [`-${event.ref.name}`]
            : [],
      );
      expect(told).toEqual(["+one", "-two", "-one", "+last"]);
    });

    test("a watch from forgotten history is told so", async () => {
      for (let i = 0; i < 3; i++) await client.create(hostKind, { name: `h${i}`, spec: {} });
      await api.store.compact(await api.store.revision());
      const events = client.watch(hostKind, { after: 1 }, signal())[Symbol.asyncIterator]();
      await expect(events.next()).rejects.toMatchObject({ code: "Compacted" });
    });

    test("a watch that is aborted or left ends", async () => {
      const ended = new AbortController();
      for await (const event of client.watch(hostKind, { after: 0 }, ended.signal)) {
        expect(event).toEqual({ type: "bookmark", revision: 0 });
        break;
      }
      const events = client.watch(hostKind, { after: 0 }, ended.signal)[Symbol.asyncIterator]();
      await events.next();
      const next = events.next();
      ended.abort();
      expect((await next).done).toBe(true);
      const late = client.watch(hostKind, { after: 0 }, ended.signal)[Symbol.asyncIterator]();
      expect((await late.next()).done).toBe(true);
      // Closing waits for open connections, so this ends only if none is left.
      await api.api.close();
    });

    test("samples are recorded, and which subjects are gone is told", async () => {
      const { metadata } = await client.create(hostKind, { name: "one", spec: {} });
      const sample = { subject: "/hosts/one", uid: metadata.uid, values: { load: 2 } };
      const gone = { ...sample, subject: "/hosts/two" };
      const at = toTimestamp(systemClock.now());
      expect(await client.reportMetrics({ at, samples: [sample, gone] })).toEqual({
        recorded: 1,
        unknown: ["/hosts/two"],
      });
      expect(await client.currentMetrics("hosts", {})).toMatchObject([{ name: "one", values: { load: 2 } }]);
      const wrong = { ...sample, values: { load: Number.NaN } };
      await expect(client.reportMetrics({ at, samples: [wrong] })).rejects.toMatchObject({ code: "Invalid" });
    });
  });
}
