/** Images written out: what other programs take, what boots by itself, and what comes back the same. */
import { createHash } from "node:crypto";
import { createWriteStream } from "node:fs";
import { readdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GuestRoot } from "../src/drivers/driver.ts";
import { createDisks } from "../src/host/disks/create-disks.ts";
import type { ImageStore, StoredImage } from "../src/host/images/image-store.ts";
import type { ArtefactFormat } from "../src/kinds/image.ts";
import { ImagesBox, make, sh, signal, upload } from "./images-box.ts";
import { QemuBench } from "./qemu-bench.ts";
import { openTestDriver } from "./qemu-test-driver.ts";
import { tinyImage } from "./tiny-image.ts";

const bootLimitMs = 120_000;
let box: ImagesBox;
let store: ImageStore;
let image: StoredImage;

beforeAll(async () => {
  box = await ImagesBox.create();
  store = await box.store();
  image = await make(store, upload(), await tinyImage());
});
afterAll(async () => {
  expect(box.leaks()).toEqual([]);
  await box.remove();
});

async function exportTo(digest: string, format: ArtefactFormat, name = `export.${format}`): Promise<string> {
  const file = join(box.directory, name);
  await rm(file, { force: true });
  const use = (bytes: AsyncIterable<Uint8Array>) => pipeline(Readable.from(bytes), createWriteStream(file));
  await store.export(digest, format, use, { signal, onProgress: () => {} });
  expect(await readdir(join(box.imageDir, "tmp"))).toEqual([]);
  return file;
}

async function sumOf(digest: string, format: ArtefactFormat): Promise<string> {
  const sum = createHash("sha256");
  const use = async (bytes: AsyncIterable<Uint8Array>) => {
    for await (const chunk of bytes) sum.update(chunk);
  };
  await store.export(digest, format, use, { signal, onProgress: () => {} });
  return sum.digest("hex");
}

describe("an image that boots directly", () => {
  it.each<ArtefactFormat>(["tar", "qcow2", "raw", "vmdk", "vdi", "vhdx", "ova", "oci", "docker", "lxc"])(
    "as %s comes back as the same image",
    async (format) => {
      const file = await exportTo(image.digest, format);
      if (["qcow2", "vmdk", "vdi", "vhdx"].includes(format)) {
        await sh('qemu-img check -q -f "$1" "$2"', format, file);
      }
      const back = await make(store, upload(format), file);
      expect(back).toEqual(image);
      await rm(file);
    },
  );

  it.each<ArtefactFormat>(["tar", "qcow2", "raw", "oci", "lxc"])(
    "as %s is the same, byte for byte, a second time",
    async (format) => {
      expect(await sumOf(image.digest, format)).toBe(await sumOf(image.digest, format));
    },
  );

  it("has a partition table that other programs find right, and a file system without errors", async () => {
    const file = await exportTo(image.digest, "raw");
    const table = await sh('sfdisk --json "$1" 2>&1', file);
    expect(table).toMatch(/"label": ?"gpt"/);
    expect(table).toContain("21686148-6449-6E6F-744E-656564454649");
    expect(table).not.toMatch(/corrupt|PMBR size mismatch/);
    await sh(
      'dd if="$1" of="$1.root" bs=1M skip=64 conv=sparse status=none; truncate -s -1M "$1.root"',
      file,
    );
    await sh('e2fsck -f -n "$1.root" >/dev/null; rm "$1.root" "$1"', file);
  });
});

describe("an image that boots by firmware", () => {
  let disk: string;
  let own: StoredImage;
  beforeAll(async () => {
    disk = await exportTo(image.digest, "qcow2", "disk.qcow2");
    own = await make(store, upload("qcow2", "firmware"), disk);
  });

  it("is another image than its tree alone, and serves both types of guest", async () => {
    expect(own).toMatchObject({ boot: "firmware", types: ["vm", "container"], os: image.os, limitation: "" });
    expect(own.digest).not.toBe(image.digest);
    const tree = await store.containerTree(own.digest, signal);
    expect(await sh('cat "$1/etc/os-release"', tree.path)).toContain("Strata tiny");
  });

  it.each<ArtefactFormat>(["qcow2", "vmdk", "vdi", "vhdx", "raw", "ova"])(
    "as %s comes back as the same disk",
    async (format) => {
      const file = await exportTo(own.digest, format);
      if (format !== "ova") {
        expect(await sh('qemu-img compare -f qcow2 -F "$1" "$2" "$3"', format, disk, file)).toMatch(
          /identical/,
        );
      }
      expect(await make(store, upload(format, "firmware"), file)).toEqual(own);
      await rm(file);
    },
  );

  it("boots as the disk it is, in a virtual machine of the driver", async () => {
    expect(await bootOf(own.digest, (root) => root)).toMatch(/tiny: ready/);
  });

  it("boots by UEFI too, where that is what a disk has", async () => {
    const output = await bootOf(own.digest, (root) =>
      root.type === "disk" ? { ...root, firmware: "uefi" } : root,
    );
    expect(output).toMatch(/tiny: ready/);
    expect(output).toMatch(/BdsDxe|EFI/);
  });
});

/** What the console says until the guest is up. */
async function bootOf(digest: string, change: (root: GuestRoot) => GuestRoot): Promise<string> {
  const bench = await QemuBench.create();
  const driver = await openTestDriver(bench.host);
  const disks = createDisks({ directory: join(box.directory, "volumes"), images: store });
  const guest = await bench.makeGuest({ memoryMib: 768 });
  const limit = AbortSignal.timeout(bootLimitMs);
  let output = "";
  try {
    const request = { uid: guest.uid, type: "vm", sizeMib: 2048, imageDigest: digest } as const;
    const root = change(await disks.ensureRoot(request, signal));
    const handle = await driver.create({ ...guest, root }, signal);
    await driver.start(handle, signal);
    const log = driver.console?.log(handle, { tailBytes: 1024 ** 2, follow: true }, limit) ?? [];
    for await (const chunk of log) {
      output += chunk.toString();
      if (/tiny: ready|panic/.test(output)) break;
    }
  } catch (error) {
    if (!limit.aborted) throw error;
  } finally {
    for (const { handle } of await driver.list()) await driver.destroy(handle, signal);
    await disks.remove(guest.uid, signal);
    expect(await bench.leaks()).toEqual([]);
    await bench.dispose();
  }
  return output;
}
