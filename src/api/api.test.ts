import { mkdtemp, rm, stat, writeFile } from "node:fs/promises";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { createLogger } from "../core/logger.ts";
import { systemRandom } from "../core/random.ts";
import { createImage, testServices } from "../services/testing.ts";
import { createApi } from "./api.ts";
import { bodyLimits } from "./body.ts";
import { raw, startTestApi, type TestApi } from "./testing.ts";

const publicKey = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test";
const keys = "/v1/projects/default/key-pairs";
const keyPair = (name: string, more: object = {}) =>
  JSON.stringify({ metadata: { name, ...more }, spec: { publicKey } });

let api: TestApi;
const call: typeof raw extends (socket: string, ...rest: infer R) => infer T ? (...rest: R) => T : never = (
  ...rest
) => raw(api.socketPath, ...rest);

beforeAll(async () => {
  api = await startTestApi();
});

afterAll(() => api.close());

describe("resources", () => {
  test("create, get, apply, patch, delete", async () => {
    const created = await call("POST", keys, { body: keyPair("crud") });
    expect(created).toMatchObject({ status: 201, headers: { location: `${keys}/crud` } });
    const { revision } = created.json.metadata;
    expect(created.headers.etag).toBe(`"${revision}"`);
    const got = await call("GET", `${keys}/crud`);
    expect(got).toMatchObject({ status: 200, json: created.json });
    const same = await call("PUT", `${keys}/crud`, { body: JSON.stringify(got.json) });
    expect(same).toMatchObject({ status: 200, json: { metadata: { revision } } });
    const patched = await call("PATCH", `${keys}/crud`, {
      headers: { "content-type": "application/merge-patch+json" },
      body: JSON.stringify({ metadata: { labels: { a: "b" } } }),
    });
    expect(patched).toMatchObject({ status: 200, json: { metadata: { labels: { a: "b" } } } });
    expect((await call("DELETE", `${keys}/crud`)).status).toBe(204);
    expect((await call("DELETE", `${keys}/crud`)).status).toBe(404);
  });

  test("a create of what exists and a put of what does not", async () => {
    expect((await call("PUT", `${keys}/put`, { body: keyPair("put") })).status).toBe(201);
    expect(await call("POST", keys, { body: keyPair("put") })).toMatchObject({
      status: 409,
      json: { code: "AlreadyExists", detail: expect.stringContaining('"put"') },
    });
  });

  test("what waits for a finalizer is answered as accepted", async () => {
    await createImage(api.services);
    const instances = "/v1/projects/default/instances";
    const body = JSON.stringify({ metadata: { name: "web" }, spec: { type: "vm", image: "debian" } });
    const { uid } = (await call("POST", instances, { body })).json.metadata;
    const status = JSON.stringify({ host: "one", state: "running" });
    expect(await call("PATCH", `${instances}/web/status?uid=${uid}`, { body: status })).toMatchObject({
      status: 200,
      json: { status: { state: "running" } },
    });
    expect(await call("PATCH", `${instances}/web/status?uid=other`, { body: status })).toMatchObject({
      status: 404,
    });
    expect(await call("DELETE", `${instances}/web`)).toMatchObject({
      status: 202,
      json: { metadata: { deletedAt: expect.any(String) } },
    });
    const finalizer = `${instances}/web/finalizers/agent?uid=${uid}`;
    expect((await call("DELETE", finalizer)).status).toBe(204);
    expect((await call("DELETE", finalizer)).status).toBe(204);
    expect((await call("GET", `${instances}/web`)).status).toBe(404);
  });

  test("ETags: get what is new, write only over what was read, create only what is not there", async () => {
    const { etag = "" } = (await call("POST", keys, { body: keyPair("tag") })).headers;
    const path = `${keys}/tag`;
    expect((await call("GET", path, { headers: { "if-none-match": etag } })).status).toBe(304);
    const body = JSON.stringify({ metadata: { labels: { x: "y" } } });
    const wrong = await call("PATCH", path, { headers: { "if-match": '"1"' }, body });
    expect(wrong).toMatchObject({ status: 412, json: { code: "Conflict" } });
    expect((await call("PATCH", path, { headers: { "if-match": etag }, body })).status).toBe(200);
    expect((await call("DELETE", path, { headers: { "if-match": etag } })).status).toBe(412);
    const create = { headers: { "if-none-match": "*" }, body: keyPair("tag") };
    expect((await call("PUT", path, create)).status).toBe(409);
    for (const header of ["42", 'W/"1"', '"1", "2"', '"x"']) {
      expect((await call("DELETE", path, { headers: { "if-match": header } })).status).toBe(400);
    }
  });

  test("an Idempotency-Key gives the first resource again", async () => {
    const headers = { "idempotency-key": "k-1" };
    const first = await call("POST", keys, { headers, body: keyPair("idem") });
    const again = await call("POST", keys, { headers, body: keyPair("idem") });
    expect(again).toMatchObject({ status: 201, json: first.json });
    const other = await call("POST", keys, { headers, body: keyPair("idem2") });
    expect(other).toMatchObject({ status: 409, json: { code: "Conflict" } });
  });

  test("lists: filters, pages, all projects", async () => {
    for (const name of ["la", "lb", "lc"]) {
      await call("POST", keys, { body: keyPair(name, { labels: { list: "yes", name } }) });
    }
    const names = (answer: { json: { items: { metadata: { name: string } }[] } }) =>
      answer.json.items.map((item) => item.metadata.name);
    expect(names(await call("GET", "/v1/key-pairs?label=list=yes"))).toEqual(["la", "lb", "lc"]);
    expect(names(await call("GET", `${keys}?label=list=yes&label=name=lb`))).toEqual(["lb"]);
    const page = await call("GET", `${keys}?label=list=yes&limit=2`);
    expect(names(page)).toEqual(["la", "lb"]);
    expect(names(await call("GET", `${keys}?label=list=yes&after=${page.json.next}`))).toEqual(["lc"]);
  });

  test("tokens: the secret is told once, on creation", async () => {
    const body = JSON.stringify({ metadata: { name: "ci" }, spec: { role: "viewer", project: "default" } });
    const issued = await call("POST", "/v1/tokens", { body });
    expect(issued).toMatchObject({ status: 201, json: { secret: expect.stringMatching(/^strata_/) } });
    const listed = await call("GET", "/v1/tokens");
    expect(listed.text).toContain('"ci"');
    expect(listed.text).not.toContain(issued.json.secret);
    expect((await call("PUT", "/v1/tokens/ci", { body })).status).toBe(405);
  });
});

describe("refusals", () => {
  test.each([
    ["GET", "/v1/nothing", 404, "NotFound"],
    ["GET", "/", 404, "NotFound"],
    ["GET", `${keys}/none`, 404, "NotFound"],
    ["GET", "/v1/projects/none/key-pairs", 404, "NotFound"],
    ["GET", `${keys}/%2e%2e`, 400, "Invalid"],
    ["GET", `${keys}/%E0%A4%A`, 400, "Invalid"],
    ["GET", `${keys}?limt=3`, 400, "Invalid"],
    ["GET", `${keys}?limit=3&limit=4`, 400, "Invalid"],
    ["GET", `${keys}?limit=-1`, 400, "Invalid"],
    ["GET", `${keys}?label=x`, 400, "Invalid"],
    ["GET", `${keys}?watch=true`, 400, "Invalid"],
    ["GET", `${keys}?watch=true&after=999999`, 410, "Compacted"],
    ["POST", `${keys}/web`, 405, "Unsupported"],
    ["PATCH", "/v1/version", 405, "Unsupported"],
    ["PATCH", "/v1/hosts/one/status", 400, "Invalid"],
    ["GET", "/v1/sessions/unknown", 426, "Invalid"],
  ])("%s %s is answered with %i %s", async (method, path, status, code) => {
    const answer = await call(method, path);
    expect(answer).toMatchObject({
      status,
      headers: { "content-type": "application/problem+json", "x-request-id": expect.any(String) },
      json: { status, code, type: `urn:strata:problem:${code}`, detail: expect.any(String) },
    });
    expect(answer.json.requestId).toBe(answer.headers["x-request-id"]);
  });

  test("a parameter that is not known is named with what was meant", async () => {
    expect((await call("GET", `${keys}?limt=3`)).json.fields).toEqual([
      {
        path: "?limt",
        message: expect.stringContaining('did you mean "limit"?'),
        allowed: expect.stringContaining("limit"),
      },
    ]);
  });

  const deep = `${'{"a":'.repeat(50_000)}1${"}".repeat(50_000)}`;
  const proto = `{"metadata":{"name":"p"},"spec":{"__proto__":{"publicKey":"x"}}}`;
  test.each([
    ["no JSON", "{oops", /not JSON/],
    ["nothing", "", /must be a JSON object/],
    ["a list", "[]", /must be a JSON object/],
    ["too deep", deep, /too deeply/],
    ["too many values", `[${"0,".repeat(90_000)}0]`, /too many values/],
    ["a prototype", proto, /__proto__/],
    ["no UTF-8", Buffer.from([0x22, 0xff, 0x22]), /UTF-8/],
    ["an unknown field", '{"metdata":{}}', /did you mean "metadata"/],
    ["an unknown field of metadata", '{"metadata":{"nme":"x"}}', /did you mean "name"/],
    ["another kind", '{"kind":"Host","metadata":{"name":"x"}}', /must be KeyPair/],
    ["another project", '{"metadata":{"name":"x","project":"shop"}}', /path says "default"/],
    ["no name", '{"spec":{}}', /metadata.name is required/],
  ])("a body with %s is invalid", async (_what, body, detail) => {
    const answer = await call("POST", keys, { body });
    expect(answer).toMatchObject({ status: 400, json: { code: "Invalid" } });
    expect(answer.json.detail).toMatch(detail);
  });

  test("another type of body than JSON", async () => {
    const headers = { "content-type": "application/x-www-form-urlencoded" };
    const answer = await call("POST", keys, { headers, body: "a=b" });
    expect(answer).toMatchObject({ status: 415, json: { code: "Invalid" } });
    expect(answer.json.detail).toContain("application/json");
  });

  test("a body just within the limit is read, beyond it is refused, however large and however sent", async () => {
    const padded = (bytes: number) => keyPair("large").padEnd(bytes);
    expect((await call("POST", keys, { body: padded(bodyLimits.bytes) })).status).toBe(201);
    const over = await call("POST", keys, { body: padded(bodyLimits.bytes + 1) });
    expect(over).toMatchObject({ status: 413, json: { code: "Invalid" } });
    const huge = await call("POST", keys, { body: Buffer.alloc(100 * 1024 * 1024, " ") });
    expect(huge).toMatchObject({ status: 413, json: { detail: expect.stringContaining("/v1/uploads") } });
  });

  test("a large body that nobody wants does not keep the answer from its sender", async () => {
    const body = Buffer.alloc(50 * 1024 * 1024, " ");
    expect((await call("POST", "/v1/nothing", { body })).status).toBe(413);
    expect((await call("POST", keys, { body, headers: { "content-type": "text/plain" } })).status).toBe(415);
    const chunked = { "transfer-encoding": "chunked", "content-length": "" };
    expect((await call("POST", keys, { body, headers: chunked })).status).toBe(413);
  });

  test("headers beyond the limit, and what is no HTTP, get a problem too", async () => {
    const long = await call("GET", "/v1/version", { headers: { "x-long": "x".repeat(64 * 1024) } });
    expect(long).toMatchObject({ status: 431, json: { code: "Invalid" } });
    const answer = await new Promise<string>((resolve) => {
      const socket = connect({ path: api.socketPath });
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk;
      });
      socket.on("close", () => resolve(text));
      socket.write("NONSENSE\r\n\r\n");
    });
    expect(answer).toMatch(/^HTTP\/1\.1 400 /);
    expect(answer).toContain('"code":"Invalid"');
  });

  test("a failure of ours tells the client nothing but that", async () => {
    const { list } = api.store;
    api.store.list = async () => {
      throw new Error("disk /dev/secret exploded");
    };
    const answer = await call("GET", keys);
    api.store.list = list;
    expect(answer).toMatchObject({ status: 500, json: { code: "Internal" } });
    expect(answer.text).not.toContain("secret");
  });
});

test("version, health and the specification", async () => {
  expect((await call("GET", "/healthz")).json).toEqual({ status: "ok" });
  expect((await call("GET", "/v1/version")).json).toEqual({ version: "1.2.3", apiVersion: "v1" });
  expect((await call("GET", "/v1/openapi.json")).json.openapi).toBe("3.1.0");
});

describe("the socket", () => {
  const make = async () => {
    const { services } = await testServices();
    const parts = { services, clock: systemClock, random: systemRandom, logger: createLogger("silent") };
    return createApi({ ...parts, version: "1" });
  };

  test("is its owner's alone, replaces a dead one, never a live one, and goes with the API", async () => {
    const dir = await mkdtemp(join(tmpdir(), "socket-"));
    const path = join(dir, "api.sock");
    await writeFile(path, "left over");
    const [first, second] = [await make(), await make()];
    await first.listenUnix(path);
    const info = await stat(path);
    expect(info.isSocket()).toBe(true);
    expect(info.mode & 0o777).toBe(0o600);
    await expect(second.listenUnix(path)).rejects.toMatchObject({ code: "Conflict" });
    await first.close();
    await first.close();
    await expect(stat(path)).rejects.toMatchObject({ code: "ENOENT" });
    await second.listenUnix(path);
    await second.close();
    await rm(dir, { recursive: true });
  });

  test("that another daemon has taken over meanwhile is left alone", async () => {
    const dir = await mkdtemp(join(tmpdir(), "socket-"));
    const path = join(dir, "api.sock");
    const api = await make();
    await api.listenUnix(path);
    await rm(path);
    const other = createServer().listen(path);
    await new Promise((resolve) => other.once("listening", resolve));
    await api.close();
    expect((await stat(path)).isSocket()).toBe(true);
    await new Promise((resolve) => other.close(resolve));
    await rm(dir, { recursive: true });
  });

  test("with too long a path is refused in words", async () => {
    const api = await make();
    await expect(api.listenUnix(`/tmp/${"x".repeat(120)}`)).rejects.toMatchObject({ code: "Invalid" });
    await api.close();
  });
});
