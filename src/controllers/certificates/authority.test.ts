import { generateKeyPairSync, X509Certificate } from "node:crypto";
import { createServer as createHttpServer, type RequestListener, type Server } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, test } from "vitest";
import { testCertificate } from "../../api/test-certificate.ts";
import { onlyCertificates, orderCertificate } from "./authority.ts";

const { cert, key } = testCertificate();
const servers: Pick<Server, "close" | "closeAllConnections">[] = [];
afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

async function portOf(server: Server): Promise<number> {
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}

/** What only this host reaches: whether it was asked is what matters. */
async function internal() {
  const asked: string[] = [];
  const server = createHttpServer((request, response) => {
    asked.push(request.url ?? "");
    response.end("a secret");
  });
  return { asked, url: `http://127.0.0.1:${await portOf(server)}/secret` };
}

/** An authority whose account is made by `account`, at another address where one is given. */
async function authority(account: RequestListener, elsewhere?: string): Promise<string> {
  let origin = "";
  const server = createServer({ cert, key }, (request, response) => {
    response.setHeader("content-type", "application/json");
    if (request.url === "/account") return void account(request, response);
    response.setHeader("replay-nonce", "bm9uY2U");
    const newAccount = elsewhere ?? `${origin}/account`;
    response.end(
      JSON.stringify({ newNonce: `${origin}/nonce`, newAccount, newOrder: `${origin}/order`, meta: {} }),
    );
  });
  origin = `https://127.0.0.1:${await portOf(server as unknown as Server)}`;
  return `${origin}/directory`;
}

function order(directory: string, answer = async (_token: string) => {}): Promise<unknown> {
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  return orderCertificate({
    directory,
    domains: ["a.test"],
    email: undefined,
    authorities: cert,
    accountKey: privateKey.export({ type: "pkcs8", format: "pem" }).toString(),
    answer,
    withdraw: async () => {},
  });
}

describe("an authority that leads elsewhere", () => {
  test("by its directory is not followed", async () => {
    const { asked, url } = await internal();
    const directory = await authority(() => {}, url);
    await expect(order(directory)).rejects.toThrow(/leads to http:\/\/127\.0\.0\.1:\d+ instead of itself/);
    expect(asked).toEqual([]);
  });

  test("by a redirection is not followed", async () => {
    const { asked, url } = await internal();
    const directory = await authority((_request, response) => {
      response.writeHead(303, { location: url, "replay-nonce": "bm9uY2U" }).end();
    });
    await expect(order(directory)).rejects.toThrow(/gave no certificate for a\.test/);
    expect(asked).toEqual([]);
  });
});

/** One that goes on to the challenge, and asks with that token. */
async function asking(token: string): Promise<string> {
  let origin = "";
  const server = createServer({ cert, key }, (request, response) => {
    const url = `${origin}/challenge`;
    const bodies: Record<string, object> = {
      "/directory": { newNonce: origin, newAccount: `${origin}/account`, newOrder: `${origin}/order` },
      "/order": { status: "pending", authorizations: [`${origin}/authorization`], finalize: url },
      "/authorization": {
        status: "pending",
        identifier: { type: "dns", value: "a.test" },
        challenges: [{ type: "http-01", status: "pending", url, token }],
      },
    };
    const path = request.url ?? "";
    response.statusCode = path === "/account" || path === "/order" ? 201 : 200;
    response.setHeader("content-type", "application/json");
    response.setHeader("replay-nonce", "bm9uY2U");
    response.setHeader("location", `${origin}${path}`);
    response.end(JSON.stringify(bodies[path] ?? { status: "valid" }));
  });
  origin = `https://127.0.0.1:${await portOf(server as unknown as Server)}`;
  return `${origin}/directory`;
}

test.each(["a\nadd server targets/x 127.0.0.1:22", "a b", "a;b", ""])(
  "a token that is none is answered by nobody: %j",
  async (token) => {
    const answered: string[] = [];
    const answer = async (one: string) => void answered.push(one);
    await expect(order(await asking(token), answer)).rejects.toThrow(/a token that is none/);
    expect(answered).toEqual([]);
  },
);

test("a token as it should be is answered", async () => {
  const answered: string[] = [];
  const answer = async (one: string) => {
    answered.push(one);
    throw new Error("enough");
  };
  await expect(order(await asking("abc-_1"), answer)).rejects.toThrow(/enough/);
  expect(answered).toEqual(["abc-_1"]);
});

test("of a chain, only its certificates are taken", () => {
  const clean = new X509Certificate(cert).toString();
  expect(onlyCertificates(`x\n\n${cert}\nshow info\n\n${cert}`)).toBe(clean + clean);
  expect(() => onlyCertificates("none")).toThrow(/0 certificates/);
});

test("the words of an authority are cut off", async () => {
  const directory = await authority((_request, response) => {
    response.statusCode = 400;
    response.setHeader("replay-nonce", "bm9uY2U");
    response.end(JSON.stringify({ detail: `no ${"x".repeat(5_000)}` }));
  });
  const error = await order(directory).catch((cause: Error) => cause);
  expect((error as Error).message).toMatch(/: no x+$/);
  expect((error as Error).message.length).toBeLessThan(700);
});
