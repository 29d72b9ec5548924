import { expect, test } from "vitest";
import type { Difference, RootEntry, RootListing } from "../../kinds/drift.ts";
import { compareRoots, needsContent } from "./compare-roots.ts";

const common = { mode: 0o644, uid: 0, gid: 0 };
const file = (path: string, change: Partial<RootEntry> = {}): RootEntry => ({
  ...{ ...common, path, type: "file", sizeBytes: 3, sha256: "aa" },
  ...change,
});
const directory = (path: string, change: Partial<RootEntry> = {}): RootEntry => ({
  ...{ path, type: "directory", mode: 0o755, uid: 0, gid: 0 },
  ...change,
});
const link = (path: string, target: string): RootEntry => ({
  ...{ path, type: "symlink", mode: 0o777, uid: 0, gid: 0, target },
});

const tree = new Map(
  [
    directory(""),
    directory("etc"),
    file("etc/motd"),
    link("etc/link", "motd"),
    directory("srv"),
    directory("srv/www"),
    file("srv/www/index.html"),
    file("usr.bin", { capability: "0100" }),
  ].map((entry) => [entry.path, entry]),
);

const etc = (...entries: RootEntry[]): RootListing => ({
  path: "etc",
  names: [
    "motd",
    "link",
    ...entries.map(({ path }) => path.slice(4)).filter((name) => !/^(motd|link)$/.test(name)),
  ],
  entries,
});

const changed = (path: string, aspects: Difference["aspects"], type: Difference["type"] = "file") => ({
  ...{ path, change: "changed", type, aspects },
});

test.each<[string, RootListing[], unknown[]]>([
  ["nothing was listed", [], []],
  ["what was copied up is equal", [etc(file("etc/motd"), link("etc/link", "motd"))], []],
  [
    "the content is known to be the image's",
    [etc({ ...common, path: "etc/motd", type: "file", sizeBytes: 3 })],
    [],
  ],
  [
    "another content of the same size",
    [etc(file("etc/motd", { sha256: "bb" }))],
    [changed("/etc/motd", ["content"])],
  ],
  [
    "another size",
    [etc({ ...common, path: "etc/motd", type: "file", sizeBytes: 4 })],
    [changed("/etc/motd", ["content"])],
  ],
  ["another mode", [etc(file("etc/motd", { mode: 0o600 }))], [changed("/etc/motd", ["mode"])]],
  [
    "another owner and content",
    [etc(file("etc/motd", { gid: 7, sha256: "bb" }))],
    [changed("/etc/motd", ["content", "owner"])],
  ],
  ["another target", [etc(link("etc/link", "passwd"))], [changed("/etc/link", ["target"], "symlink")]],
  ["another type", [etc({ ...file("etc/link"), mode: 0o777 })], [changed("/etc/link", ["type"])]],
  ["a new file", [etc(file("etc/new"))], [{ path: "/etc/new", change: "added", type: "file", aspects: [] }]],
  [
    "a file is gone",
    [{ path: "etc", names: ["link"], entries: [] }],
    [{ path: "/etc/motd", change: "removed", type: "file", aspects: [] }],
  ],
  [
    "a directory is gone, with all that was in it",
    [{ path: "", names: ["etc", "usr.bin"], entries: [] }],
    ["/srv", "/srv/www", "/srv/www/index.html"].map((path) =>
      expect.objectContaining({ path, change: "removed" }),
    ),
  ],
  [
    "a directory became a link",
    [{ path: "srv", names: ["www"], entries: [{ ...link("srv/www", "/mnt"), mode: 0o755 }] }],
    [
      changed("/srv/www", ["type"], "symlink"),
      expect.objectContaining({ path: "/srv/www/index.html", change: "removed" }),
    ],
  ],
  [
    "file capabilities went",
    [{ path: "", names: ["etc", "srv", "usr.bin"], entries: [file("usr.bin", { capability: "" })] }],
    [changed("/usr.bin", ["capability"])],
  ],
  [
    "file capabilities were not looked at",
    [{ path: "", names: ["etc", "srv", "usr.bin"], entries: [file("usr.bin")] }],
    [],
  ],
  [
    "what every start writes",
    [etc(file("etc/hostname"))],
    [expect.objectContaining({ path: "/etc/hostname", usual: "identity of the machine" })],
  ],
])("%s", (_what, listings, differences) => {
  expect(compareRoots(tree, listings)).toEqual(differences);
});

test("directories for volumes are the host's doing, what is beside them is not", () => {
  const entries = ["mnt", "mnt/kept", "mnt/mine"].map((path) => directory(path));
  const listings = entries.map((entry) => ({ path: entry.path.split("/").slice(0, -1).join("/"), entry }));
  const found = compareRoots(
    tree,
    listings.map(({ path, entry }) => ({
      ...{ path, entries: [entry] },
      names: path === "" ? ["etc", "srv", "usr.bin", "mnt"] : ["kept", "mine"],
    })),
    ["/mnt/kept"],
  );
  const usual = "what the host mounts";
  expect(found.map((difference) => [difference.path, difference.usual])).toEqual([
    ["/mnt", usual],
    ["/mnt/kept", usual],
    ["/mnt/mine", undefined],
  ]);
});

test("what is below a directory of the application's data is its own, the directory itself is not", () => {
  const listings = [
    {
      path: "srv",
      names: ["www", "wwwx"],
      entries: [directory("srv/wwwx"), { ...directory("srv/www"), mode: 0o700 }],
    },
    { path: "srv/www", names: ["new"], entries: [file("srv/www/new")] },
  ];
  const found = compareRoots(tree, listings, [], ["/srv/www"]);
  expect(found.map(({ path, usual }) => [path, usual])).toEqual([
    ["/srv/www", undefined],
    ["/srv/www/index.html", "data of the application"],
    ["/srv/www/new", "data of the application"],
    ["/srv/wwwx", undefined],
  ]);
});

test("a content is needed only where the size does not tell", () => {
  expect(needsContent(file("a"), 3)).toBe(true);
  expect(needsContent(file("a"), 4)).toBe(false);
  expect(needsContent(undefined, 3)).toBe(false);
  expect(needsContent(link("a", "b"), 3)).toBe(false);
});
