import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { clusterBytes, clusters, qcow2In } from "../drift/testing-qcow2.ts";
import { readRootDisk, requireOverlay } from "./root-part.ts";

const base = "/srv/images/1/disk.qcow2";
let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-overlay-"));
});
afterEach(() => rm(directory, { recursive: true }));

/** The header of an overlay, as QEMU writes it. */
async function overlay(change: (header: Buffer) => void = () => {}, named = base): Promise<string> {
  const header = Buffer.alloc(65_536);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeBigUInt64BE(600n, 8);
  header.writeUInt32BE(Buffer.byteLength(named), 16);
  header.write(named, 600);
  change(header);
  const path = join(directory, "disk.qcow2");
  await writeFile(path, header);
  return path;
}

test("an overlay over its image may be opened", async () => {
  await requireOverlay(await overlay(), base);
  await requireOverlay(await overlay((header) => header.writeUInt32BE(2, 4)), base);
});

test.each<[string, (header: Buffer) => void, string]>([
  ["is based on another file of the host", () => {}, "/etc/shadow"],
  ["is based on a longer name that begins with the image's", () => {}, `${base}.other`],
  ["is based on what a driver of QEMU's would fetch", () => {}, "json:{}"],
  ["is based on nothing", (header) => header.writeUInt32BE(0, 16), base],
  ["has its data in another file", (header) => header.writeBigUInt64BE(4n, 72), base],
  ["is no qcow2", (header) => header.writeUInt32BE(0, 0), base],
  ["has a name outside of its header", (header) => header.writeBigUInt64BE(1n << 40n, 8), base],
])("one that %s is refused", async (_what, change, named) => {
  await expect(requireOverlay(await overlay(change, named), base)).rejects.toMatchObject({
    code: "Unavailable",
  });
});

describe("the disk of a machine that starts by its own boot loader", () => {
  /** Its own first sector, over a disk of an image; what reads it. */
  async function read(first: Buffer, change: (header: Buffer) => void = () => {}): Promise<Buffer> {
    const content = { 1: { plain: Buffer.alloc(clusterBytes, "b") } };
    const path = await qcow2In(directory, "base.qcow2", content);
    await qcow2In(directory, "disk.qcow2", { 0: { plain: first } }, change);
    const images = {
      containerTree: notAsked,
      vmDisk: async () => ({ path, format: "qcow2", sizeMib: 1 }) as const,
    };
    const pieces: Uint8Array[] = [];
    const { signal } = new AbortController();
    const part = { directory, images, imageDigest: "sha256:1" };
    await readRootDisk(part, async (disk) => void (await collect(disk, pieces)), signal);
    return Buffer.concat(pieces);
  }
  const notAsked = () => Promise.reject(new Error("not asked"));
  const collect = async (disk: AsyncIterable<Uint8Array>, pieces: Uint8Array[]) => {
    for await (const piece of disk) pieces.push(piece);
  };
  const bootSector = Buffer.alloc(clusterBytes);
  bootSector.write("code");
  bootSector.writeUInt16LE(0xaa55, 510);

  test("is read as the machine sees it, to its end", async () => {
    const disk = await read(bootSector);
    expect(disk.length).toBe(clusters * clusterBytes);
    expect(disk.subarray(0, clusterBytes)).toEqual(bootSector);
    expect(disk.subarray(clusterBytes, 2 * clusterBytes).every((byte) => byte === 98)).toBe(true);
    expect(disk.subarray(2 * clusterBytes).every((byte) => byte === 0)).toBe(true);
  });

  test("is refused without a boot loader, or when no image's disk may be so large", async () => {
    const unsupported = { code: "Unsupported", message: expect.stringMatching(/no boot loader any more/) };
    await expect(read(Buffer.alloc(clusterBytes))).rejects.toMatchObject(unsupported);
    const large = (header: Buffer) => {
      header.writeBigUInt64BE(65n * 1024n ** 3n, 24);
      // Of 2 MiB: then one table has them all.
      header.writeUInt32BE(21, 20);
    };
    await expect(read(bootSector, large)).rejects.toThrow(/65 GiB.*64 GiB at most/);
  });

  test("that is not there is said to", async () => {
    const part = { directory, images: { containerTree: notAsked, vmDisk: notAsked }, imageDigest: "" };
    const { signal } = new AbortController();
    await expect(readRootDisk(part, async () => {}, signal)).rejects.toMatchObject({ code: "NotFound" });
  });
});
