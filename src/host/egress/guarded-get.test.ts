import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import { parseNetwork } from "./allowed-addresses.ts";
import { guardedGet } from "./guarded-get.ts";
import type { Resolve } from "./guarded-proxy.ts";

let server: Server;
let port: number;
let requests: string[];
/** Where each path sends on to. */
const sendsTo = new Map<string, string>();

beforeEach(async () => {
  requests = [];
  sendsTo.clear();
  server = createServer((request, response) => {
    requests.push(`${request.headers.host} ${request.url}`);
    const location = sendsTo.get(request.url ?? "");
    if (location === undefined) response.end("here");
    else response.writeHead(302, { location }).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  ({ port } = server.address() as AddressInfo);
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

const leadsTo =
  (...addresses: string[]): Resolve =>
  async () =>
    addresses;
const loopback = [parseNetwork("127.0.0.1")].flatMap((range) => range ?? []);
const setting = "STRATA_IMAGE_NETWORKS";

async function get(path: string, allowed = loopback, resolve = leadsTo("10.0.0.1", "127.0.0.1")) {
  const { signal } = new AbortController();
  const guard = { allowed, setting, resolve };
  const answer = await guardedGet(path.includes("://") ? path : `http://files.example:${port}${path}`, {
    ...{ headers: {}, signal, guard },
  });
  let text = "";
  for await (const chunk of answer) text += String(chunk);
  return text;
}

test("of the addresses of a name, only allowed ones are asked", async () => {
  expect(await get("/file")).toBe("here");
  expect(requests).toEqual([`files.example:${port} /file`]);
});

test.each(["http://127.0.0.1:PORT/", "http://[::ffff:127.0.0.1]:PORT/", "http://files.example:PORT/"])(
  "%s is not asked when it is internal",
  async (url) => {
    const refused = { code: "Forbidden", message: expect.stringContaining(setting) };
    await expect(get(url.replace("PORT", String(port)), [])).rejects.toMatchObject(refused);
    expect(requests).toEqual([]);
  },
);

test("a redirect is followed where it may lead, and nowhere else", async () => {
  sendsTo
    .set("/here", "/file")
    .set("/inside", `http://127.0.0.2:${port}/secret`)
    .set("/disk", "file:///etc/shadow");
  sendsTo.set("/round", "/round");
  expect(await get("/here")).toBe("here");
  await expect(get("/inside")).rejects.toMatchObject({ code: "Forbidden" });
  await expect(get("/disk")).rejects.toThrow(/no http or https address/);
  await expect(get("/round")).rejects.toThrow(/more than 10 times/);
  expect(requests.filter((line) => line.includes("/secret"))).toEqual([]);
});

test("a name that leads elsewhere at its second look-up is asked where it was looked at", async () => {
  let looks = 0;
  const resolve: Resolve = async () => [["127.0.0.1"], ["10.0.0.1"]][looks++] ?? [];
  expect(await get("/file", loopback, resolve)).toBe("here");
  expect(looks).toBe(1);
});

test("a server that turns to another protocol, or hangs up, ends it", async () => {
  server.removeAllListeners("request");
  server.on("connection", (socket) =>
    socket.once("data", (asked) =>
      String(asked).includes("/hang")
        ? socket.destroy()
        : socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"),
    ),
  );
  await expect(get("/upgrade")).rejects.toMatchObject({ code: "Unavailable" });
  await expect(get("/hang")).rejects.toThrow();
});

test.each(["http://user:secret@files.example/", "http://%E0%A4%A@files.example/"])(
  "%s is refused",
  async (url) => {
    await expect(get(url)).rejects.toMatchObject({
      code: "Invalid",
      message: expect.not.stringContaining("secret"),
    });
  },
);

test("a name that does not exist is said to", async () => {
  const resolve = () => Promise.reject(new Error("ENOTFOUND"));
  await expect(get("/file", loopback, resolve)).rejects.toMatchObject({ code: "Unavailable" });
});
