import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createApi } from "../api/api.ts";
import { startTestApi, type TestApi } from "../api/testing.ts";
import { systemClock } from "../core/clock.ts";
import { createLogger } from "../core/logger.ts";
import { systemRandom } from "../core/random.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import { projectKind } from "../kinds/project.ts";
import { clientConformance } from "./conformance.ts";
import { createHttpClient, type HttpClient } from "./http-client.ts";

const spec = { publicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test" };
const laptop = { project: "default", name: "laptop" };
let test1: TestApi;
let client: HttpClient;

beforeEach(async () => {
  test1 = await startTestApi();
  client = createHttpClient({ socketPath: test1.socketPath, retryForMs: 10_000 });
});

afterEach(async () => {
  client.close();
  await test1.close();
});

/** The daemon's next process: the same store behind a new API on the same socket. */
async function restart(): Promise<void> {
  await test1.api.close();
  const api = await createApi({
    services: test1.services,
    clock: systemClock,
    random: systemRandom,
    logger: createLogger("silent"),
    version: "2",
  });
  await api.listenUnix(test1.socketPath);
  test1.api = api;
}

clientConformance("over HTTP", (_api, http) => http);

test("tokens and projects", async () => {
  await client.create(projectKind, { name: "shop", spec: {} });
  await client.deleteProject("shop", { cascade: true });
  expect((await client.require(projectKind, { name: "shop" })).metadata.deletedAt).toBeDefined();
  const issued = await client.createToken({ name: "ci", spec: { role: "admin" } });
  expect(issued).toMatchObject({ token: { metadata: { name: "ci" } }, secret: expect.any(String) });
});

test("calls made while the daemon restarts succeed, each once", async () => {
  const names = Array.from({ length: 40 }, (_, i) => `k${i}`);
  const create = (name: string) => client.create(keyPairKind, { project: "default", name, spec });
  const early = names.slice(0, 20).map(create);
  const restarting = restart();
  const late = names.slice(20).map(create);
  await restarting;
  const all = await Promise.all([...early, ...late]);
  expect(all.map((item) => item.metadata.name)).toEqual(names);
});

test("without patience, or when it ends, the caller learns where nothing answered", async () => {
  await test1.api.close();
  const hasty = createHttpClient({ socketPath: test1.socketPath });
  await expect(hasty.version()).rejects.toMatchObject({
    code: "Unavailable",
    message: `cannot reach the API at ${test1.socketPath}: there is no such socket; is the daemon running?`,
  });
  const patient = createHttpClient({ socketPath: test1.socketPath, retryForMs: 200 });
  await expect(patient.version()).rejects.toMatchObject({ code: "Unavailable" });
  const controller = new AbortController();
  const waiting = client.version({ signal: controller.signal });
  controller.abort(new Error("enough"));
  await expect(waiting).rejects.toThrow("enough");
});

test("a watch goes on over restarts, misses nothing and repeats nothing", async () => {
  const ended = new AbortController();
  const seen: string[] = [];
  const { promise: finished, resolve: finish } = Promise.withResolvers<void>();
  const { revision } = await client.list(keyPairKind, {});
  const watching = (async () => {
    for await (const event of client.watch(keyPairKind, { after: revision }, ended.signal)) {
      if (event.type === "put") seen.push(`+${event.resource.metadata.name}`);
      if (event.type === "delete") seen.push(`-${event.ref.name}`);
      if (seen.at(-1) === "+last") finish();
    }
  })();
  const expected: string[] = [];
  for (let i = 0; i < 12; i++) {
    await client.create(keyPairKind, { project: "default", name: `k${i}`, spec });
    await client.delete(keyPairKind, { project: "default", name: `k${i}` });
    expected.push(`+k${i}`, `-k${i}`);
    if (i % 4 === 3) await restart();
  }
  await client.create(keyPairKind, { project: "default", name: "last", spec });
  await finished;
  expect(seen).toEqual([...expected, "+last"]);
  ended.abort();
  await watching;
});

test("uploads and downloads stream, and a refused upload says why", async () => {
  const bytes = Buffer.alloc(3_000_000, "strata");
  async function* pieces() {
    for (let at = 0; at < bytes.length; at += 100_000) yield bytes.subarray(at, at + 100_000);
  }
  const sent = await client.upload(pieces());
  expect(sent).toEqual({
    upload: expect.stringMatching(/^upload-/),
    sha256: createHash("sha256").update(bytes).digest("hex"),
    sizeBytes: bytes.length,
  });
  const received: Uint8Array[] = [];
  for await (const chunk of await client.download(sent.upload)) received.push(chunk);
  expect(Buffer.concat(received).equals(bytes)).toBe(true);
  await expect(client.download("upload-none")).rejects.toMatchObject({ code: "NotFound" });
  await rm(join(test1.dir, "uploads"), { recursive: true });
  await expect(client.upload(pieces())).rejects.toMatchObject({ code: "Internal" });
});

test("a source that fails fails its upload, and nothing of it stays", async () => {
  async function* failing() {
    yield Buffer.from("half");
    throw new Error("cannot read the file");
  }
  await expect(client.upload(failing())).rejects.toThrow();
});

async function withServer(
  answer: Parameters<typeof createServer>[1],
  work: (other: HttpClient) => Promise<void>,
): Promise<void> {
  const path = join(test1.dir, "other.sock");
  const server: Server = createServer(answer ?? (() => {})).listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  const other = createHttpClient({ socketPath: path, timeoutMs: 300 });
  try {
    await work(other);
  } finally {
    other.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

test("what is not our API is not taken for it", async () => {
  await withServer(
    (_request, response) => response.writeHead(404, { "content-type": "text/html" }).end("<h1>Hello</h1>"),
    async (other) => {
      await expect(other.version()).rejects.toMatchObject({
        code: "Internal",
        message: expect.stringContaining("not by Strata"),
      });
    },
  );
});

test("a deletion whose answer was lost is done when the repetition finds nothing", async () => {
  let requests = 0;
  const path = join(test1.dir, "lossy.sock");
  const server = createServer((request, response) => {
    requests++;
    if (requests === 1) request.socket.destroy();
    else {
      const problem = JSON.stringify({ code: "NotFound", detail: "there is no such key pair" });
      response.writeHead(404, { "content-type": "application/problem+json" }).end(problem);
    }
  }).listen(path);
  await new Promise((resolve) => server.once("listening", resolve));
  const lossy = createHttpClient({ socketPath: path, retryForMs: 5_000 });
  await lossy.delete(keyPairKind, laptop);
  expect(requests).toBe(2);
  await expect(lossy.delete(keyPairKind, laptop)).rejects.toMatchObject({ code: "NotFound" });
  lossy.close();
  await new Promise((resolve) => server.close(resolve));
});

test("an answer that never comes is given up on; one that breaks off is told", async () => {
  await withServer(
    () => {},
    async (other) => {
      await expect(other.version()).rejects.toMatchObject({ code: "Timeout" });
    },
  );
  await withServer(
    (_request, response) => {
      response.writeHead(200, { "content-length": "100" }).write("{");
      setImmediate(() => response.destroy());
    },
    async (other) => {
      await expect(other.version()).rejects.toMatchObject({ code: "Unavailable" });
    },
  );
});
