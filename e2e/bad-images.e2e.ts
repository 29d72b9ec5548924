/**
 * Images that want something: each gives one clear error, leaves nothing half-made, and what they name of the host is
 * never read. The file that they ask for holds a mark, which is looked for in everything the store has afterwards.
 */
import { readdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { hardDisk, ovfOf } from "../src/host/images/appliance/testing-appliances.ts";
import { vmdkText } from "../src/host/images/disk-formats/testing-disks.ts";
import type { ImageStore } from "../src/host/images/image-store.ts";
import { dockerArchive, ociArchive } from "../src/host/images/layers/testing-layers.ts";
import { type TestEntry, tarOf } from "../src/host/images/test-archives.ts";
import type { ArtefactFormat } from "../src/kinds/image.ts";
import { ImagesBox, make, sh, upload } from "./images-box.ts";

const seed = 20_261_128;
const mark = "this-line-belongs-to-the-host-alone";
let box: ImagesBox;
let store: ImageStore;
let secret: string;

beforeAll(async () => {
  box = await ImagesBox.create();
  store = await box.store({ maxDiskBytes: 256 * 1024 ** 2, limits: { ratioFromBytes: 64 * 1024 ** 2 } });
  secret = path("secret");
  await writeFile(secret, `${mark}\n`.repeat(2048).padEnd(1024 ** 2, "x"));
});
afterAll(async () => {
  expect(box.leaks()).toEqual([]);
  await box.remove();
});

const path = (name: string) => join(box.directory, name);

async function refused(format: ArtefactFormat, file: string, message: RegExp): Promise<void> {
  const failure = await make(store, upload(format), file).catch((error: unknown) => error);
  expect(failure).toMatchObject({ code: expect.stringMatching(/^(Invalid|Unsupported)$/), message });
  expect(await readdir(join(box.imageDir, "tmp"))).toEqual([]);
  expect(await store.list()).toEqual([]);
  const found = await sh('grep -rl -- "$1" "$2" || true', mark, box.imageDir);
  expect(found).toBe("");
}

describe("disks that name a file of the host", () => {
  it.each<[string, ArtefactFormat, string, RegExp]>([
    [
      "as the backing file of a qcow2",
      "qcow2",
      'qemu-img create -q -f qcow2 -b "$2" -F raw "$1" 1M',
      /backing file/,
    ],
    [
      "as the data file of a qcow2",
      "qcow2",
      'cp "$2" "$1.data"; qemu-img create -q -f qcow2 -o data_file="$1.data",data_file_raw=on "$1" 1M',
      /data in another file/,
    ],
    [
      "as the backing file of a VMDK",
      "vmdk",
      'qemu-img convert -f raw -O vmdk "$2" "$2.vmdk"; qemu-img create -q -f vmdk -b "$2.vmdk" -F vmdk "$1" 1M',
      /difference to another VMDK/,
    ],
    [
      "as the flat extent of a VMDK",
      "vmdk",
      'qemu-img create -q -f vmdk -o subformat=monolithicFlat "$1" 1M',
      /data in other files/,
    ],
  ])("%s", async (_how, format, command, message) => {
    const file = path("naming");
    await sh(`rm -f "$1" "$1".*; ${command}`, file, secret);
    await refused(format, file, message);
  });

  it("in a VMDK's text, whatever carries it", async () => {
    const extents = `RW 2048 FLAT "${secret}" 0`;
    const text = vmdkText({ type: "monolithicFlat", extents }).padEnd(1024);
    await writeFile(path("text.vmdk"), text);
    await refused("vmdk", path("text.vmdk"), /data in other files/);
    // QEMU follows the text within a sparse file that says it has no capacity.
    const carrier = Buffer.alloc(65_536);
    carrier.write("KDMV", 0, "latin1");
    carrier.writeUInt32LE(1, 4);
    carrier.writeBigUInt64LE(1n, 28);
    carrier.writeBigUInt64LE(2n, 36);
    carrier.write(text, 512);
    await writeFile(path("carrier.vmdk"), carrier);
    await refused("vmdk", path("carrier.vmdk"), /has no size/);
    const entries = [
      { name: "a.ovf", content: ovfOf() },
      { name: "shop-disk001.vmdk", content: text },
    ];
    await writeFile(path("flat.ova"), await tarOf(entries));
    await refused("ova", path("flat.ova"), /not in the archive/);
  });
});

describe("appliances", () => {
  const disk = { name: "shop-disk001.vmdk", content: "x" };
  const bomb = `<!DOCTYPE lolz [<!ENTITY a "lol">${Array.from({ length: 9 }, (_, index) => {
    const [name, inner] = ["bcdefghij"[index], "abcdefghi"[index]];
    return `<!ENTITY ${name} "${`&${inner};`.repeat(10)}">`;
  }).join("")}]><Envelope>&j;</Envelope>`;
  it.each<[string, (secret: string) => TestEntry[], RegExp]>([
    ["with an XML bomb", () => [{ name: "a.ovf", content: bomb }, disk], /document type/],
    [
      "with an entity from a file",
      (file) => [
        {
          name: "a.ovf",
          content: `<!DOCTYPE a [<!ENTITY x SYSTEM "file://${file}">]><Envelope>&x;</Envelope>`,
        },
        disk,
      ],
      /document type/,
    ],
    [
      "whose disk is a path",
      (file) => [{ name: "a.ovf", content: ovfOf({ files: `<File ovf:id="file1" ovf:href="${file}"/>` }) }],
      /only files beside the descriptor/,
    ],
    [
      "whose disk is a symbolic link",
      (file) => [
        { name: "a.ovf", content: ovfOf() },
        { name: "shop-disk001.vmdk", type: "symlink", linkname: file },
      ],
      /only plain files/,
    ],
    ["that climb", (file) => [{ name: `../..${file}`, content: "x" }], /only plain files/],
    [
      "with two disks",
      () => [{ name: "a.ovf", content: ovfOf({ items: hardDisk("a") + hardDisk("b") }) }],
      /2 disks/,
    ],
  ])("%s are refused", async (_what, entries, message) => {
    await writeFile(path("bad.ova"), await tarOf(entries(secret)));
    await refused("ova", path("bad.ova"), message);
  });
});

describe("layers", () => {
  const base: TestEntry[] = [{ name: "sbin/init", content: "#!/bin/sh\n", mode: 0o755 }];
  it.each<[string, (secret: string) => TestEntry[][], RegExp]>([
    ["that climb out", () => [base, [{ name: "../../etc/evil", content: "x" }]], /climbs/],
    [
      "that take away what is outside",
      () => [base, [{ name: "../../etc/.wh.passwd", content: "" }]],
      /climbs/,
    ],
    [
      "that link to a file of the host",
      (file) => [[...base, { name: "x", type: "link", linkname: file }]],
      /absolute/,
    ],
    [
      "that write through a symbolic link",
      () => [[...base, { name: "l", type: "symlink", linkname: "/etc" }], [{ name: "l/evil", content: "x" }]],
      /lies below "l"/,
    ],
    ["with a device", () => [base, [{ name: "disk", type: "block-device", devmajor: 254 }]], /device node/],
    ["without an init", () => [[{ name: "app", content: "x" }]], /no \/sbin\/init/],
  ])("%s are refused", async (_what, layers, message) => {
    await writeFile(path("bad.oci"), await ociArchive(layers(secret)));
    await refused("oci", path("bad.oci"), message);
    await writeFile(path("bad.docker"), await dockerArchive(layers(secret)));
    await refused("docker", path("bad.docker"), message);
  });

  it("that are a bomb are refused", async () => {
    const bomb = [{ name: "zeros", content: Buffer.alloc(80 * 1024 ** 2) }];
    await writeFile(path("bomb.oci"), await ociArchive([base, bomb], { gzip: true }));
    await refused("oci", path("bomb.oci"), /looks like a decompression bomb/);
  });
});

describe("damage and excess", () => {
  it("a disk with damage anywhere gives an error or what is in it, never more", async () => {
    const random = seededRandom(seed);
    const good = path("good.raw");
    await sh('truncate -s 4M "$1"; mke2fs -q -F -t ext4 -d /usr/share/misc "$1"', good);
    for (const format of ["qcow2", "vmdk", "vdi", "vhdx"] as const) {
      for (let round = 0; round < 3; round++) {
        const file = path("damaged");
        await sh('rm -f "$3"; qemu-img convert -f raw -O "$1" "$2" "$3"', format, good, file);
        for (let hits = 0; hits < 8; hits++) {
          const at = randomInt(random, round < 1 ? 1024 : 262_144);
          await sh(
            'printf "\\\\$2" | dd of="$1" bs=1 seek="$3" conv=notrunc status=none',
            file,
            "377",
            `${at}`,
          );
        }
        await refused(format, file, /./);
      }
    }
  });

  it.each<[string, ArtefactFormat, string, RegExp]>([
    [
      "of an absurd size",
      "vmdk",
      'qemu-img create -q -f vmdk -o subformat=monolithicSparse "$1" 3T',
      /3 TiB/,
    ],
    ["of an absurd size", "vhdx", 'qemu-img create -q -f vhdx "$1" 3T', /3 TiB/],
    [
      "that unpacks to too much",
      "raw",
      'head -c 300M /dev/zero | zstd -q -1 -o "$1"',
      /unpacks to more than 256 MiB/,
    ],
    [
      "that unpacks to too much",
      "raw",
      'head -c 300M /dev/zero | xz -0 > "$1"',
      /unpacks to more than 256 MiB/,
    ],
    [
      "that is a bomb",
      "tar",
      'truncate -s 300M "$1.big"; tar -C "$(dirname "$1")" -c "$(basename "$1").big" | zstd -q -1 -o "$1"; rm "$1.big"',
      /looks like a decompression bomb/,
    ],
    [
      "that is cut off",
      "qcow2",
      'head -c 4M /dev/urandom > "$1.r"; qemu-img convert -f raw -O qcow2 "$1.r" "$1"; truncate -s 3M "$1"',
      /damaged|no root file system/,
    ],
  ])("a file %s (%s) is refused", async (_what, format, command, message) => {
    const file = path("excess");
    await sh(`rm -f "$1" "$1".*; ${command}`, file);
    await refused(format, file, message);
  });
});
