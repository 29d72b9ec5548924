import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { parseApkInstalled, parseDpkgStatus } from "./package-databases.ts";
import { packageUrl, spdxDocument } from "./spdx-document.ts";
import { inventoryOf } from "./tree-inventory.ts";

const status = `Package: libc6
Status: install ok installed
Multi-Arch: same
Source: glibc (2.36-9)
Version: 2.36-9+deb12u13
Architecture: amd64
Description: GNU C Library
 Version: 9 (within the description)
Homepage: https://www.gnu.org/software/libc/libc.html

Package: bash
Status: install ok installed
Version: 5.2.15-2+b10
Architecture: amd64

Package: gone
Status: deinstall ok config-files
Version: 1
Architecture: all

nothing that is a package
`;
const apk = `C:Q1abc=
P:musl
V:1.2.4-r2
A:x86_64
L:MIT
o:musl
U:https://musl.libc.org/

P:ssl_client
V:1.36.1-r15
A:x86_64
L:GPL-2.0-only
o:busybox
`;

it("dpkg's packages are those whose files are there", () => {
  expect(parseDpkgStatus(status)).toEqual([
    { type: "deb", name: "bash", version: "5.2.15-2+b10", architecture: "amd64" },
    {
      ...{ type: "deb", name: "libc6", version: "2.36-9+deb12u13", architecture: "amd64", source: "glibc" },
      homepage: "https://www.gnu.org/software/libc/libc.html",
    },
  ]);
});

it("apk's packages come with their licenses", () => {
  expect(parseApkInstalled(apk).map(({ name, license, source }) => [name, license, source])).toEqual([
    ["musl", "MIT", undefined],
    ["ssl_client", "GPL-2.0-only", "busybox"],
  ]);
});

it.each([
  ["2.36-9+deb12u13", "pkg:deb/debian/libc6@2.36-9%2Bdeb12u13?arch=amd64&distro=debian-12"],
  ["1:2.3~rc1", "pkg:deb/debian/libc6@1:2.3~rc1?arch=amd64&distro=debian-12"],
])("a package of version %s has its URL", (version, url) => {
  expect(packageUrl({ type: "deb", name: "libc6", version, architecture: "amd64" }, "debian", "12")).toBe(
    url,
  );
});

it("the document has each package once, with ids that SPDX allows, and is a function of the image", () => {
  const facts = { digest: `sha256:${"a".repeat(64)}`, os: "Debian", osId: "debian", osVersion: "12" };
  const packages = parseDpkgStatus(status);
  const text = spdxDocument({ ...facts, packages });
  expect(spdxDocument({ ...facts, packages })).toBe(text);
  const document = JSON.parse(text);
  expect(document).toMatchObject({
    spdxVersion: "SPDX-2.3",
    SPDXID: "SPDXRef-DOCUMENT",
    dataLicense: "CC0-1.0",
  });
  const ids: string[] = document.packages.map(({ SPDXID }: { SPDXID: string }) => SPDXID);
  expect(new Set(ids).size).toBe(3);
  for (const id of ids) expect(id).toMatch(/^SPDXRef-[A-Za-z0-9.-]+$/);
  const related = document.relationships.map((one: { relatedSpdxElement: string }) => one.relatedSpdxElement);
  expect(related.sort()).toEqual([...ids].sort());
});

let tree: string;
beforeEach(async () => {
  tree = await mkdtemp(join(tmpdir(), "strata-inventory-"));
});
afterEach(() => rm(tree, { recursive: true }));

it("a tree's own database is read, links within the tree followed, none outside", async () => {
  await mkdir(join(tree, "usr/lib/dpkg"), { recursive: true });
  await mkdir(join(tree, "var/lib"), { recursive: true });
  await mkdir(join(tree, "etc"));
  await writeFile(join(tree, "etc/os-release"), 'ID=debian\nVERSION_ID="12"\n');
  await expect(inventoryOf(tree, `sha256:${"a".repeat(64)}`, "x")).rejects.toMatchObject({
    code: "Unsupported",
  });
  await symlink("/usr/lib/dpkg", join(tree, "var/lib/dpkg"));
  await writeFile(join(tree, "usr/lib/dpkg/status"), status);
  const document = JSON.parse(await inventoryOf(tree, `sha256:${"a".repeat(64)}`, "Debian"));
  expect(document.packages).toHaveLength(3);
  expect(JSON.stringify(document)).toContain(
    "pkg:deb/debian/bash@5.2.15-2%2Bb10?arch=amd64&distro=debian-12",
  );
});
