import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { Certificate } from "../../kinds/certificate.ts";
import { TestTerminal } from "../test-terminal.ts";

const chain = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
const secret = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
let terminal: TestTerminal;
let file: (name: string) => string;
beforeEach(async () => {
  terminal = new TestTerminal();
  terminal.env = { STRATA_PROJECT: "campus" };
  terminal.cwd = await mkdtemp(join(tmpdir(), "certificates-"));
  file = (name) => join(terminal.cwd, name);
  await writeFile(file("site.pem"), chain);
  await writeFile(file("site.key"), secret);
  terminal.client.react = (resource) => {
    if (resource.metadata.deletedAt) return undefined;
    const own = (resource.spec as Certificate["spec"]).own !== undefined;
    const status = { ...(resource.status as object), state: own ? "ready" : "pending" };
    return { ...resource, status: { ...status, observedGeneration: resource.metadata.generation } };
  };
});
afterEach(() => rm(terminal.cwd, { recursive: true }));

const run = (...args: string[]) => terminal.run("certificate", ...args);
const spec = (name: string) =>
  (terminal.client.resources.get(`/certificates/campus/${name}`) as Certificate | undefined)?.spec;

test("one's own is read from its files, shown and deleted", async () => {
  const { status, out } = await run("create", "site", "--file", file("site.pem"), "--key", file("site.key"));
  expect(status).toBe(0);
  expect(out).toMatch(/site +ready +own .*by you/);
  expect(spec("site")).toEqual({ own: { certificate: chain, privateKey: secret } });
  expect((await run("list")).out).toContain("site");
  expect((await run("delete", "site", "--yes")).status).toBe(0);
  expect(spec("site")).toBeUndefined();
});

test("one is ordered, and not waited for: its balancer may come later", async () => {
  await writeFile(file("ca.pem"), chain);
  const { status, out } = await run(
    ...["create", "site", "--domain", "www.example.org", "--domain", "example.org"],
    ...["--email", "admin@example.org", "--directory", "https://acme.example.org/dir"],
    ...["--authorities", file("ca.pem")],
  );
  expect(status).toBe(0);
  expect(out).toMatch(/site +pending +acme\.example\.org +www\.example\.org, example\.org/);
  expect(spec("site")?.acme).toMatchObject({
    domains: ["www.example.org", "example.org"],
    email: "admin@example.org",
    directory: "https://acme.example.org/dir",
    authorities: chain,
  });
  await run("create", "plain", "--domain", "example.org");
  expect(spec("plain")?.acme?.directory).toMatch(/^https:\/\/acme-v02\.api\.letsencrypt\.org\//);
});

test.each([
  ["neither", [], "name either --file and --key, or each --domain"],
  [
    "both",
    ["--file", "site.pem", "--key", "site.key", "--domain", "a.example"],
    "name either --file and --key",
  ],
  ["a file without its key", ["--file", "site.pem"], "needs both --file and --key"],
  ["a key without its file", ["--key", "site.key", "--domain", "a.example"], "needs both --file and --key"],
  [
    "a file that is not there",
    ["--file", "/nowhere/a.pem", "--key", "/nowhere/a.key"],
    "cannot read /nowhere/a",
  ],
])("%s is refused before anything is made", async (_what, args, message) => {
  const { status, err } = await run("create", "site", ...args);
  expect(status).toBe(2);
  expect(err).toContain(message);
  expect(terminal.client.resources.size).toBe(0);
});
