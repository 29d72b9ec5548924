import { execFileSync } from "node:child_process";
import { constants, gzipSync, zstdCompressSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { StrataError } from "../../core/errors.ts";
import { packingOf, unpackStream } from "./decompression.ts";
import { collect, inChunks } from "./test-archives.ts";

const data = Buffer.from(Array.from({ length: 200_000 }, (_, index) => (index * index) % 251));
const never = new AbortController().signal;
const hasXz = (() => {
  try {
    execFileSync("xz", ["--version"]);
    return true;
  } catch {
    return false;
  }
})();

const packed = {
  none: data,
  gzip: gzipSync(data),
  zstd: zstdCompressSync(data, { params: { [constants.ZSTD_c_checksumFlag]: 1 } }),
  ...(hasXz && { xz: execFileSync("xz", ["-c"], { input: data }) }),
};

describe.each(Object.entries(packed))("%s", (packing, bytes) => {
  it("is recognized and unpacked", async () => {
    expect(packingOf(bytes.subarray(0, 16))).toBe(packing);
    const unpacked = await collect(unpackStream(inChunks(bytes, 1000), packingOf(bytes), never));
    expect(unpacked.equals(data)).toBe(true);
  });

  it.runIf(packing !== "none")("is refused when cut off or damaged", async () => {
    const changed = Buffer.from(bytes);
    changed.fill(0xaa, bytes.length >> 1, (bytes.length >> 1) + 40);
    for (const wrong of [bytes.subarray(0, bytes.length - 20), changed]) {
      const unpacking = collect(unpackStream(inChunks(wrong, 1000), packingOf(bytes), never));
      await expect(unpacking.then((read) => read.length)).rejects.toMatchObject({
        code: "Invalid",
        message: expect.stringContaining(packing),
      });
    }
  });

  it("passes on what the source throws", async () => {
    const source = (async function* () {
      yield bytes.subarray(0, 100);
      throw new StrataError("Unavailable", "the server is gone");
    })();
    await expect(collect(unpackStream(source, packingOf(bytes), never))).rejects.toMatchObject({
      code: "Unavailable",
    });
  });

  it("ends early when the reader has enough", async () => {
    let read = 0;
    for await (const chunk of unpackStream(inChunks(bytes, 1000), packingOf(bytes), never)) {
      read += chunk.length;
      break;
    }
    expect(read).toBeGreaterThan(0);
  });
});
