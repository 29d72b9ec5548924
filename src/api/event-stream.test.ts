import { mkdtemp, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { createLogger } from "../core/logger.ts";
import { systemRandom } from "../core/random.ts";
import { settle, VirtualClock } from "../core/virtual-clock.ts";
import { hostKind } from "../kinds/host.ts";
import { systemPrincipal as system } from "../services/principal.ts";
import { testServices } from "../services/testing.ts";
import { type Api, createApi } from "./api.ts";
import { streamLimits } from "./event-stream.ts";

let dir = "";
let api: Api;
let parts: Awaited<ReturnType<typeof testServices>>;
let clock: VirtualClock;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "stream-"));
  clock = new VirtualClock();
  parts = await testServices({ clock });
  const { services } = parts;
  api = await createApi({
    services,
    clock,
    random: systemRandom,
    logger: createLogger("silent"),
    version: "1",
  });
  await api.listenUnix(join(dir, "s"));
});

afterEach(async () => {
  const closing = api.close();
  let closed = false;
  void closing.then(() => {
    closed = true;
  });
  while (!closed) await clock.advance(100);
  await rm(dir, { recursive: true, force: true });
});

/** A client at the level of octets, so that it can be as slow as it likes. */
async function watchHosts(): Promise<{ socket: Socket; text: () => string }> {
  const socket = connect({ path: join(dir, "s") });
  let text = "";
  socket.setEncoding("utf8");
  socket.on("data", (chunk) => {
    text += chunk;
  });
  socket.on("error", () => {});
  const after = await parts.store.revision();
  socket.write(`GET /v1/hosts?watch=true&after=${after} HTTP/1.1\r\nHost: x\r\n\r\n`);
  await until(() => text.includes(`{"revision":${after}}`));
  return { socket, text: () => text };
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await settle();
}

const label = (i: number) =>
  parts.services.resources.apply(system, hostKind, {
    name: "one",
    labels: Object.fromEntries(Array.from({ length: 64 }, (_, n) => [`l${n}`, `${i}${"x".repeat(250)}`])),
  });

test("a quiet stream shows signs of life", async () => {
  const { socket, text } = await watchHosts();
  for (let i = 1; i <= 3; i++) {
    await clock.advance(streamLimits.heartbeatMs);
    await until(() => text().split(": heartbeat").length === i + 1);
  }
  socket.destroy();
});

test("events carry an id to resume from", async () => {
  const { socket, text } = await watchHosts();
  const { resource } = await label(1);
  await until(() => text().includes("event: put"));
  expect(text()).toContain(`id: ${resource.metadata.revision}.1\nevent: put\ndata: {"kind":"Host"`);
  socket.destroy();
});

test("a client that stops reading is dropped, and the events it did not take are not kept for it", async () => {
  const { socket, text } = await watchHosts();
  socket.pause();
  const writes = 400;
  for (let i = 0; i < writes; i++) await label(i);
  let gone = false;
  socket.once("error", () => {
    gone = true;
  });
  for (let elapsed = 0; !gone && elapsed < 4 * streamLimits.stalledMs; elapsed += 1000) {
    await clock.advance(1000);
    // Empty lines between requests are allowed; once the other end is gone they cannot be sent.
    socket.write("\r\n");
    await settle();
  }
  expect(gone).toBe(true);
  expect(text().split("event: put").length, "what fits in the buffers between").toBeLessThan(writes / 2);
});
