import { hash } from "node:crypto";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { vmdk, vmdkText } from "../disk-formats/testing-disks.ts";
import { inChunks, type TestEntry, tarOf } from "../test-archives.ts";
import { readOvf } from "./ovf-descriptor.ts";
import { hardDisk, ovfOf } from "./testing-appliances.ts";
import { unpackAppliance } from "./unpack-appliance.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-appliance-"));
});
afterEach(() => rm(directory, { recursive: true }));

const file = (href: string) => `<File ovf:id="file1" ovf:href="${href}"/>`;

describe("an OVF descriptor", () => {
  it("names the disk of its machine", () => {
    expect(readOvf(ovfOf())).toEqual({ file: "shop-disk001.vmdk", capacityBytes: 1_048_576 });
    const disks =
      '<Disk ovf:capacity="8" ovf:capacityAllocationUnits="byte * 2^30" ovf:diskId="vmdisk1" ovf:fileRef="file1"/>';
    expect(readOvf(ovfOf({ disks })).capacityBytes).toBe(8 * 1024 ** 3);
    expect(readOvf(ovfOf({ items: hardDisk("vmdisk1").replace("/disk/", "ovf:/disk/") })).file).toBe(
      "shop-disk001.vmdk",
    );
  });

  it.each<[string, string, RegExp]>([
    ["a path that climbs", ovfOf({ files: file("../../etc/shadow") }), /only files beside the descriptor/],
    ["an absolute path", ovfOf({ files: file("/etc/shadow") }), /only files beside the descriptor/],
    ["an address", ovfOf({ files: file("file:shadow") }), /only files beside the descriptor/],
    ["a dot", ovfOf({ files: file("..") }), /only files beside the descriptor/],
    ["no file for its disk", ovfOf({ files: "" }), /disk without a file/],
    ["no disk", ovfOf({ items: "" }), /machine without a disk/],
    ["two disks", ovfOf({ items: hardDisk("vmdisk1") + hardDisk("vmdisk2") }), /with 2 disks/],
    [
      "another disk as its base",
      ovfOf().replace("ovf:diskId", 'ovf:parentRef="base" ovf:diskId'),
      /difference to another/,
    ],
    ["several pieces", ovfOf({ files: file("x").replace("/>", ' ovf:chunkSize="100"/>') }), /several pieces/],
    ["another root", "<Domain/>", /no OVF descriptor/],
    ["a document type", `<!DOCTYPE Envelope>${ovfOf()}`, /document type/],
  ])("with %s is refused", (_what, text, message) => {
    expect(() => readOvf(text)).toThrow(message);
  });
});

const disk = vmdk(vmdkText({ type: "streamOptimized" }));
const sum = (type: string, data: string | Buffer) => hash(type, data);

async function unpack(entries: readonly TestEntry[], maxBytes = 1024 ** 3) {
  const archive = inChunks(await tarOf(entries), 10_000);
  return unpackAppliance(archive, directory, { maxBytes }, new AbortController().signal);
}

describe("an OVA", () => {
  const ovf = { name: "shop.ovf", content: ovfOf() };
  const vmdkFile = { name: "shop-disk001.vmdk", content: disk };

  it("gives its disk alone, whatever the order and with right checksums", async () => {
    const manifest = [
      `SHA256 (shop.ovf) = ${sum("sha256", ovf.content)}`,
      `SHA1(shop-disk001.vmdk)= ${sum("sha1", disk)}`,
    ].join("\r\n");
    const found = await unpack([vmdkFile, { name: "shop.mf", content: manifest }, ovf]);
    expect(found.format).toBe("vmdk");
    expect(await readFile(found.path)).toEqual(disk);
    expect(await readdir(directory)).toHaveLength(1);
  });

  it("may have a flat disk in a member of its own", async () => {
    const extents = 'RW 2048 FLAT "shop-flat.vmdk" 0';
    const text = vmdkText({ type: "monolithicFlat", extents }).padEnd(1024);
    const flat = { name: "shop-flat.vmdk", content: Buffer.alloc(1_048_576, 7) };
    const found = await unpack([ovf, { name: "shop-disk001.vmdk", content: text }, flat]);
    expect(found.format).toBe("raw");
    expect((await readFile(found.path)).length).toBe(1_048_576);
  });

  const flatAt = (path: string) => ({
    name: "shop-disk001.vmdk",
    content: vmdkText({ type: "monolithicFlat", extents: `RW 2048 FLAT "${path}" 0` }).padEnd(1024),
  });
  it.each<[string, TestEntry[], RegExp]>([
    ["without a descriptor", [vmdkFile], /no descriptor/],
    ["without its disk", [ovf], /does not hold the disk "shop-disk001.vmdk"/],
    ["with a flat disk that is a file of the host", [ovf, flatAt("/etc/shadow")], /not in the archive/],
    ["with a flat disk that climbs", [ovf, flatAt("../shop.ovf")], /not in the archive/],
    ["with a directory", [ovf, { name: "a/shop-disk001.vmdk", content: disk }], /only plain files/],
    ["with a path that climbs", [ovf, { name: "../x.vmdk", content: disk }], /only plain files/],
    [
      "with a symbolic link",
      [ovf, { name: "shop-disk001.vmdk", type: "symlink", linkname: "/etc/shadow" }],
      /only plain/,
    ],
    ["with a name twice", [ovf, ovf], /"shop.ovf" twice/],
    ["with two descriptors", [ovf, { ...ovf, name: "b.ovf" }, vmdkFile], /several .ovf/],
    [
      "with a wrong checksum",
      [ovf, vmdkFile, { name: "a.mf", content: `SHA1(shop-disk001.vmdk)= ${"0".repeat(40)}` }],
      /is damaged/,
    ],
    [
      "with checksums of other files",
      [ovf, vmdkFile, { name: "a.mf", content: "SHA1(/etc/shadow)= 00" }],
      /checksum file/,
    ],
    [
      "with a huge descriptor",
      [{ name: "a.ovf", content: Buffer.alloc(1024 ** 2 + 1) }, vmdkFile],
      /is the limit/,
    ],
    [
      "with another disk format",
      [ovf, { name: "shop-disk001.vmdk", content: "conectix".padEnd(600) }],
      /VHD/,
    ],
  ])("%s is refused", async (_what, entries, message) => {
    await expect(unpack(entries)).rejects.toMatchObject({ message });
  });

  it("larger than the limit is refused before it is written", async () => {
    await expect(unpack([ovf, vmdkFile], 10_000)).rejects.toThrow(/more than/);
  });
});
