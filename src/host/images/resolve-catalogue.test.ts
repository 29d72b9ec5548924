import { once } from "node:events";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, expect, it } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { imageCatalogue, searchCatalogue } from "../../kinds/image-catalogue.ts";
import { resolveCatalogue, throughMirrors } from "./resolve-catalogue.ts";

const options = { signal: new AbortController().signal, clock: systemClock, guard: undefined };
const architecture = process.arch === "arm64" ? "arm64" : "amd64";
const sha512 = "5".repeat(128);
let server: Server;
let address: string;
let list: string;

/** A mirror with the same layout as the official server. */
beforeEach(async () => {
  list = `${sha512}  debian-12-generic-${architecture}.qcow2\n${"6".repeat(128)}  debian-12-nocloud-${architecture}.qcow2\n`;
  server = createServer((request, response) => {
    if (request.url === "/debian/images/cloud/bookworm/latest/SHA512SUMS") response.end(list);
    else response.writeHead(404).end();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});
afterEach(() => {
  server.closeAllConnections();
  server.close();
});

it("finds the image and its checksum by way of a mirror", async () => {
  const mirrors = { "https://cloud.debian.org/": `${address}/debian/` };
  expect(await resolveCatalogue("debian/12", mirrors, options)).toEqual({
    type: "file",
    mirrored: true,
    url: `${address}/debian/images/cloud/bookworm/latest/debian-12-generic-${architecture}.qcow2`,
    checksum: { algorithm: "sha512", digits: sha512 },
    format: "qcow2",
    title: "Debian 12 (bookworm)",
  });
});

it("fetches nothing without a checksum, nor what nobody knows", async () => {
  const mirrors = { "https://cloud.debian.org/": `${address}/debian/` };
  list = list.replace("-generic-", "-other-");
  await expect(resolveCatalogue("debian/12", mirrors, options)).rejects.toMatchObject({
    code: "Invalid",
    message: /SHA512SUMS has no checksum of debian-12-generic/,
  });
  await expect(resolveCatalogue("debian/13", mirrors, options)).rejects.toThrow(/status 404/);
  await expect(resolveCatalogue("debian/0", mirrors, options)).rejects.toThrow(/no image "debian\/0"/);
});

it("a simplestreams server may have a mirror too", async () => {
  const mirrors = { "https://images.linuxcontainers.org": address };
  expect(await resolveCatalogue("rockylinux/9", mirrors, options)).toEqual({
    ...{ type: "simplestreams", mirrored: true, server: address, alias: "rockylinux/9/cloud" },
  });
});

it("of mirrors, the longest beginning counts", () => {
  const mirrors = { "https://a.example/": "http://one/", "https://a.example/b/": "http://two/" };
  expect(throughMirrors("https://a.example/b/c", mirrors)).toBe("http://two/c");
  expect(throughMirrors("https://a.example/c", mirrors)).toBe("http://one/c");
  expect(throughMirrors("https://b.example/c", mirrors)).toBe("https://b.example/c");
});

it("the catalogue has each name once, over HTTPS only, and can be searched", () => {
  expect(new Set(imageCatalogue.map(({ name }) => name)).size).toBe(imageCatalogue.length);
  for (const entry of imageCatalogue) {
    const source = entry.source("amd64");
    expect(source.type === "file" ? source.base : source.server).toMatch(/^https:\/\/[^/]+/);
    if (source.type === "file") expect(source.base).toMatch(/\/$/);
  }
  expect(searchCatalogue(["UBUNTU", "noble"]).map(({ name }) => name)).toEqual(["ubuntu/24.04"]);
  expect(searchCatalogue(["nothing of that name"])).toEqual([]);
});
