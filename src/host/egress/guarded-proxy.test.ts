/** With a program of the test's own in place of restic, and a server in place of S3. */
import { once } from "node:events";
import { createServer, request, type Server } from "node:http";
import { type AddressInfo, connect } from "node:net";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { StrataError } from "../../core/errors.ts";
import { parseNetwork } from "./allowed-addresses.ts";
import { allowedAddress, GuardedProxy, type Resolve } from "./guarded-proxy.ts";

let service: Server;
let port: number;
const seen: string[] = [];
const refusals: StrataError[] = [];
const onRefusal = (error: StrataError) => void refusals.push(error);

beforeEach(async () => {
  seen.length = 0;
  refusals.length = 0;
  service = createServer((asked, answer) => {
    asked.resume().on("end", () => {
      seen.push(`${asked.method} ${asked.url} ${asked.headers.host} ${asked.headers["proxy-authorization"]}`);
      answer.writeHead(201, { "x-kind": "s3" }).end("stored");
    });
  });
  await once(service.listen(0, "127.0.0.1"), "listening");
  port = (service.address() as AddressInfo).port;
});
afterEach(() => service.close());

const setting = "STRATA_S3_NETWORKS";
const loopback = [parseNetwork("127.0.0.1")].flatMap((range) => range ?? []);
const names =
  (...addresses: string[]): Resolve =>
  async () =>
    addresses;

/** As HTTP libraries do with HTTP_PROXY. */
async function put(proxy: GuardedProxy, url: string, auth?: string): Promise<[number, string]> {
  const { hostname, port: at, username, password } = new URL(proxy.url);
  const basic = Buffer.from(auth ?? `${username}:${password}`).toString("base64");
  const headers = { host: new URL(url).host, "proxy-authorization": `Basic ${basic}` };
  const asked = request({ host: hostname, port: at, method: "PUT", path: url, headers }).end("bytes");
  const [response] = await once(asked, "response");
  let text = "";
  for await (const chunk of response) text += String(chunk);
  return [response.statusCode, text];
}

async function tunnelled(proxy: GuardedProxy, to: string): Promise<string> {
  const { hostname, port: at, username, password } = new URL(proxy.url);
  const basic = Buffer.from(`${username}:${password}`).toString("base64");
  const socket = connect(Number(at), hostname);
  socket.write(`CONNECT ${to} HTTP/1.1\r\nHost: ${to}\r\nProxy-Authorization: Basic ${basic}\r\n\r\n`);
  let text = "";
  for await (const chunk of socket) {
    const first = text === "";
    text += String(chunk);
    if (first && text.startsWith("HTTP/1.1 200"))
      socket.write("GET /in HTTP/1.1\r\nHost: s3\r\nConnection: close\r\n\r\n");
  }
  return text;
}

test("what is allowed is carried there and back, without the proxy's own password", async () => {
  await using proxy = await GuardedProxy.open({
    allowed: loopback,
    setting,
    resolve: names("127.0.0.1"),
    onRefusal,
  });
  expect(await put(proxy, `http://s3.example:${port}/b/k?x=1`)).toEqual([201, "stored"]);
  expect(seen).toEqual([`PUT /b/k?x=1 s3.example:${port} undefined`]);
  expect(await tunnelled(proxy, `s3.example:${port}`)).toMatch(/x-kind: s3[\s\S]*stored/);
  expect(refusals).toEqual([]);
});

test("nothing is carried to an internal address, by whatever name, and of several the allowed one is taken", async () => {
  await using proxy = await GuardedProxy.open({
    allowed: [],
    setting,
    resolve: names("127.0.0.1"),
    onRefusal,
  });
  expect((await put(proxy, `http://s3.example:${port}/b/k`))[0]).toBe(502);
  expect(await tunnelled(proxy, `127.0.0.1:${port}`)).toMatch(/^HTTP\/1\.1 502/);
  expect(await tunnelled(proxy, `[::ffff:127.0.0.1]:${port}`)).toMatch(/^HTTP\/1\.1 502/);
  expect(seen).toEqual([]);
  expect(refusals[0]).toMatchObject({
    code: "Forbidden",
    message: expect.stringContaining("s3.example is an internal address (allowed: public ones"),
  });
  const some = { allowed: loopback, setting, resolve: names("10.0.0.1", "127.0.0.1") };
  expect(await allowedAddress("s3.example", some)).toBe("127.0.0.1");
});

test("a name that leads elsewhere the second time leads nowhere", async () => {
  let times = 0;
  const resolve = async () => [times++ === 0 ? "93.184.216.34" : "127.0.0.1"];
  const options = { allowed: [], setting, resolve, onRefusal };
  expect(await allowedAddress("s3.example", options)).toBe("93.184.216.34");
  await using proxy = await GuardedProxy.open(options);
  expect((await put(proxy, `http://s3.example:${port}/b/k`))[0]).toBe(502);
  expect([seen, refusals.map(({ code }) => code)]).toEqual([[], ["Forbidden"]]);
});

test("nobody else may use it", async () => {
  await using proxy = await GuardedProxy.open({ allowed: loopback, setting });
  expect((await put(proxy, `http://127.0.0.1:${port}/b/k`, "strata:guess"))[0]).toBe(502);
  expect(seen).toEqual([]);
});

test("a name that does not exist is said to", async () => {
  const resolve = () => Promise.reject(new Error("ENOTFOUND"));
  await expect(allowedAddress("none.example", { allowed: [], setting, resolve })).rejects.toMatchObject({
    code: "Unavailable",
    message: "the name none.example leads nowhere",
  });
});

test.each(["localhost", "127.0.0.1", "[::1]", "169.254.169.254"])("%s is refused", async (host) => {
  await expect(allowedAddress(host, { allowed: [], setting })).rejects.toMatchObject({ code: "Forbidden" });
});
