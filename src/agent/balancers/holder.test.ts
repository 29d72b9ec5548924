import { mkdtempDisposable } from "node:fs/promises";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { balancerLimits } from "../../kinds/load-balancer.ts";
import { Holder } from "./holder.ts";

const open: { close(): void }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

test("an instance that ends the connection without an answer is not asked again: the client is told", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-holder-"));
  const path = join(directory.path, "holder.sock");
  const holder = new Holder(new VirtualClock(0), () => {});
  open.push(holder);
  await holder.listen(path);
  let asked = 0;
  const instance = createServer((socket) => {
    asked++;
    socket.once("data", () => socket.end());
  });
  await new Promise<void>((resolve) => instance.listen(0, "127.0.0.1", resolve));
  open.push({ close: () => instance.close() });
  const { port } = instance.address() as AddressInfo;
  const target = { address: "127.0.0.1", port, source: "127.0.0.1" };
  holder.set({ targets: [target], queueMs: 1_000, connectMs: 1_000, protocol: "http1" });
  const client = connect(path);
  client.write("GET / HTTP/1.1\r\n\r\n");
  let answer = "";
  client.setEncoding("utf8").on("data", (text: string) => {
    answer += text;
  });
  await new Promise((resolve) => client.on("close", resolve));
  expect(answer).toMatch(/^HTTP\/1\.1 502 Bad Gateway\r\n/);
  expect(asked).toBe(1);
});

async function listening() {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-holder-"));
  const path = join(directory.path, "holder.sock");
  const clock = new VirtualClock(0);
  const holder = new Holder(clock, () => {});
  open.push(holder);
  await holder.listen(path);
  // One more than it may hold.
  const clients: Socket[] = [];
  const answers: string[] = [];
  for (let index = 0; index < balancerLimits.maxHeld + 1; index++) {
    await new Promise<void>((resolve) => clients.push(connect(path, resolve)));
    const client = clients[index];
    answers[index] = "";
    client?.setEncoding("utf8").on("data", (text: string) => {
      answers[index] += text;
    });
    client?.on("error", () => {});
  }
  open.push({ close: () => clients.forEach((client) => void client.destroy()) });
  return { clock, holder, clients, answers };
}

const settings = { queueMs: 5_000, connectMs: 1_000, protocol: "tcp" } as const;

test("as many as allowed are held; one more is turned away, and the held ones get the first target", async () => {
  const { holder, clients, answers } = await listening();
  const { maxHeld } = balancerLimits;
  await expect.poll(() => clients.filter((client) => client.closed).length).toBe(1);
  expect(holder.count).toBe(maxHeld);
  const origin = createServer((socket) => void socket.on("error", () => {}).end("hello"));
  open.push(origin);
  await new Promise<void>((resolve) => origin.listen(0, "127.0.0.1", resolve));
  const address = origin.address();
  const port = typeof address === "object" && address ? address.port : 0;
  holder.set({ ...settings, targets: [{ address: "127.0.0.1", port, source: "127.0.0.1" }] });
  expect(holder.count).toBe(0);
  await expect.poll(() => answers.filter((one) => one === "hello").length, { timeout: 10_000 }).toBe(maxHeld);
});
