/**
 * Images for real: tar, mke2fs, qemu-img, user namespaces, mmdebstrap, kill -9, full disks. STRATA_DISK_KILLS says how many
 * kills, STRATA_SEED when.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createReadStream } from "node:fs";
import { mkdir, readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { parseNetwork } from "../src/host/egress/allowed-addresses.ts";
import { runContained } from "../src/host/images/contained-process.ts";
import { type TestEntry, tarOf } from "../src/host/images/test-archives.ts";
import { hashOfFile } from "../src/host/images/verification.ts";
import type { ImageSource } from "../src/kinds/image.ts";
import { ImagesBox, idBase, make, sh, signal, upload } from "./images-box.ts";
import { tinyImage } from "./tiny-image.ts";

const seed = Number(process.env.STRATA_SEED ?? 20260101);
const kills = Number(process.env.STRATA_DISK_KILLS ?? 12);
let box: ImagesBox;
let tiny: string;

beforeAll(async () => {
  box = await ImagesBox.create();
  tiny = await tinyImage();
});
afterAll(async () => {
  expect(box.leaks()).toEqual([]);
  await box.remove();
});

const path = (name: string) => join(box.directory, name);

async function emptyDirectories(): Promise<void> {
  expect(await readdir(join(box.imageDir, "tmp"))).toEqual([]);
}

describe("root archives", () => {
  it("give one entry however they are packed, with owners shifted", async () => {
    const store = await box.store();
    await sh(
      'gzip -c "$1" > "$2.gz"; xz -0 -c "$1" > "$2.xz"; zstd -q -c "$1" > "$2.zst"',
      tiny,
      path("tiny"),
    );
    const image = await make(store, upload(), tiny);
    expect(image).toMatchObject({ os: "Strata tiny test image", types: ["vm", "container"], limitation: "" });
    for (const packing of ["gz", "xz", "zst"]) {
      const again = await make(store, upload(), path(`tiny.${packing}`));
      expect(again, packing).toEqual(image);
    }
    expect(await store.list()).toEqual([image]);
    expect(await store.get(image.digest)).toEqual(image);
    const tree = await store.containerTree(image.digest, signal);
    expect(tree).toMatchObject({ idBase, idCount: 65536 });
    const init = await stat(join(tree.path, "sbin/init"));
    expect([init.uid, init.gid, init.mode & 0o7777]).toEqual([idBase, idBase, 0o755]);
    await emptyDirectories();
  });

  it("keep set-user-id bits, hard links, owners and file capabilities", async () => {
    const store = await box.store();
    const capability = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    const entries: TestEntry[] = [
      { name: "sbin/init", mode: 0o755, content: "#!/bin/sh\n" },
      { name: "usr/bin/sudo", mode: 0o4755, uid: 0, content: "sudo" },
      { name: "usr/bin/second", type: "link", linkname: "usr/bin/sudo" },
      { name: "home/user", type: "directory", mode: 0o700, uid: 1000, gid: 65535 },
      {
        name: "bin/ping",
        mode: 0o755,
        content: "x",
        pax: { "SCHILY.xattr.security.capability": capability },
      },
      { name: "etc/fstab", content: "LABEL=root / ext4 defaults 0 1\n" },
    ];
    await writeFile(path("bits.tar"), await tarOf(entries));
    const image = await make(store, upload(), path("bits.tar"));
    expect(image).toMatchObject({ types: ["container"], limitation: expect.stringContaining("no kernel") });
    const { path: tree } = await store.containerTree(image.digest, signal);
    const sudo = await stat(join(tree, "usr/bin/sudo"));
    expect([sudo.mode & 0o7777, sudo.nlink]).toEqual([0o4755, 2]);
    expect((await stat(join(tree, "usr/bin/second"))).ino).toBe(sudo.ino);
    const home = await stat(join(tree, "home/user"));
    expect([home.uid, home.gid, home.mode & 0o7777]).toEqual([idBase + 1000, idBase + 65535, 0o700]);
    // The kernel notes for whose root it holds.
    const held = await sh('getcap -n "$1"', join(tree, "bin/ping"));
    expect(held).toBe(`${join(tree, "bin/ping")} cap_net_raw=ep [rootid=${idBase}]`);
    expect(await readFile(join(tree, "etc/fstab"), "utf8")).toMatch(/^# LABEL=root/);
    await expect(store.vmDisk(image.digest, signal)).rejects.toMatchObject({ code: "Unsupported" });
    await store.remove(image.digest);
    await store.remove(image.digest);
    expect(await store.get(image.digest)).toBeUndefined();
  });

  it.each<[string, TestEntry[], RegExp]>([
    ["climbs out", [{ name: "../../etc/evil", content: "x" }], /climbs/],
    [
      "writes through a link",
      [
        { name: "l", type: "symlink", linkname: "/etc" },
        { name: "l/evil", content: "x" },
      ],
      /below the symbolic link "l"/,
    ],
    ["has a device node", [{ name: "disk", type: "block-device", devmajor: 254 }], /device node/],
    ["has no init", [{ name: "etc/hostname", content: "x" }], /no \/sbin\/init/],
  ])("are refused when one %s, and leave nothing", async (_name, entries, message) => {
    const store = await box.store();
    await writeFile(path("bad.tar"), await tarOf(entries));
    await expect(make(store, upload(), path("bad.tar"))).rejects.toMatchObject({ code: "Invalid", message });
    await emptyDirectories();
  });

  it("are refused when cut off anywhere", async () => {
    const store = await box.store({ imageDir: path("cut-off") });
    const random = seededRandom(seed);
    const { size } = await stat(path("tiny.xz"));
    for (const packing of ["tar", "gz", "xz", "zst"]) {
      const from = packing === "tar" ? tiny : path(`tiny.${packing}`);
      const kept = randomInt(random, Math.min(size, (await stat(from)).size - 2048));
      await sh('cp "$1" "$2"', from, path("cut"));
      await truncate(path("cut"), kept);
      const failure = await make(store, upload(), path("cut")).catch((error: unknown) => error);
      expect(failure, `${packing} cut to ${kept}`).toMatchObject({ code: "Invalid" });
    }
    expect(await store.list()).toEqual([]);
    expect(await readdir(path("cut-off/tmp"))).toEqual([]);
  });

  it("are refused with the wrong checksum", async () => {
    const store = await box.store();
    const source: ImageSource = {
      ...upload(),
      type: "upload",
      upload: "x",
      format: "tar",
      sha256: "0".repeat(64),
    };
    await expect(make(store, source, tiny)).rejects.toMatchObject({ code: "Invalid", message: /SHA-256/ });
    await emptyDirectories();
  });
});

describe("the jail of tools", () => {
  it("holds a tool that does its worst", async () => {
    await mkdir(path("jail"));
    await mkdir(path("work"));
    await sh('chown "$1:$1" "$2"', `${idBase}`, path("work"));
    const attempts = `
      try() { if "$@" >/dev/null 2>&1; then echo "did $*"; fi; }
      try mknod /work/null c 1 3
      try mknod /work/disk b 254 0
      try mount -t tmpfs none /work
      try touch /usr/evil /tmp/evil /evil
      try chown 70000 /work
      try test -e /etc/passwd
      try test -e /proc/1
      try sh -c 'exec 3<>/dev/tcp/127.0.0.1/22'
      try kill -0 ${process.pid}
      touch /work/fine && chown 65535:1 /work/fine && echo ok`;
    const ended = await runContained("sh", ["-c", attempts], {
      jail: path("jail"),
      idBase,
      binds: [{ from: path("work"), to: "/work", writable: true }],
      signal,
      timeoutMs: 20_000,
    });
    expect(ended.stdout.trim().split("\n")).toEqual(["ok"]);
    const { uid, gid } = await stat(path("work/fine"));
    expect([uid, gid]).toEqual([idBase + 65535, idBase + 1]);
    expect(await readdir(path("jail"))).toEqual([]);
  });

  it("is gone at once when its caller gives up", async () => {
    const controller = new AbortController();
    await mkdir(path("jail2"));
    const options = { jail: path("jail2"), idBase, binds: [], signal: controller.signal, timeoutMs: 60_000 };
    const running = runContained("sh", ["-c", "sleep 1000 & sleep 1000"], options);
    running.catch(() => {});
    await until(() => box.leaks().length > 0);
    controller.abort(new Error("enough"));
    await expect(running).rejects.toThrow("enough");
    await until(() => box.leaks().length === 0);
  });
});

describe("cloud disks", () => {
  it("give the same entry as the tree they were made from", async () => {
    const store = await box.store();
    const image = await make(store, upload(), tiny);
    const disk = await store.vmDisk(image.digest, signal);
    // A disk as clouds offer them: the root file system in one of its partitions.
    const table = Buffer.alloc(512);
    table[446 + 4] = 0x83;
    table.writeUInt32LE(8192, 446 + 8);
    table.writeUInt32LE(disk.sizeMib * 2048, 446 + 12);
    table.writeUInt16LE(0xaa55, 510);
    await writeFile(path("cloud.raw"), table);
    await sh(
      `qemu-img convert -O raw "$1" "$3.part"; truncate -s $(($2 + 8))M "$3.raw"
       dd if="$3.part" of="$3.raw" bs=1M seek=4 conv=notrunc,sparse status=none
       qemu-img convert -c -O qcow2 "$3.raw" "$3.qcow2"; rm "$3.part"`,
      disk.path,
      `${disk.sizeMib}`,
      path("cloud"),
    );
    const steps: string[] = [];
    const imported = await make(store, upload("qcow2"), path("cloud.qcow2"), ({ step }) => steps.push(step));
    expect(imported).toEqual(image);
    expect(steps).toContain("reading the disk");
    await emptyDirectories();
  });

  it.each<[string, string, RegExp]>([
    ["a backing file", 'qemu-img create -q -f qcow2 -b /etc/passwd -F raw "$1" 1M', /backing file/],
    [
      "another file for its data",
      'qemu-img create -q -f qcow2 -o data_file="$1.data" "$1" 1M',
      /data in another file/,
    ],
    ["an absurd size", 'qemu-img create -q -f qcow2 "$1" 100T', /virtual size of 100 TiB/],
    [
      "encryption",
      // AES rather than LUKS, whose key derivation times the CPU and now and then refuses to.
      'qemu-img create -q -f qcow2 --object secret,id=s,data=x -o encrypt.format=aes,encrypt.key-secret=s "$1" 1M',
      /is encrypted/,
    ],
    ["no file system", 'qemu-img create -q -f qcow2 "$1" 10M', /no root file system was found/],
    ["another format", 'qemu-img create -q -f vmdk "$1" 10M', /no qcow2 file; it looks like vmdk/],
    ["nothing in it", ': > "$1"', /is empty/],
  ])("are refused with %s", async (name, command, message) => {
    const store = await box.store();
    const file = path(`bad-${name.replaceAll(" ", "-")}.qcow2`);
    await sh(command, file);
    const failure = await make(store, upload("qcow2"), file).catch((error: unknown) => error);
    expect(failure).toMatchObject({ message, code: name === "no file system" ? "Unsupported" : "Invalid" });
    await emptyDirectories();
  });
});

describe("images from the network", () => {
  it("are fetched once, and only with the right checksum", async () => {
    const sha256 = await hashOfFile(path("tiny.xz"), signal);
    let requests = 0;
    const index = { index: { images: { datatype: "image-downloads", path: "streams/v1/images.json" } } };
    const items = { root: { ftype: "root.tar.xz", path: "images/tiny.xz", sha256 } };
    const architecture = process.arch === "arm64" ? "arm64" : "amd64";
    const products = {
      products: { tiny: { arch: architecture, aliases: "tiny/1", versions: { 20240101: { items } } } },
    };
    const server = createServer((request, response) => {
      if (request.url === "/streams/v1/index.json") response.end(JSON.stringify(index));
      else if (request.url === "/streams/v1/images.json") response.end(JSON.stringify(products));
      else if (request.url === "/images/tiny.xz") {
        requests++;
        createReadStream(path("tiny.xz")).pipe(response);
      } else response.writeHead(404).end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    try {
      const url: ImageSource = { type: "url", url: `${address}/images/tiny.xz`, format: "tar", sha256 };
      const outside = await box.store({ imageDir: path("network") });
      for (const source of [url, { type: "simplestreams", server: address, alias: "tiny/1" } as const]) {
        await expect(make(outside, source)).rejects.toMatchObject({
          code: "Forbidden",
          message: /127.0.0.1 is an internal address .*STRATA_IMAGE_NETWORKS/,
        });
      }
      const networks = [parseNetwork("127.0.0.0/8")].flatMap((network) => network ?? []);
      const store = await box.store({ imageDir: path("network"), networks });
      await expect(make(store, { ...url, sha256: "1".repeat(64) })).rejects.toMatchObject({
        code: "Invalid",
        message: /SHA-256/,
      });
      expect(await store.list()).toEqual([]);
      const pulled = await make(store, { type: "simplestreams", server: address, alias: "tiny/1" });
      const fetched = await make(store, url);
      expect(fetched).toEqual(pulled);
      expect(requests).toBe(2);
      await expect(
        make(store, { ...url, sha256: "2".repeat(64), url: `${address}/no` }),
      ).rejects.toMatchObject({ code: "Invalid", message: /404/ });
      expect(await readdir(path("network/tmp"))).toEqual([]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe("images of the catalogue", () => {
  it("are fetched through a mirror, with the checksum that stands beside them", async () => {
    const architecture = process.arch === "arm64" ? "arm64" : "amd64";
    const file = `debian-12-generic-${architecture}.qcow2`;
    const at = "/mirror/images/cloud/bookworm/latest/";
    let list = await sh('sha512sum "$1" | sed "s#  .*#  $2#"', path("cloud.qcow2"), file);
    const server = createServer((request, response) => {
      if (request.url === `${at}SHA512SUMS`) response.end(list);
      else if (request.url === `${at}${file}`) createReadStream(path("cloud.qcow2")).pipe(response);
      else response.writeHead(404).end();
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const address = `http://127.0.0.1:${(server.address() as AddressInfo).port}/mirror/`;
    try {
      const mirrors = { "https://cloud.debian.org/": address };
      const store = await box.store({ imageDir: path("catalogue"), mirrors });
      const source: ImageSource = { type: "catalogue", name: "debian/12" };
      const right = list;
      list = list.replace(/^[0-9a-f]{8}/, "01234567");
      await expect(make(store, source)).rejects.toMatchObject({ code: "Invalid", message: /SHA-512/ });
      expect(await store.list()).toEqual([]);
      list = right;
      expect((await make(store, source)).os).toBe("Strata tiny test image");
      expect(await readdir(path("catalogue/tmp"))).toEqual([]);
    } finally {
      server.closeAllConnections();
      server.close();
    }
  });
});

describe("several daemons on one host", () => {
  it("build the same image once", async () => {
    const imageDir = path("shared");
    const results = await Promise.all([
      child(imageDir, upload(), true).ended,
      child(imageDir, upload(), true).ended,
    ]);
    const images = results.map(({ lines }) => lines.at(-1)?.image);
    expect(images[0]).toBeDefined();
    expect(images[1]).toEqual(images[0]);
    const builds = results.filter(({ lines }) => lines.some(({ progress }) => progress?.step === "starting"));
    expect(builds).toHaveLength(1);
    expect(await readdir(join(imageDir, "tmp"))).toEqual([]);
  });

  it("share a directory only with the same range of ids", async () => {
    await expect(box.store({ idBase: idBase + 65536 })).rejects.toMatchObject({
      code: "Conflict",
      message: /1500000/,
    });
  });

  it("do not sweep away each other's work", async () => {
    const store = await box.store({ imageDir: path("swept") });
    const [image] = await Promise.all([make(store, upload(), tiny), box.store({ imageDir: path("swept") })]);
    expect(image.os).toBe("Strata tiny test image");
  });
});

describe("kill -9", () => {
  it(`leaves only complete entries, no process, no mount, through ${kills} of them`, {
    timeout: 900_000,
  }, async () => {
    const random = seededRandom(seed);
    const imageDir = path("killed");
    let completed = 0;
    for (let round = 0; round < kills; round++) {
      const running = child(imageDir, upload(), true);
      await running.ready;
      const delayMs = randomInt(random, 1500);
      await systemClock.sleep(delayMs);
      running.kill();
      await running.ended;
      await until(() => box.leaks().length === 0);
      const store = await box.store({ imageDir });
      expect(await readdir(join(imageDir, "tmp")), `killed after ${delayMs} ms`).toEqual([]);
      for (const { digest } of await store.list()) {
        completed++;
        await store.containerTree(digest, signal);
        await store.vmDisk(digest, signal);
        await store.remove(digest);
      }
    }
    expect(completed).toBeGreaterThanOrEqual(0);
    const last = await child(imageDir, upload(), true).ended;
    expect(last.lines.at(-1)?.image?.os).toBe("Strata tiny test image");
  });

  it("ends a Debian build with all its processes and mounts", async () => {
    const imageDir = path("killed-debian");
    const source: ImageSource = { type: "debian", suite: "bookworm", packages: [] };
    for (const step of ["unpacking the base system", "installing packages"]) {
      const running = child(imageDir, source);
      await running.sees(step);
      running.kill();
      await running.ended;
      await until(() => box.leaks().length === 0);
      const store = await box.store({ imageDir });
      expect(await store.list()).toEqual([]);
      expect(await readdir(join(imageDir, "tmp"))).toEqual([]);
    }
  });
});

describe("a full disk", () => {
  it("is one clear error and leaves nothing", async () => {
    const imageDir = path("full");
    await mkdir(imageDir);
    await sh('mount -t tmpfs -o size=30m,mode=711 full "$1"', imageDir);
    try {
      const store = await box.store({ imageDir });
      const failure = await make(store, upload(), path("tiny.xz")).catch((error: unknown) => error);
      expect(failure).toMatchObject({ code: "Unavailable", message: expect.stringMatching(/no space left/) });
      expect(await readdir(join(imageDir, "tmp"))).toEqual([]);
      await sh('mount -o remount,size=60m "$1"', imageDir);
      const image = await make(store, upload(), path("tiny.xz"));
      await expect(store.vmDisk(image.digest, signal)).rejects.toMatchObject({
        code: "Unavailable",
        message: /no space left/,
      });
      expect(await readdir(join(imageDir, "tmp"))).toEqual([]);
      await sh('mount -o remount,size=300m "$1"', imageDir);
      await store.vmDisk(image.digest, signal);
    } finally {
      await sh('umount "$1"', imageDir);
    }
  });
});

describe("verification", () => {
  it("finds a changed tree and a changed disk in a new process", async () => {
    const imageDir = path("damaged");
    const first = await box.store({ imageDir });
    const { digest } = await make(first, upload(), tiny);
    const { path: tree } = await first.containerTree(digest, signal);
    const disk = await first.vmDisk(digest, signal);
    await sh('printf x >> "$1/etc/passwd"; printf x >> "$2"', tree, disk.path);
    const second = await box.store({ imageDir });
    await expect(second.containerTree(digest, signal)).rejects.toMatchObject({
      code: "Unavailable",
      message: /damaged/,
    });
    await expect(second.vmDisk(digest, signal)).rejects.toMatchObject({
      code: "Unavailable",
      message: /damaged/,
    });
  });
});

interface Line {
  ready?: boolean;
  progress?: { step: string };
  image?: { digest: string; os: string };
  error?: string;
}

/** A process of its own that makes the image. */
function child(imageDir: string, source: ImageSource, disk = false) {
  const script = new URL("./images-child.ts", import.meta.url).pathname;
  const args = [script, imageDir, `${idBase}`, JSON.stringify(source), tiny, ...(disk ? ["disk"] : [])];
  const running = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"] });
  const lines: Line[] = [];
  let partial = "";
  running.stdout.setEncoding("utf8").on("data", (text: string) => {
    const parts = (partial + text).split("\n");
    partial = parts.pop() ?? "";
    lines.push(...parts.map((line) => JSON.parse(line) as Line));
    running.emit("line");
  });
  const ended = once(running, "close").then(() => ({ lines }));
  const seen = async (matches: (line: Line) => boolean) => {
    while (!lines.some(matches)) {
      await Promise.race([once(running, "line"), ended]);
      if (running.exitCode !== null) throw new Error(`the child ended: ${JSON.stringify(lines.at(-1))}`);
    }
  };
  return {
    ended,
    ready: seen((line) => line.ready === true),
    sees: (step: string) => seen((line) => line.progress?.step === step),
    kill: () => running.kill("SIGKILL"),
  };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = systemClock.monotonicMs() + 10_000;
  while (!condition()) {
    if (systemClock.monotonicMs() > deadline)
      throw new Error(`still not so after 10 s: ${box.leaks().join("; ")}`);
    await systemClock.sleep(20);
  }
}
