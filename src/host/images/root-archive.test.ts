import fc from "fast-check";
import { extract } from "tar-stream";
import { describe, expect, it } from "vitest";
import { StrataError } from "../../core/errors.ts";
import { type ArchiveFacts, defaultLimits, neutralFstab, sanitizeRootArchive } from "./root-archive.ts";
import { collect, inChunks, type TestEntry, tarOf } from "./test-archives.ts";

interface Options {
  limits?: Partial<typeof defaultLimits>;
  packedBytes?: number;
  below?: string;
}

async function sanitize(entries: readonly TestEntry[], { limits, packedBytes, below }: Options = {}) {
  const facts: ArchiveFacts = { capabilities: new Map(), unpackedBytes: 0, entries: 0 };
  const clean = await collect(
    sanitizeRootArchive(
      inChunks(await tarOf(entries), 700),
      {
        limits: { ...defaultLimits, ...limits },
        packedBytes: () => packedBytes ?? Number.POSITIVE_INFINITY,
        ...(below !== undefined && { below }),
      },
      facts,
    ),
  );
  const read: Record<string, string> = {};
  const reader = extract();
  reader.end(clean);
  for await (const entry of reader) {
    const { name, type, linkname } = entry.header;
    read[name.replace(/(?<=.)\/$/, "")] = linkname
      ? `${type} ${linkname}`
      : `${type} ${await text(entry)}`.trim();
  }
  return { read, facts };
}

async function text(stream: AsyncIterable<unknown>): Promise<string> {
  return (await collect(stream as AsyncIterable<Uint8Array>)).toString();
}

describe("sanitizeRootArchive", () => {
  it("passes an ordinary root tree, with paths made plain and missing directories made", async () => {
    const { read, facts } = await sanitize([
      { name: "./", type: "directory" },
      { name: "./usr/bin/sudo", mode: 0o4755, content: "sudo" },
      { name: "./usr/bin/link", type: "link", linkname: "./usr/bin/sudo" },
      { name: "./bin", type: "symlink", linkname: "usr/bin" },
      { name: "./etc//hosts", content: "127.0.0.1" },
      { name: "./abs", type: "symlink", linkname: "/../../etc/passwd" },
      { name: "./run/initctl", type: "fifo" },
    ]);
    expect(read).toEqual({
      ".": "directory",
      usr: "directory",
      "usr/bin": "directory",
      "usr/bin/sudo": "file sudo",
      "usr/bin/link": "link usr/bin/sudo",
      bin: "symlink usr/bin",
      etc: "directory",
      "etc/hosts": "file 127.0.0.1",
      abs: "symlink /../../etc/passwd",
      "run/initctl": "fifo",
      run: "directory",
    });
    expect(facts).toMatchObject({ entries: 7, unpackedBytes: 13 });
  });

  it("leaves out what is below /dev, /proc and /sys", async () => {
    const { read } = await sanitize([
      { name: "dev/", type: "directory" },
      { name: "dev/null", type: "character-device", devmajor: 1, devminor: 3 },
      { name: "dev/pts/", type: "directory" },
      { name: "proc/cpuinfo", content: "x" },
      { name: "sys/", type: "directory" },
      { name: "a", content: "x" },
    ]);
    expect(Object.keys(read)).toEqual(["dev", "sys", "a"]);
  });

  it("keeps file capabilities and drops other attributes", async () => {
    const value = "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00";
    const pax = { "SCHILY.xattr.security.capability": value, "SCHILY.xattr.trusted.overlay.opaque": "y" };
    const { facts } = await sanitize([{ name: "ping", content: "x", pax }]);
    expect([...facts.capabilities]).toEqual([["ping", Buffer.from(value, "latin1").toString("hex")]]);
  });

  const directory = { name: "d/", type: "directory" } as const;
  const refusals: [string, TestEntry[], RegExp, Options?][] = [
    ["an absolute path", [{ name: "/etc/passwd", content: "x" }], /"\/etc\/passwd", which is absolute/],
    ["a climbing path", [{ name: "a/../../etc/passwd", content: "x" }], /which climbs/],
    ["a path that is only ..", [{ name: "..", type: "directory" }], /which climbs/],
    [
      "a file below a symbolic link",
      [
        { name: "l", type: "symlink", linkname: "/etc" },
        { name: "l/passwd", content: "x" },
      ],
      /"l\/passwd" lies below the symbolic link "l"/,
    ],
    [
      "a file below a link made by a longer path",
      [
        { name: "a/l", type: "symlink", linkname: "../.." },
        { name: "a/l/b/c", content: "x" },
      ],
      /below the symbolic link "a\/l"/,
    ],
    [
      "a file below a file",
      [
        { name: "f", content: "x" },
        { name: "f/g", content: "x" },
      ],
      /lies below "f", which is no directory/,
    ],
    [
      "a directory over a link",
      [
        { name: "l", type: "symlink", linkname: "/" },
        { name: "l/", type: "directory" },
      ],
      /"l\/" is in the archive twice/,
    ],
    [
      "a link over a directory",
      [directory, { name: "d", type: "symlink", linkname: "/" }],
      /"d" is in the archive twice/,
    ],
    [
      "a file twice",
      [
        { name: "f", content: "x" },
        { name: "./f", content: "y" },
      ],
      /"\.\/f" is in the archive twice/,
    ],
    [
      "a hard link to nothing",
      [{ name: "h", type: "link", linkname: "etc/shadow" }],
      /hard link to "etc\/shadow"/,
    ],
    ["a hard link that climbs", [{ name: "h", type: "link", linkname: "../x" }], /climbs/],
    ["an absolute hard link", [{ name: "h", type: "link", linkname: "/etc/shadow" }], /absolute/],
    [
      "a hard link to a symbolic link",
      [
        { name: "s", type: "symlink", linkname: "/etc/shadow" },
        { name: "h", type: "link", linkname: "s" },
      ],
      /no earlier file/,
    ],
    [
      "a hard link to what was left out",
      [
        { name: "dev/x", content: "x" },
        { name: "h", type: "link", linkname: "dev/x" },
      ],
      /no earlier file/,
    ],
    [
      "a character device",
      [{ name: "mem", type: "character-device", devmajor: 1, devminor: 1 }],
      /"mem" is a device node/,
    ],
    ["a block device", [{ name: "a/sda", type: "block-device", devmajor: 8 }], /"a\/sda" is a device node/],
    ["a long name", [{ name: "n".repeat(256), content: "x" }], /longer than 255 bytes/],
    ["a long path", [{ name: `${"d/".repeat(2000)}x`, content: "x" }], /too long a path/],
    ["ids outside the guest's range", [{ name: "f", content: "x", uid: 65536 }], /belongs to 65536:0/],
    ["a root that is no directory", [{ name: ".", content: "x" }], /must be a directory, being the root/],
    ["an empty tree", [{ name: "./", type: "directory" }], /holds no root tree/],
    [
      "too many entries",
      [directory, { name: "a" }, { name: "b" }],
      /more than 2 entries/,
      { limits: { maxEntries: 2 } },
    ],
    [
      "too large a tree",
      [{ name: "a", content: "x".repeat(2000) }],
      /larger than 1 KiB/,
      { limits: { maxUnpackedBytes: 1024 } },
    ],
    [
      "a decompression bomb",
      [{ name: "a", content: "x".repeat(11 * 1024 * 1024) }],
      /decompression bomb/,
      { limits: { ratioFromBytes: 0, maxRatio: 10 }, packedBytes: 10 },
    ],
    ["an absurd fstab", [{ name: "etc/fstab", content: "x".repeat(70_000) }], /65536 is the limit/],
    [
      "an archive without the wanted directory",
      [{ name: "metadata.yaml", content: "x" }],
      /holds no root tree/,
      { below: "rootfs" },
    ],
  ];
  it.each(refusals)("refuses %s", async (_name, entries, message, options) => {
    const error = await sanitize(entries, options).then(
      () => undefined,
      (thrown: unknown) => thrown,
    );
    expect(error).toBeInstanceOf(StrataError);
    expect(error).toMatchObject({ code: "Invalid", message: expect.stringMatching(message) });
  });

  it("takes only what is below a directory", async () => {
    const { read } = await sanitize(
      [
        { name: "metadata.yaml", content: "x" },
        { name: "rootfs/", type: "directory" },
        { name: "rootfs/f", content: "x" },
        { name: "rootfs/h", type: "link", linkname: "rootfs/f" },
        { name: "templates/t", content: "x" },
      ],
      { below: "rootfs" },
    );
    expect(read).toEqual({ ".": "directory", f: "file x", h: "link f" });
  });

  it("never lets out a path that leaves the tree, whatever comes in", async () => {
    const name = fc.constantFrom("..", ".", "", "a", "b", "etc", "\u202e", "a\nb");
    const path = fc.array(name, { minLength: 1, maxLength: 4 }).map((names) => names.join("/") || "x");
    const entry = fc.record({
      name: path,
      type: fc.constantFrom("file", "directory", "symlink", "link"),
      linkname: path,
    });
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { minLength: 1, maxLength: 6 }), async (entries) => {
        const result = await sanitize(entries as TestEntry[]).catch((error: unknown) => {
          expect(error).toMatchObject({ code: "Invalid" });
          return undefined;
        });
        const links = new Set<string>();
        for (const [safe, what] of Object.entries(result?.read ?? {})) {
          expect(safe.startsWith("/")).toBe(false);
          expect(safe.split("/")).not.toContain("..");
          if (what.startsWith("symlink")) links.add(safe);
          for (const link of links) expect(safe.startsWith(`${link}/`)).toBe(false);
        }
      }),
      { numRuns: 300 },
    );
  });
});

describe("neutralFstab", () => {
  it("comments out partitions, swap and the root, and keeps the rest", () => {
    const fstab = [
      "# a comment",
      "PARTUUID=0e27da4a-01 / ext4 rw,discard,errors=remount-ro 0 1",
      "PARTUUID=0e27da4a-15 /boot/efi vfat defaults 0 0",
      "/dev/disk/by-id/x /data xfs defaults 0 0",
      "/swapfile none swap sw 0 0",
      "tmpfs /tmp tmpfs nosuid 0 0",
      "server:/export /mnt nfs defaults 0 0",
      "",
    ].join("\n");
    const kept = neutralFstab(fstab)
      .split("\n")
      .filter((line) => line !== "" && !line.startsWith("#"));
    expect(kept).toEqual(["tmpfs /tmp tmpfs nosuid 0 0", "server:/export /mnt nfs defaults 0 0"]);
    expect(neutralFstab(neutralFstab(fstab))).toBe(neutralFstab(fstab));
  });
});
