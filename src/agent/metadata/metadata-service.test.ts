import { Agent, request } from "node:http";
import { connect } from "node:net";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { silentLogger } from "../../core/logger.ts";
import { systemRandom } from "../../core/random.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import type { InstanceFacts } from "./instance-facts.ts";
import { createMetadataService, type MetadataService } from "./metadata-service.ts";
import { sourceLimits } from "./source-limits.ts";
import { testFacts } from "./testing-facts.ts";

/** Two networks with the same instances' addresses, told apart by the host's; loopback has them all. */
const red = "127.0.83.1";
const blue = "127.0.83.2";
const guest = "127.0.83.7";
const neighbour = "127.0.83.8";
const stranger = "127.0.83.9";

const port = 20_000 + (process.pid % 20_000);
const guests = new Map<string, InstanceFacts>();
let clock: VirtualClock;
let service: MetadataService;

beforeEach(async () => {
  clock = new VirtualClock(1_800_000_000_000);
  guests.clear();
  guests.set(`${red} ${guest}`, testFacts({ hostname: "red" }));
  guests.set(`${red} ${neighbour}`, testFacts({ uid: "fedcba9876543210", hostname: "neighbour" }));
  guests.set(`${blue} ${guest}`, testFacts({ uid: "abcabcabcabcabca", hostname: "blue" }));
  service = createMetadataService({
    lookup: (hostAddress, source) => guests.get(`${hostAddress} ${source}`),
    port,
    key: systemRandom.bytes(32),
    clock,
    random: systemRandom,
    logger: silentLogger,
  });
  await Promise.all([service.listen(red), service.listen(blue)]);
});
afterEach(() => service.close());

interface Asked {
  from?: string;
  method?: string;
  headers?: Record<string, string>;
  body?: string;
  agent?: Agent;
}

/** `status` 0: no answer at all. */
function ask(host: string, path: string, asked: Asked = {}) {
  const { from = guest, method = "GET", headers = {}, body, agent = false } = asked;
  return new Promise<{ status: number; text: string; headers: Record<string, unknown> }>((resolve) => {
    const options = { host, port, path, method, headers, localAddress: from, agent };
    const sent = request(options, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () =>
        resolve({ status: response.statusCode ?? 0, text, headers: response.headers }),
      );
    });
    sent.on("error", () => resolve({ status: 0, text: "", headers: {} }));
    sent.end(body);
  });
}

const ttl = { "x-aws-ec2-metadata-token-ttl-seconds": "60" };
async function sessionOf(host: string, from = guest) {
  const { status, text } = await ask(host, "/latest/api/token", { from, method: "PUT", headers: ttl });
  expect(status).toBe(200);
  return { "x-aws-ec2-metadata-token": text };
}

describe("the metadata service", () => {
  it("knows an instance by the network's address and its own", async () => {
    for (const [host, from, name] of [
      [red, guest, "red"],
      [red, neighbour, "neighbour"],
      [blue, guest, "blue"],
    ] as const) {
      const headers = await sessionOf(host, from);
      const { text } = await ask(host, "/latest/meta-data/hostname", { from, headers });
      expect(text).toBe(name);
    }
  });

  it("gives a session to its own instance only", async () => {
    const headers = await sessionOf(red);
    expect((await ask(red, "/latest/meta-data/", { from: neighbour, headers })).status).toBe(401);
    expect((await ask(blue, "/latest/meta-data/", { headers })).status).toBe(401);
    expect((await ask(red, "/latest/meta-data/")).status).toBe(401);
    await clock.advance(60_000);
    expect((await ask(red, "/latest/meta-data/", { headers })).status).toBe(401);
  });

  it("does not answer strangers", async () => {
    expect((await ask(red, "/", { from: stranger })).status).toBe(0);
    expect((await ask(blue, "/", { from: neighbour })).status).toBe(0);
  });

  it("does not answer an address that an instance has left, on a connection of before either", async () => {
    const socket = connect({ host: red, port, localAddress: guest });
    const closed = new Promise<string>((resolve) => {
      let text = "";
      socket.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
        if (text.endsWith("</html>\n") && guests.delete(`${red} ${guest}`))
          socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      });
      socket.on("error", () => {}).on("close", () => resolve(text));
    });
    socket.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    expect((await closed).match(/HTTP\/1\.1/g)).toHaveLength(1);
  });

  it("tells no more than headers when asked so, and says what it is", async () => {
    const headers = await sessionOf(red);
    const head = await ask(red, "/latest/meta-data/hostname", { method: "HEAD", headers });
    expect(head).toMatchObject({
      status: 200,
      text: "",
      headers: { "content-length": "3", server: "EC2ws" },
    });
  });

  it("refuses what is forwarded, has a body, or headers without end", async () => {
    const headers = { ...ttl, "X-Forwarded-For": "10.0.0.1" };
    expect((await ask(red, "/latest/api/token", { method: "PUT", headers })).status).toBe(403);
    const body = "x".repeat(2000);
    const sent = await ask(red, "/latest/api/token", { method: "PUT", headers: ttl, body });
    expect(sent).toMatchObject({ status: 413, headers: { connection: "close" } });
    const long = { a: "x".repeat(10_000) };
    expect([0, 431]).toContain((await ask(red, "/", { headers: long })).status);
    expect((await ask(red, "/latest/api/token", { method: "PUT", headers: ttl, body: "" })).status).toBe(200);
  });

  it("bounds what one guest asks, to the good of its neighbours", async () => {
    const headers = await sessionOf(red);
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    const statuses: number[] = [];
    for (let i = 0; i < sourceLimits.burst - 2; i++) {
      statuses.push((await ask(red, "/latest", { headers, agent })).status);
    }
    agent.destroy();
    expect(statuses.filter((status) => status !== 200)).toEqual([503]);
    // Nor does it get new connections.
    expect((await ask(red, "/latest", { headers })).status).toBe(0);
    expect((await ask(red, "/latest", { from: neighbour })).status).toBe(401);
    await clock.advance(1_000);
    expect((await ask(red, "/latest", { headers })).status).toBe(200);
  });

  it("bounds the connections of one guest", async () => {
    const sockets = Array.from({ length: sourceLimits.connections + 5 }, () =>
      connect({ host: red, port, localAddress: guest }).on("error", () => {}),
    );
    let closed = 0;
    await new Promise<void>((resolve) => {
      for (const socket of sockets) socket.on("close", () => ++closed === 5 && resolve());
    });
    expect((await ask(red, "/", { from: neighbour })).status).toBe(401);
    for (const socket of sockets) socket.destroy();
  });

  it("stops listening where a network is gone, and only there", async () => {
    await service.unlisten(red);
    expect((await ask(red, "/")).status).toBe(0);
    expect((await ask(blue, "/")).status).toBe(401);
    await service.listen(red);
    await service.listen(red);
    expect((await ask(red, "/")).status).toBe(401);
  });

  it("says when it cannot listen, and can be asked again", async () => {
    await expect(service.listen("192.0.2.1")).rejects.toThrow(/EADDRNOTAVAIL/);
    await expect(service.listen("192.0.2.1")).rejects.toThrow(/EADDRNOTAVAIL/);
    await service.unlisten("192.0.2.1");
  });
});
