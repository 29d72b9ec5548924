import { createServer, type Server } from "node:http";
import { type AddressInfo, createServer as createTcpServer } from "node:net";
import { afterEach, expect, test } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { createNetworkChecks, type Outcome } from "./network-checks.ts";

const checks = createNetworkChecks(systemClock);
const never = new AbortController().signal;
const closers: (() => void)[] = [];
afterEach(() => {
  for (const close of closers.splice(0)) close();
});

async function listening(server: Server | ReturnType<typeof createTcpServer>) {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  closers.push(() => server.close());
  const { port } = server.address() as AddressInfo;
  return { address: "127.0.0.1", port, from: "127.0.0.5" };
}

const web = (status: number) =>
  listening(
    createServer((request, response) => {
      response.writeHead(status, { from: request.socket.remoteAddress ?? "", location: "/elsewhere" });
      response.end("x".repeat(100_000));
    }),
  );

const sawOf = (outcome: Outcome) => (outcome.healthy ? "healthy" : outcome.saw);

test.each([
  [200, "healthy"],
  [204, "healthy"],
  [302, "healthy"],
  [404, "GET /up on port PORT was answered with status 404"],
  [503, "GET /up on port PORT was answered with status 503"],
])("HTTP %d", async (status, expected) => {
  const target = await web(status);
  const outcome = await checks.http({ ...target, path: "/up" }, 5_000, never);
  expect(sawOf(outcome)).toBe(expected.replace("PORT", String(target.port)));
});

test("it asks from the address that it was given", async () => {
  const seen: (string | undefined)[] = [];
  const target = await listening(
    createServer((request, response) => {
      seen.push(request.socket.remoteAddress);
      response.end();
    }),
  );
  await checks.http({ ...target, path: "/" }, 5_000, never);
  const tcp = createTcpServer((socket) => {
    seen.push(socket.remoteAddress);
    socket.destroy();
  });
  expect(sawOf(await checks.tcp(await listening(tcp), 5_000, never))).toBe("healthy");
  await expect.poll(() => seen).toEqual(["127.0.0.5", "127.0.0.5"]);
});

test("nobody there, somebody silent, somebody who speaks another language", async () => {
  const closed = await web(200);
  closers.pop()?.();
  await new Promise((resolve) => setImmediate(resolve));
  expect(sawOf(await checks.tcp(closed, 5_000, never))).toBe(`port ${closed.port} refused the connection`);
  expect(sawOf(await checks.http({ ...closed, path: "/" }, 5_000, never))).toBe(
    `GET / on port ${closed.port} refused the connection`,
  );
  const silent = await listening(createTcpServer(() => {}));
  expect(sawOf(await checks.http({ ...silent, path: "/" }, 50, never))).toBe(
    `GET / on port ${silent.port} did not answer within 50 ms`,
  );
  const other = await listening(createTcpServer((socket) => socket.end("220 mail ready\r\n")));
  expect(sawOf(await checks.http({ ...other, path: "/" }, 5_000, never))).toMatch(/failed: Parse Error/);
});

test("an abort is no outcome", async () => {
  const silent = await listening(createTcpServer(() => {}));
  const abort = new AbortController();
  const asking = checks.http({ ...silent, path: "/" }, 5_000, abort.signal);
  abort.abort(new Error("enough"));
  await expect(asking).rejects.toThrow("enough");
});

test("a request that cannot be made is unhealthy, and nothing is left of it", async () => {
  const clock = new VirtualClock();
  const target = { address: "127.0.0.1", port: 1, from: "127.0.0.1" };
  const outcome = await createNetworkChecks(clock).http({ ...target, path: "/\u0142" }, 1_000, never);
  expect(sawOf(outcome)).toMatch(/^GET \/\u0142 on port 1 failed: .*unescaped/);
  await clock.advance(2_000);
});
