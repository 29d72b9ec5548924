import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { tcpConnect } from "./tcp-connect.ts";

const connect = tcpConnect(systemClock);
const never = new AbortController().signal;

test("an open port answers, a closed one does not", async () => {
  const server = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  expect(await connect("127.0.0.1", port, 1_000, never)).toBe(true);
  server.close();
  await once(server, "close");
  expect(await connect("127.0.0.1", port, 1_000, never)).toBe(false);
});

test("an abort ends it", async () => {
  const abort = new AbortController();
  const asked = connect("192.0.2.1", 80, 60_000, abort.signal);
  abort.abort(new Error("stop"));
  await expect(asked).rejects.toThrow("stop");
});
