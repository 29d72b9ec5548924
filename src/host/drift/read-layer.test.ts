import { execFileSync } from "node:child_process";
import { hash } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import type { RootEntry } from "../../kinds/drift.ts";
import { scanTree } from "../images/tree-scan.ts";
import { compareRoots } from "./compare-roots.ts";
import { readLayer } from "./read-layer.ts";

/**
 * An overlay without the kernel's: what it would show of files that were not changed are links to the lower ones, which
 * have their inodes and times.
 */
let home: string;
let original: ReadonlyMap<string, RootEntry>;
const idBase = process.getuid?.() ?? 0;
const at = (...names: string[]) => join(home, ...names);

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), "strata-layer-"));
  for (const path of ["lower/etc/app", "lower/srv", "upper"]) mkdirSync(at(path), { recursive: true });
  writeFileSync(at("lower/etc/motd"), "hello");
  writeFileSync(at("lower/etc/app/one"), "1");
  writeFileSync(at("lower/srv/index"), "page");
  original = new Map(
    scanTree({ root: at("lower"), idBase, content: true }).entries.map((entry) => [entry.path, entry]),
  );
  execFileSync("cp", ["-al", at("lower"), at("merged")]);
});
afterEach(() => rmSync(home, { recursive: true, force: true }));

/** As the kernel does before the first change: a file of its own in the layer, and what the overlay shows is that. */
function write(path: string, text: string): void {
  for (const layer of ["upper", "merged"]) {
    mkdirSync(at(layer, path, ".."), { recursive: true });
    rmSync(at(layer, path), { force: true });
    writeFileSync(at(layer, path), text);
  }
}

async function drift() {
  const request = { merged: at("merged"), upper: at("upper"), lower: at("lower"), idBase, original };
  return compareRoots(original, await readLayer(request, new AbortController().signal));
}

test("an unchanged root has no differences", async () => {
  expect(await drift()).toEqual([]);
});

test("exactly what was edited, added and removed", async () => {
  write("etc/motd", "HELLO");
  write("etc/app/two", "2");
  unlinkSync(at("merged/etc/app/one"));
  const found = (await drift()).map(({ change, path, aspects }) => [change, path, ...aspects].join(" "));
  expect(found).toEqual(["removed /etc/app/one", "added /etc/app/two", "changed /etc/motd content"]);
});

test("a file that was copied up and is equal is none", async () => {
  write("etc/motd", "hello");
  expect(await drift()).toEqual([]);
});

test("modes of files, directories and the root itself", async () => {
  write("etc/motd", "hello");
  chmodSync(at("merged/etc/motd"), 0o600);
  chmodSync(at("merged"), 0o711);
  const found = await drift();
  expect(found.map(({ path, aspects }) => [path, aspects])).toEqual([
    ["/", ["mode"]],
    ["/etc/motd", ["mode"]],
  ]);
});

test("what a moved directory brought along is compared, though the layer does not have it", async () => {
  mkdirSync(at("upper/srv"));
  unlinkSync(at("merged/srv/index"));
  writeFileSync(at("merged/srv/index"), "PAGE");
  expect(await drift()).toMatchObject([{ path: "/srv/index", aspects: ["content"] }]);
});

test("a symbolic link in the place of a directory leads nowhere", async () => {
  const outside = at("outside");
  mkdirSync(outside);
  writeFileSync(join(outside, "secret"), "s");
  mkdirSync(at("upper/srv"));
  rmSync(at("merged/srv"), { recursive: true });
  symlinkSync(outside, at("merged/srv"));
  symlinkSync(join(outside, "secret"), at("merged/etc/new"));
  mkdirSync(at("upper/etc"));
  const found = await drift();
  expect(found.map(({ change, path, type }) => [change, path, type].join(" "))).toEqual([
    "added /etc/new symlink",
    "changed /srv symlink",
    "removed /srv/index file",
  ]);
});

test("large files are hashed to the end", async () => {
  const large = Buffer.alloc(3 * 1024 * 1024 + 5, "x");
  const entry = { path: "big", type: "file", mode: 0o644, uid: 0, gid: 0, sizeBytes: large.length } as const;
  writeFileSync(at("merged/big"), large);
  writeFileSync(at("upper/big"), large);
  original = new Map([...original, ["big", { ...entry, sha256: hash("sha256", large) }]]);
  expect(await drift()).toEqual([]);
  large[large.length - 1] = 0;
  writeFileSync(at("merged/big"), large);
  expect(await drift()).toMatchObject([{ path: "/big", aspects: ["content"] }]);
});
