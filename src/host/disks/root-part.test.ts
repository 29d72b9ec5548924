import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { requireOverlay } from "./root-part.ts";

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
