import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { type Clock, systemClock } from "../../core/clock.ts";
import { settle, VirtualClock } from "../../core/virtual-clock.ts";
import { download, downloadText } from "./download.ts";
import { findStreamItems, selectItems } from "./simplestreams.ts";
import { collect } from "./test-archives.ts";

const architecture = process.arch === "arm64" ? "arm64" : "amd64";
const sum = (digit: string) => digit.repeat(64);
const options = { signal: new AbortController().signal, clock: systemClock, guard: undefined };

let server: Server | undefined;
afterEach(() => {
  server?.closeAllConnections();
  server?.close();
  server = undefined;
});

async function serve(listener: RequestListener): Promise<string> {
  server = createServer(listener).listen(0, "127.0.0.1");
  await new Promise((resolve) => server?.once("listening", resolve));
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

const items = {
  "incus.tar.xz": { ftype: "incus.tar.xz", path: "images/a/incus.tar.xz", sha256: sum("1") },
  "root.tar.xz": { ftype: "root.tar.xz", path: "images/a/rootfs.tar.xz", sha256: sum("2") },
  "disk.qcow2": { ftype: "disk-kvm.img", path: "images/a/disk.qcow2", sha256: sum("3") },
};
const product = (
  versions: Record<string, { items: object }>,
  arch = architecture,
  aliases = "debian/12/default,debian/12",
) => ({
  aliases,
  arch,
  versions: versions as Record<string, { items: typeof items }>,
});

describe("selectItems", () => {
  const base = "http://host/mirror/";
  const select = (products: Parameters<typeof selectItems>[0], alias: string) =>
    selectItems(products, alias, architecture, base);

  it("takes the newest version for this architecture, disks first", () => {
    const products = {
      other: product({ "20240109_00:00": { items } }, "s390x"),
      "debian:12": product({
        "20240105_05:24": { items },
        "20240107_05:24": { items },
        "20231231_05:24": { items },
      }),
    };
    const expected = [
      {
        format: "qcow2",
        url: `${base}images/a/disk.qcow2`,
        sha256: sum("3"),
        title: "debian:12 20240107_05:24",
      },
      {
        format: "tar",
        url: `${base}images/a/rootfs.tar.xz`,
        sha256: sum("2"),
        title: "debian:12 20240107_05:24",
      },
    ];
    for (const alias of ["debian/12", "debian/12/default", `debian/12/${architecture}`, "debian:12"]) {
      expect(select(products, alias), alias).toEqual(expected);
    }
    expect(select(products, "debian/11")).toBeUndefined();
  });

  it("passes over versions that are not complete yet", () => {
    const products = { x: product({ "20240102": { items: {} }, "20240101": { items } }) };
    expect(select(products, "debian/12")?.[0]?.title).toBe("x 20240101");
  });

  it("refuses an image of unusable files, and files outside the server", () => {
    const squash = { s: { ftype: "squashfs", path: "s", sha256: sum("4") } };
    expect(() => select({ x: product({ "20240101": { items: squash } }) }, "debian/12")).toThrow(
      /no file of a type/,
    );
    for (const path of ["http://other/x", "../../x", "//other/x", "/x"]) {
      const outside = { d: { ...items["disk.qcow2"], path } };
      expect(() => select({ x: product({ "20240101": { items: outside } }) }, "debian/12"), path).toThrow(
        /outside itself/,
      );
    }
  });
});

describe("findStreamItems", () => {
  const documents: Record<string, unknown> = {
    "/s/streams/v1/index.json": {
      format: "index:1.0",
      index: {
        tools: { datatype: "content-download", path: "streams/v1/tools.json" },
        images: { datatype: "image-downloads", path: "streams/v1/images.json", products: ["debian:12"] },
      },
    },
    "/s/streams/v1/images.json": {
      format: "products:1.0",
      products: { "debian:12": product({ "20240101": { items } }) },
    },
  };
  const listener: RequestListener = (request, response) => {
    const found = documents[request.url ?? ""];
    response.statusCode = found ? 200 : 404;
    response.end(JSON.stringify(found));
  };

  it("follows the index, with and without a slash at the end of the address", async () => {
    const address = await serve(listener);
    for (const path of ["/s", "/s/"]) {
      const [first] = await findStreamItems(`${address}${path}`, "debian/12", options);
      expect(first).toMatchObject({ url: `${address}/s/images/a/disk.qcow2`, format: "qcow2" });
    }
    await expect(findStreamItems(`${address}/s`, "alpine", options)).rejects.toMatchObject({
      code: "Invalid",
      message: expect.stringContaining('no image "alpine"'),
    });
  });

  it("says when there is no simplestreams server", async () => {
    const address = await serve(listener);
    await expect(findStreamItems(address, "x", options)).rejects.toThrow(/status 404/);
    const html = await serve((_request, response) => response.end("<html>"));
    await expect(findStreamItems(html, "x", options)).rejects.toThrow(/is no simplestreams document/);
  });
});

describe("download", () => {
  it("brings the bytes and the size", async () => {
    const address = await serve((_request, response) => response.end("x".repeat(100_000)));
    const sizes: number[] = [];
    const body = await collect(download(address, { ...options, onSize: (bytes) => sizes.push(bytes) }));
    expect(body.length).toBe(100_000);
    expect(sizes).toEqual([100_000]);
    await expect(downloadText(address, 1000, options)).rejects.toThrow(/larger than 1000 bytes/);
  });

  it.each([
    [404, "Invalid"],
    [403, "Invalid"],
    [503, "Unavailable"],
    [429, "Unavailable"],
  ])("turns status %i into %s, without the query in the message", async (status, code) => {
    const address = await serve((_request, response) => response.writeHead(status).end());
    const failure = collect(download(`${address}/image?token=secret`, options));
    await expect(failure).rejects.toMatchObject({
      code,
      message: expect.stringContaining(`${address}/image`),
    });
    await expect(failure).rejects.toMatchObject({ message: expect.not.stringContaining("secret") });
  });

  it("says when nobody listens, and when the connection ends early", async () => {
    const address = await serve((_request, response) => {
      response.writeHead(200, { "content-length": "1000" });
      response.write("x", () => response.destroy());
    });
    await expect(collect(download(address, options))).rejects.toMatchObject({ code: "Unavailable" });
    await expect(collect(download("http://127.0.0.1:1/", options))).rejects.toMatchObject({
      code: "Unavailable",
    });
  });

  it("goes on where it broke off, when the server can and has the same file", async () => {
    const content = Buffer.alloc(100_000, "strata");
    const ranges: (string | undefined)[] = [];
    const address = await serve((request, response) => {
      const { range, "if-range": version } = request.headers;
      ranges.push(range && `${range} of ${version}`);
      const from = Number(/^bytes=(\d+)-$/.exec(range ?? "")?.[1] ?? 0);
      response.writeHead(range ? 206 : 200, {
        ...{ "accept-ranges": "bytes", etag: '"v1"', "content-length": content.length - from },
        ...(range && { "content-range": `bytes ${from}-${content.length - 1}/${content.length}` }),
      });
      if (ranges.length > 2) response.end(content.subarray(from));
      else response.write(content.subarray(from, from + 30_000), () => response.destroy());
    });
    const clock = impatient();
    const sizes: number[] = [];
    const body = await collect(
      download(address, { ...options, clock, onSize: (bytes) => sizes.push(bytes) }),
    );
    expect(body).toEqual(content);
    expect(ranges[0]).toBeUndefined();
    expect(ranges.slice(1).every((range) => /^bytes=\d+- of "v1"$/.test(range ?? ""))).toBe(true);
    expect(sizes).toEqual([100_000]);
  });

  it("does not join two versions of a file", async () => {
    let requests = 0;
    const address = await serve((_request, response) => {
      const length = { "content-length": "100000", "accept-ranges": "bytes", etag: `"v${++requests}"` };
      response.writeHead(200, length).write("x".repeat(1000), () => response.destroy());
    });
    const body = collect(download(address, { ...options, clock: impatient() }));
    await expect(body).rejects.toMatchObject({ code: "Invalid", message: /changed while it was fetched/ });
    expect(requests).toBe(2);
  });

  it("gives up on a server that falls silent", async () => {
    const clock = new VirtualClock();
    const address = await serve((_request, response) => response.write("first"));
    const chunks = download(address, { ...options, clock });
    expect(Buffer.from((await chunks.next()).value ?? []).toString()).toBe("first");
    const second = chunks.next();
    const failure = expect(second).rejects.toMatchObject({
      code: "Unavailable",
      message: expect.stringContaining("sent nothing for 60 s"),
    });
    await settle();
    await clock.advance(60_000);
    await failure;
  });

  it("ends with the signal's reason", async () => {
    const controller = new AbortController();
    const address = await serve((_request, response) => response.write("first"));
    const reading = (async () => {
      for await (const _chunk of download(address, { ...options, signal: controller.signal })) {
        controller.abort(new Error("enough"));
      }
    })();
    await expect(reading).rejects.toThrow("enough");
  });
});

/** Real time, but for the pauses between two tries. */
function impatient(): Clock {
  return Object.assign(Object.create(systemClock), { sleep: async () => {} });
}
