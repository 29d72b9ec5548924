/** The inventory of a root tree on this host. The tree is the image store's: it does not change meanwhile. */
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { StrataError } from "../../../core/errors.ts";
import { findFile, readStart } from "../tree-paths.ts";
import { type InstalledPackage, parseApkInstalled, parseDpkgStatus } from "./package-databases.ts";
import { spdxDocument } from "./spdx-document.ts";

const databases: readonly { path: string; parse: (text: string) => InstalledPackage[] }[] = [
  { path: "/var/lib/dpkg/status", parse: parseDpkgStatus },
  { path: "/lib/apk/db/installed", parse: parseApkInstalled },
];
const maxDatabaseBytes = 128 * 1024 ** 2;

/** @throws Unsupported for a tree with no package database that is read here. */
export async function inventoryOf(tree: string, digest: string, os: string): Promise<string> {
  const release = (await readStart(tree, "/etc/os-release", 16 * 1024)) ?? "";
  const value = (key: string) => new RegExp(`^${key}=["']?([A-Za-z0-9._-]*)`, "m").exec(release)?.[1] ?? "";
  for (const { path, parse } of databases) {
    const file = await findFile(tree, path);
    if (file === undefined) continue;
    const packages = parse(await readText(file));
    return spdxDocument({ digest, os, osId: value("ID"), osVersion: value("VERSION_ID"), packages });
  }
  throw new StrataError(
    "Unsupported",
    "the image has no package database that can be read (dpkg and apk are; rpm is not), so its software cannot be listed",
  );
}

async function readText(path: string): Promise<string> {
  await using file = await open(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  const { size } = await file.stat();
  if (size > maxDatabaseBytes) {
    throw new StrataError(
      "Invalid",
      `the image's package database has ${size} bytes; ${maxDatabaseBytes} is the limit`,
    );
  }
  return file.readFile("utf8");
}
