/** Disk images of other hypervisors, made by qemu-img: what they hold must arrive, whatever the format. */
import { hash } from "node:crypto";
import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ovfOf } from "../src/host/images/appliance/testing-appliances.ts";
import type { ImageStore, StoredImage } from "../src/host/images/image-store.ts";
import { tarOf } from "../src/host/images/test-archives.ts";
import { ImagesBox, make, sh, signal, upload } from "./images-box.ts";
import { tinyImage } from "./tiny-image.ts";

let box: ImagesBox;
let store: ImageStore;
/** The tiny image from its archive, and a raw disk with a partition table that holds the same tree. */
let image: StoredImage;
let raw: string;

beforeAll(async () => {
  box = await ImagesBox.create();
  store = await box.store();
  image = await make(store, upload(), await tinyImage());
  raw = path("disk.raw");
  const disk = await store.vmDisk(image.digest, signal);
  await writeFile(raw, partitionTable([[0x83, disk.sizeMib]]));
  await sh(
    `truncate -s $(($2 + 8))M "$3"; qemu-img convert -O raw "$1" "$3.part"
     dd if="$3.part" of="$3" bs=1M seek=4 conv=notrunc,sparse status=none; rm "$3.part"`,
    disk.path,
    `${disk.sizeMib}`,
    raw,
  );
});
afterAll(async () => {
  expect(box.leaks()).toEqual([]);
  await box.remove();
});

const path = (name: string) => join(box.directory, name);

/** An MBR; the first partition begins at 4 MiB, each other where the one before ends. */
function partitionTable(partitions: readonly [type: number, sizeMib: number][]): Buffer {
  const table = Buffer.alloc(512);
  let startMib = 4;
  for (const [index, [type, sizeMib]] of partitions.entries()) {
    table[446 + index * 16 + 4] = type;
    table.writeUInt32LE(startMib * 2048, 446 + index * 16 + 8);
    table.writeUInt32LE(sizeMib * 2048, 446 + index * 16 + 12);
    startMib += sizeMib;
  }
  table.writeUInt16LE(0xaa55, 510);
  return table;
}

async function convert(to: string, ...options: string[]): Promise<string> {
  const file = path(`converted-${options.join("-").replaceAll(/[^a-z]/gi, "")}.${to}`);
  await sh(
    'from=$1 to=$2; shift 2; qemu-img convert -f raw "$@" "$from" "$to"',
    raw,
    file,
    "-O",
    to,
    ...options,
  );
  return file;
}

async function leftNothing(): Promise<void> {
  expect(await readdir(join(box.imageDir, "tmp"))).toEqual([]);
}

describe("a disk with a partition table", () => {
  it.each<["vmdk" | "vdi" | "vhdx" | "qcow2", string[]]>([
    ["vmdk", ["-o", "subformat=monolithicSparse"]],
    ["vmdk", ["-o", "subformat=streamOptimized"]],
    ["vdi", []],
    ["vdi", ["-o", "static=on"]],
    ["vhdx", []],
    ["vhdx", ["-o", "subformat=fixed"]],
    ["qcow2", ["-o", "compat=0.10"]],
    ["qcow2", ["-c", "-o", "compression_type=zstd"]],
  ])("of the format %s (%s) gives the same image as the tree it was made from", async (format, options) => {
    const file = await convert(format, ...options);
    expect(await make(store, upload(format), file)).toEqual(image);
    await leftNothing();
  });

  it("may be raw, also packed", async () => {
    await sh('xz -0 -k "$1"; gzip -1 -k "$1"; zstd -q -1 "$1"', raw);
    for (const ending of ["", ".xz", ".gz", ".zst"]) {
      expect(await make(store, upload("raw"), `${raw}${ending}`), ending).toEqual(image);
    }
    await leftNothing();
  });

  it("may be an appliance's, of VirtualBox's or VMware's kind", async () => {
    const disk = await readFile(await convert("vmdk", "-o", "subformat=streamOptimized"));
    const ovf = ovfOf();
    const manifest = `SHA1 (shop.ovf) = ${hash("sha1", ovf)}\nSHA1 (shop-disk001.vmdk) = ${hash("sha1", disk)}\n`;
    const entries = [
      { name: "shop.ovf", content: ovf },
      { name: "shop.mf", content: manifest },
      { name: "shop-disk001.vmdk", content: disk },
    ];
    await writeFile(path("shop.ova"), await tarOf(entries));
    expect(await make(store, upload("ova"), path("shop.ova"))).toEqual(image);
    await leftNothing();
  });

  it("that has more than its root is not cut down without a word", async () => {
    const { sizeMib } = await store.vmDisk(image.digest, signal);
    const file = path("two.raw");
    await sh('cp --sparse=always "$1" "$2"; truncate -s $(($3 + 40))M "$2"', raw, file, `${sizeMib}`);
    await sh('printf XFSB | dd of="$1" bs=1M seek=$(($2 + 4)) conv=notrunc status=none', file, `${sizeMib}`);
    await sh('dd if="$1" of="$2" conv=notrunc status=none', await tableFile(sizeMib), file);
    await expect(make(store, upload("raw"), file)).rejects.toMatchObject({
      code: "Unsupported",
      message: /a partition with xfs besides its root/,
    });
    expect(await make(store, upload("raw", "direct"), file)).toEqual(image);
    await expect(make(store, upload("raw", "firmware"), file)).rejects.toMatchObject({
      code: "Invalid",
      message: /no boot loader/,
    });
    await leftNothing();
  });
});

async function tableFile(sizeMib: number): Promise<string> {
  const file = path("table");
  await writeFile(
    file,
    partitionTable([
      [0x83, sizeMib],
      [0x83, 16],
    ]),
  );
  return file;
}

it("a disk that starts by itself but has no root that can be read is an image for VMs", async () => {
  const file = path("xfs.raw");
  const table = partitionTable([[0x83, 16]]);
  table.write("boot code", 0);
  await writeFile(file, table);
  await sh('truncate -s 24M "$1"; printf XFSB | dd of="$1" bs=1M seek=4 conv=notrunc status=none', file);
  const made = await make(store, upload("raw"), file);
  expect(made).toMatchObject({
    types: ["vm"],
    boot: "firmware",
    limitation: expect.stringMatching(/cannot start as a container: no root file system.*with xfs/),
  });
  const disk = await store.vmDisk(made.digest, signal);
  expect(disk).toMatchObject({ firmware: "bios", sizeMib: 24 });
  expect(disk.boot).toBeUndefined();
  expect(await sh('qemu-img compare -f qcow2 -F raw "$1" "$2"', disk.path, file)).toMatch(/identical/);
  await expect(store.containerTree(made.digest, signal)).rejects.toMatchObject({ code: "Unsupported" });
  const again = await make(await box.store(), upload("qcow2", "firmware"), disk.path);
  expect(again.digest).toBe(made.digest);
  expect((await stat(disk.path)).mode & 0o777).toBe(0o444);
  await leftNothing();
});
