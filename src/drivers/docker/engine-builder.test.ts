import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { guardSpace, reserveOf } from "../../host/images/dockerfile/disk-guard.ts";
import type { BuildOrder } from "../../host/images/dockerfile/image-builder.ts";
import { createEngineBuilder, sliceOf } from "./engine-builder.ts";

let directory: string;
let server: Server | undefined;
const asked: string[] = [];
const groups: [string, object][] = [];
const ended: string[] = [];
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-builder-"));
  writeFileSync(join(directory, "context.tar"), Buffer.alloc(1024));
  asked.length = 0;
  groups.length = 0;
  ended.length = 0;
});
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  rmSync(directory, { recursive: true, force: true });
});

/** An Engine that answers builds by `build`, and everything else with as little as will do. */
async function sessionOf(
  build: (response: ServerResponse, request: IncomingMessage) => void,
  scope = "a",
  engineDriver = "cgroupfs",
) {
  const socketPath = join(directory, "sock");
  server = createServer((request, response) => {
    const path = request.url ?? "";
    asked.push(`${request.method} ${path}`);
    request.resume();
    if (path.startsWith("/build")) return build(response, request);
    const answers: [RegExp, unknown][] = [
      [/^\/info/, { DockerRootDir: "/", MemTotal: 4 * 1024 ** 3, NCPU: 2, CgroupDriver: engineDriver }],
      [/^\/images\/json.*base/, []],
      [/^\/images\/json/, tags],
      [/^\/images\/.*\/json$/, { Config: { Cmd: ["x"], Env: ["A=b"], ExposedPorts: { "80/tcp": {} } } }],
    ];
    const body = answers.find(([pattern]) => pattern.test(path))?.[1] ?? {};
    const status = path.includes("/tag") ? 201 : 200;
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  await new Promise<void>((resolve) => server?.listen(socketPath, resolve));
  const cgroups = {
    async ensure(group: string, limits: object) {
      groups.push([group, limits]);
    },
    async kill(group: string) {
      ended.push(`kill ${group}`);
    },
    async remove(group: string) {
      ended.push(`remove ${group}`);
    },
  };
  const builder = createEngineBuilder({
    ...{
      namespace: "n",
      socketPath,
      network: "none",
      clock: new VirtualClock(5_000),
      cgroups,
      group: "n.builds",
    },
  });
  return await builder.open(scope, AbortSignal.timeout(10_000));
}

const tags = Array.from({ length: 15 }, (_, index) => ({
  Created: 1,
  RepoTags: [`strata.local/n/build-a:${1000 + index}-1`, "somebody/else:1"],
}));

const lines: string[] = [];
function orderOf(signal = AbortSignal.timeout(10_000)): BuildOrder {
  lines.length = 0;
  return {
    ...{ context: join(directory, "context.tar"), dockerfile: "FROM x", args: { A: "1" }, target: "last" },
    ...{ cache: false, limits: { memoryMib: 512, cpus: 1.5 }, signal, onLine: (line) => lines.push(line) },
  };
}

function say(response: ServerResponse, ...messages: object[]): ServerResponse {
  response.writeHead(200, { "content-type": "application/json" });
  for (const message of messages) response.write(`${JSON.stringify(message)}\n`);
  return response;
}

test("a build has its limits and its network, tells what it prints, and gives the image's configuration", async () => {
  const session = await sessionOf((response) => {
    say(response, { stream: "Step 1/2 : FROM x\n" }, { stream: " ---> 0123456789ab\n" });
    say2(response, { stream: "\u001b[91mred\u001b[0m\r\n" }, { aux: { ID: "sha256:1" } });
  });
  const built = await session.build(orderOf());
  expect(built).toMatchObject({
    id: "strata.local/n/build-a:5000-1",
    config: { Cmd: ["x"], Env: ["A=b"], ExposedPorts: { "80/tcp": {} } },
  });
  expect(lines).toEqual(["Step 1/2 : FROM x", "red"]);
  const query = new URL(asked.find((line) => line.includes("/build?"))?.split(" ")[1] ?? "", "http://x")
    .searchParams;
  expect(Object.fromEntries(query)).toMatchObject({
    ...{
      memory: `${512 * 1024 ** 2}`,
      memswap: `${512 * 1024 ** 2}`,
      cpuquota: "150000",
      cpuperiod: "100000",
    },
    ...{ cpushares: "128", networkmode: "none", nocache: "true", target: "last", forcerm: "true" },
    cgroupparent: "/n.builds/engine",
    buildargs: '{"A":"1"}',
  });
  expect(groups).toEqual([
    ["n.builds", { processes: 2048, cpuWeight: 12 }],
    ["n.builds/engine", { processes: 2048 }],
  ]);
  await session[Symbol.asyncDispose]();
  expect(ended).toEqual(["kill n.builds/engine", "remove n.builds/engine", "remove n.builds"]);
});

test("cached layers come from the scope's own results, and without one from nowhere", async () => {
  const ask = async (scope: string) => {
    asked.length = 0;
    const session = await sessionOf((response) => say(response, { stream: "x\n" }).end(), scope);
    await session.build({ ...orderOf(), cache: true });
    server?.close();
    const query = new URL(asked.find((line) => line.includes("/build?"))?.split(" ")[1] ?? "", "http://x");
    return query.searchParams;
  };
  const own = await ask("a");
  expect(JSON.parse(own.get("cachefrom") ?? "[]")).toEqual(
    Array.from({ length: 15 }, (_, index) => `strata.local/n/build-a:${1014 - index}-1`),
  );
  expect(own.get("nocache")).toBe("false");
  const none = await ask("b");
  expect([none.get("cachefrom"), none.get("nocache")]).toEqual([null, "true"]);
});

test("an Engine of systemd's gets a slice", () => {
  expect(sliceOf("strata-1.builds")).toBe("strata_1_builds.slice");
});

test("more than half of the host's memory, or than its processors, is refused with what is allowed", async () => {
  const session = await sessionOf(() => {});
  const building = session.build({ ...orderOf(), limits: { memoryMib: 2049, cpus: 3 } });
  await expect(building).rejects.toMatchObject({
    code: "Invalid",
    message: expect.stringMatching(/memoryMib is 2049, at most 2048; cpus is 3, at most 2$/),
  });
  expect(asked.some((line) => line.includes("/build?"))).toBe(false);
});

test.each([
  ["HTTPS_proxy", "true"],
  ["A", "false"],
])("with the argument %s, a build without the cache: %s", async (name, nocache) => {
  const session = await sessionOf((response) => say(response, { stream: "x\n" }).end());
  await session.build({ ...orderOf(), cache: true, args: { [name]: "x" } });
  expect(asked.find((line) => line.includes("/build?"))).toContain(`nocache=${nocache}`);
});

function say2(response: ServerResponse, ...messages: object[]): void {
  for (const message of messages) response.write(`${JSON.stringify(message)}\n`);
  response.end();
}

test("a step that fails is told in its own words, and what was built until then stays as a cache", async () => {
  const session = await sessionOf((response) => {
    say(
      response,
      { stream: " ---> 0123456789ab\nthe reason\n" },
      { error: "returned a non-zero code: 3" },
    ).end();
  });
  await expect(session.build(orderOf())).rejects.toMatchObject({
    code: "Invalid",
    message: "the Dockerfile cannot be built: returned a non-zero code: 3\nthe reason",
  });
  expect(asked.at(-1)).toMatch(/^POST \/images\/0123456789ab\/tag\?.*tag=5000-1/);
});

test("an Engine that cannot fetch a base is asked again later", async () => {
  const error = "Get https://registry.example/v2/: dial tcp: lookup registry.example: no such host";
  const session = await sessionOf((response) => say(response, { error }).end());
  await expect(session.build(orderOf())).rejects.toMatchObject({ code: "Unavailable" });
});

test("a build that is ended loses its connection, by which the Engine ends it", async () => {
  const closed = Promise.withResolvers<void>();
  const stop = new AbortController();
  const session = await sessionOf((response) => {
    response.once("close", () => closed.resolve());
    say(response, { stream: "begun\n" });
  });
  const order = orderOf(stop.signal);
  const reason = new Error("enough");
  const building = session.build({ ...order, onLine: () => stop.abort(reason) });
  await expect(building).rejects.toBe(reason);
  await closed.promise;
});

test("the twelve newest results stay, and what is others'", async () => {
  const session = await sessionOf(() => {});
  await session[Symbol.asyncDispose]();
  const removed = asked.filter((line) => line.startsWith("DELETE")).map((line) => decodeURIComponent(line));
  expect(removed.map((line) => /build-a:(\d+)/.exec(line)?.[1])).toEqual(["1002", "1001", "1000"]);
});

test("a build is ended before the disk is full", async () => {
  const gib = 1024 ** 3;
  expect(reserveOf({ freeBytes: 0, totalBytes: 10 * gib })).toBe(0.5 * gib);
  expect(reserveOf({ freeBytes: 0, totalBytes: 1000 * gib })).toBe(2 * gib);
  const clock = new VirtualClock();
  const seen = [3 * gib, 2.5 * gib, 1.5 * gib];
  const space = guardSpace("/images", clock, async () => ({
    freeBytes: seen.shift() ?? 0,
    totalBytes: 1000 * gib,
  }));
  const aborted = new Promise((resolve) => space.signal.addEventListener("abort", resolve));
  while (seen.length > 0) {
    await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(1000);
  }
  await aborted;
  expect(space.signal.reason).toMatchObject({
    code: "Invalid",
    message: expect.stringContaining("only 1.5 GiB"),
  });
});
