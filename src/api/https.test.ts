import { connect } from "node:tls";
import { afterAll, beforeAll, expect, test } from "vitest";
import { createHttpClient, type HttpClient } from "../client/http-client.ts";
import { systemClock } from "../core/clock.ts";
import { keyPairKind } from "../kinds/key-pair.ts";
import { projectKind } from "../kinds/project.ts";
import { tokenKind } from "../kinds/token.ts";
import { systemPrincipal as system } from "../services/principal.ts";
import { testCertificate } from "./test-certificate.ts";
import { startTestApi, type TestApi } from "./testing.ts";

const certificate = testCertificate();
const spec = { publicKey: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ test" };
let api: TestApi;
let port = 0;

beforeAll(async () => {
  api = await startTestApi();
  ({ port } = await api.api.listenHttps({ host: "127.0.0.1", port: 0, ...certificate }));
});

afterAll(() => api.close());

function clientWith(token?: string): HttpClient {
  const url = `https://127.0.0.1:${port}`;
  return createHttpClient({ url, ca: certificate.cert, ...(token === undefined ? {} : { token }) });
}

async function issue(name: string, role: string, project?: string): Promise<string> {
  const token = { role, ...(project === undefined ? {} : { project }) };
  return (await api.services.tokens.issue(system, { name, spec: token })).secret;
}

test("a token opens its project, at once and until it is deleted", async () => {
  const client = clientWith(await issue("ci", "member", "default"));
  await client.create(keyPairKind, { project: "default", name: "laptop", spec });
  expect((await client.list(keyPairKind, {})).items).toHaveLength(1);
  await expect(client.create(projectKind, { name: "more", spec: {} })).rejects.toMatchObject({
    code: "Forbidden",
  });
  await expect(
    client.patchStatus(keyPairKind, { project: "default", name: "laptop" }, "x", {}),
  ).rejects.toMatchObject({ code: "Forbidden" });
  await api.services.resources.delete(system, tokenKind, { name: "ci" });
  await expect(client.list(keyPairKind, {})).rejects.toMatchObject({ code: "Unauthenticated" });
  client.close();
});

test("no token, a wrong one, and one of the right form are refused; wrong ones alike", async () => {
  const refusal = async (token?: string) => {
    const client = clientWith(token);
    try {
      await client.version();
    } catch (error) {
      return error as Error & { code: string };
    } finally {
      client.close();
    }
    throw new Error("was let in");
  };
  expect((await refusal()).message).toContain("Authorization: Bearer");
  const wrong = await Promise.all(["x", "strata_x", `strata_${"0".repeat(56)}`].map(refusal));
  expect(new Set(wrong.map((error) => `${error.code} ${error.message}`)).size).toBe(1);
  expect(wrong[0]?.code).toBe("Unauthenticated");
});

test("health needs no token; nothing else is open, and no header makes a request trusted", async () => {
  const ask = (path: string, header = "") =>
    new Promise<string>((resolve, reject) => {
      const socket = connect({ host: "127.0.0.1", port, ca: certificate.cert });
      let text = "";
      socket.on("data", (chunk) => {
        text += chunk;
      });
      socket.on("close", () => resolve(text));
      socket.on("error", reject);
      socket.write(`GET ${path} HTTP/1.1\r\nHost: x\r\n${header}Connection: close\r\n\r\n`);
    });
  expect(await ask("/healthz")).toMatch(/^HTTP\/1\.1 200/);
  for (const path of [
    "/v1/version",
    "/v1/openapi.json",
    "/v1/hosts",
    "/v1/nothing",
    "/v1/hosts/a/sessions",
  ]) {
    expect(await ask(path), path).toMatch(/^HTTP\/1\.1 401/);
  }
  const forged = "X-Forwarded-For: 127.0.0.1\r\nX-Remote-User: root\r\nAuthorization: Basic cm9vdDo=\r\n";
  expect(await ask("/v1/hosts", forged)).toMatch(/^HTTP\/1\.1 401/);
  const upgrade =
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n";
  const path = "/v1/projects/default/instances/web/exec";
  expect(await ask(path, upgrade)).toMatch(/^HTTP\/1\.1 401[\s\S]*"code":"Unauthenticated"/);
});

test("a certificate that is not known is refused in words", async () => {
  const client = createHttpClient({ url: `https://127.0.0.1:${port}`, token: "x" });
  await expect(client.version()).rejects.toMatchObject({
    code: "Unavailable",
    message: expect.stringContaining("self-signed"),
  });
  expect(() => createHttpClient({ url: "http://127.0.0.1" })).toThrow("https://HOST:PORT");
});

test("a right token still works, if later, while others guess", async () => {
  const own = await startTestApi();
  const there = await own.api.listenHttps({ host: "127.0.0.1", port: 0, ...certificate });
  const spec = { role: "viewer", project: "default" };
  const { secret } = await own.services.tokens.issue(system, { name: "patient", spec });
  const url = `https://127.0.0.1:${there.port}`;
  const right = createHttpClient({ url, ca: certificate.cert, token: secret });
  const guesser = createHttpClient({ url, ca: certificate.cert, token: "strata_guess" });
  for (let i = 0; i < 20; i++) await guesser.version().catch(() => {});
  const before = systemClock.monotonicMs();
  expect((await right.version()).version).toBe("1.2.3");
  expect(systemClock.monotonicMs() - before).toBeGreaterThan(900);
  right.close();
  guesser.close();
  await own.close();
});
