/** The Debian packages that Strata needs: the one table is tools/packages.txt, which the launcher reads as well. */
import { readFile } from "node:fs/promises";
import { ownFile } from "../core/own-files.ts";

export interface NeededPackage {
  name: string;
  purpose: string;
}

export type DebianArchitecture = "amd64" | "arm64";

const table = ownFile("tools/packages.txt");

/** Lines of NAME ARCHITECTURE PURPOSE; those for other architectures are left out. */
export function parsePackages(text: string, architecture: DebianArchitecture): NeededPackage[] {
  return [...text.matchAll(/^([a-z0-9][a-z0-9+.-]*)\s+(all|amd64|arm64)\s+(\S.*)$/gm)]
    .filter(([, , wanted]) => wanted === "all" || wanted === architecture)
    .map(([, name = "", , purpose = ""]) => ({ name, purpose: purpose.trim() }));
}

/** What only the tests with real engines need. */
export async function readTestPackages(): Promise<NeededPackage[]> {
  const tests = ownFile("tools/test-packages.txt");
  return parsePackages(await readFile(tests, "utf8"), process.arch === "arm64" ? "arm64" : "amd64");
}

export async function readPackages(): Promise<NeededPackage[]> {
  const architecture = process.arch === "arm64" ? "arm64" : "amd64";
  return parsePackages(await readFile(table, "utf8"), architecture);
}
