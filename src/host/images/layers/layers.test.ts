import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { defaultLimits } from "../root-archive.ts";
import { readTar } from "../tar-reader.ts";
import { inChunks, type TestEntry, tarOf } from "../test-archives.ts";
import { readImageArchive } from "./image-archive.ts";
import { mergedArchive } from "./merged-archive.ts";
import { dockerArchive, ociArchive, type TestLayer } from "./testing-layers.ts";

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "strata-layers-"));
});
afterEach(() => rm(directory, { recursive: true }));
const { signal } = new AbortController();

/** `path: content`, `path -> target`, `path = other` for hard links, `path/` for directories. */
async function merged(
  archive: Buffer,
  limits = defaultLimits,
  tidy?: Parameters<typeof mergedArchive>[3],
): Promise<string[]> {
  const own = await mkdtemp(join(directory, "work-"));
  const { layers } = await readImageArchive(inChunks(archive, 7000), own, 1024 ** 3, signal);
  const lines: string[] = [];
  for await (const entry of readTar(mergedArchive(layers, limits, signal, tidy))) {
    const parts: Uint8Array[] = [];
    for await (const chunk of entry.content) parts.push(Uint8Array.from(chunk));
    const content = Buffer.concat(parts).toString();
    const rest = { symlink: ` -> ${entry.target}`, hardlink: ` = ${entry.target}`, directory: "/" } as const;
    lines.push(`${entry.path}${rest[entry.type as keyof typeof rest] ?? `: ${content}`}`);
  }
  return lines;
}

const merge = async (...layers: TestLayer[]) => merged(await ociArchive(layers));
const file = (name: string, content = name): TestEntry => ({ name, content });
const directoryAt = (name: string): TestEntry => ({ name, type: "directory" });

describe("layers that are tidied up", () => {
  it("lose, change and gain what they are told, whatever the layer", async () => {
    const archive = await ociArchive([
      [directoryAt("log"), file("log/a"), file("shadow", "old"), file("resolv", "x")],
      [file("log/b"), { name: "twin", type: "link", linkname: "log/b" }],
    ]);
    const asked: string[][] = [];
    const lines = await merged(archive, defaultLimits, (paths) => {
      asked.push([...paths].sort());
      return {
        of: (path, isDirectory) => {
          if (path === "shadow") return { text: (before) => `${before} and new` };
          if (path === "resolv") return { link: "../run/resolv" };
          return path.startsWith("log/") && !isDirectory ? "drop" : "keep";
        },
        missing: [
          ["id", { text: () => "" }],
          ["names", { link: "id" }],
        ],
      };
    });
    expect(asked).toEqual([["log", "log/a", "log/b", "resolv", "shadow", "twin"]]);
    const expected = ["log/", "shadow: old and new", "resolv -> ../run/resolv", "twin: log/b"];
    expect(lines).toEqual([...expected, "id: ", "names -> id"]);
  });
});

describe("layers as one tree", () => {
  it("the upper file counts, the directory's last word too", async () => {
    const lines = await merge(
      [directoryAt("etc"), file("etc/a", "old"), file("etc/b")],
      [directoryAt("etc"), file("etc/a", "new")],
    );
    expect(lines).toEqual(["etc/b: etc/b", "etc/", "etc/a: new"]);
  });

  it("a whiteout takes away what is below, not what its own layer has", async () => {
    const lines = await merge(
      [file("a/x"), file("a/y"), file("b/x")],
      [file("a/.wh.x", ""), file("b/new"), file("b/.wh..wh..opq", ""), file("c/.wh.none", "")],
    );
    expect(lines).toEqual(["a/y: a/y", "b/new: b/new"]);
  });

  it("a whole directory goes, and may come again as something else", async () => {
    const link: TestEntry = { name: "a", type: "symlink", linkname: "/elsewhere" };
    expect(await merge([file("a/deep/x")], [file(".wh.a", "")], [link])).toEqual(["a -> /elsewhere"]);
    expect(await merge([file("a/deep/x")], [file("a")])).toEqual(["a: a"]);
    expect(await merge([file("a")], [directoryAt("a"), file("a/x")])).toEqual(["a/", "a/x: a/x"]);
  });

  it("hard links keep their content when the name that had it goes", async () => {
    const linked: TestLayer = [
      file("one"),
      { name: "two", type: "link", linkname: "one" },
      { name: "three", type: "link", linkname: "two" },
    ];
    expect(await merge(linked)).toEqual(["one: one", "two = one", "three = one"]);
    expect(await merge(linked, [file(".wh.one", "")])).toEqual(["two: one", "three = two"]);
    expect(await merge(linked, [file("one", "new")])).toEqual(["two: one", "three = two", "one: new"]);
    expect(await merge([file("low")], [{ name: "up", type: "link", linkname: "low" }])).toEqual([
      "low: low",
      "up = low",
    ]);
  });

  it.each<[string, TestLayer[], RegExp]>([
    ["climbs", [[file("../x")]], /climbs/],
    ["climbs in an upper layer only", [[file("x")], [file("a/../../x")]], /climbs/],
    ["takes away what is outside", [[file("x")], [file("../.wh.x", "")]], /climbs/],
    ["takes away its own directory", [[file("a/x")], [file("a/.wh...", "")]], /no name/],
    ["links outside", [[file("x"), { name: "y", type: "link", linkname: "/etc/shadow" }]], /absolute/],
    ["links to nothing", [[{ name: "y", type: "link", linkname: "etc/shadow" }]], /is a hard link to/],
    [
      "writes through a link below",
      [[{ name: "l", type: "symlink", linkname: "/etc" }], [file("l/evil")]],
      /lies below "l"/,
    ],
    ["has a name twice", [[file("x"), file("x")]], /twice/],
    ["is endlessly deep", [[file(`${"a/".repeat(100_000)}x`)]], /too long a path/],
  ])("one that %s is refused", async (_what, layers, message) => {
    await expect(merge(...layers)).rejects.toMatchObject({ code: "Invalid", message });
  });

  it("a bomb is refused before it is unpacked", async () => {
    const layer = [file("zeros", "0".repeat(4_000_000))];
    const limits = { ...defaultLimits, ratioFromBytes: 1_000_000 };
    await expect(merged(await ociArchive([layer], { gzip: true }), limits)).rejects.toThrow(/bomb/);
    const small = { ...defaultLimits, maxUnpackedBytes: 1_000_000 };
    await expect(merged(await ociArchive([layer]), small)).rejects.toThrow(/the limit/);
  });
});

describe("the archive around them", () => {
  it("may be packed, of docker save's old form, with layers that are links", async () => {
    const layers: TestLayer[] = [[file("a")], [file("b")]];
    const lines = ["a: a", "b: b"];
    expect(await merged(await ociArchive(layers, { gzip: true }))).toEqual(lines);
    expect(await merged(await dockerArchive(layers))).toEqual(lines);
    expect(await merged(await dockerArchive([layers[0] ?? [], layers[0] ?? []], { linked: true }))).toEqual([
      "a: a",
    ]);
  });

  it.each<[string, () => Promise<Buffer>, RegExp]>([
    ["a blob with another checksum", () => ociArchive([[file("a")]], { damage: true }), /another checksum/],
    [
      "a wrong diff id",
      () => ociArchive([[file("a")]], { diffId: `sha256:${"0".repeat(64)}` }),
      /checksum that its configuration/,
    ],
    ["another processor", () => ociArchive([[file("a")]], { architecture: "mips" }), /mips/],
    ["no image", () => tarOf([file("x")]), /neither index.json/],
    ["a path that leads out", () => tarOf([file("../index.json")]), /leads out/],
    [
      "a link that leads out",
      () => tarOf([{ name: "a/layer.tar", type: "symlink", linkname: "../../etc/shadow" }]),
      /leads out/,
    ],
    ["a device", () => tarOf([{ name: "disk", type: "block-device", devmajor: 254 }]), /no plain file/],
    ["a manifest that is none", () => tarOf([file("index.json", "{")]), /cannot be read/],
    [
      "a layer elsewhere",
      () => ociArchive([[file("a")]], { urls: ["http://example.org/x"] }),
      /fetched from elsewhere/,
    ],
  ])("with %s is refused", async (_what, archive, message) => {
    await expect(archive().then((bytes) => merged(bytes))).rejects.toMatchObject({ message });
  });

  it("tells what the image runs", async () => {
    const config = {
      Entrypoint: ["/app"],
      Cmd: ["serve"],
      Env: ["A=b"],
      WorkingDir: "/srv",
      User: "www-data",
    };
    const archive = await ociArchive([[file("a")]], { config });
    const image = await readImageArchive(inChunks(archive), directory, 1024 ** 3, signal);
    expect(image.config.config).toEqual(config);
  });
});
