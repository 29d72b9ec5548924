import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { tcpConnect } from "./tcp-connect.ts";

const connect = tcpConnect(systemClock);
const target = { address: "127.0.0.1", from: "127.0.0.2" };
const never = new AbortController().signal;

test("an open port answers, who asks comes from the given address; a closed one does not", async () => {
  const callers: (string | undefined)[] = [];
  const server = createServer((socket) => {
    callers.push(socket.remoteAddress);
    socket.end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  expect(await connect({ ...target, port }, 1_000, never)).toBe(true);
  expect(callers).toEqual(["127.0.0.2"]);
  server.close();
  await once(server, "close");
  expect(await connect({ ...target, port }, 1_000, never)).toBe(false);
});

test("an abort ends it", async () => {
  const abort = new AbortController();
  const asked = connect({ address: "192.0.2.1", port: 80, from: "0.0.0.0" }, 60_000, abort.signal);
  abort.abort(new Error("stop"));
  await expect(asked).rejects.toThrow("stop");
});
