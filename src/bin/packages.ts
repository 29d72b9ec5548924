/** The Debian packages of tools/packages.txt: installing what is missing, and knowing what to take away again. */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { StrataError } from "../core/errors.ts";
import { ownFile } from "../core/own-files.ts";
import type { Settings } from "./settings.ts";

const installer = fileURLToPath(ownFile("tools/install-packages.sh"));

/** @throws Forbidden, naming what needs root. */
export function requireRoot(what: string): void {
  if (process.getuid?.() === 0) return;
  throw new StrataError("Forbidden", `${what} needs root: run it with sudo`);
}

/**
 * Installs what Strata needs, or only the packages named. Prints what it installs. Fast when nothing is missing.
 * @throws Unavailable; the installer has said why.
 */
export async function installPackages(
  settings: Pick<Settings, "stateDir">,
  names: readonly string[] = [],
): Promise<void> {
  const { status } = spawnSync(installer, names, {
    stdio: ["ignore", 2, 2],
    env: { ...process.env, STRATA_STATE_DIR: settings.stateDir },
  });
  if (status !== 0)
    throw new StrataError("Unavailable", "the packages that Strata needs are not all installed");
}

/** Names of the packages that were installed for Strata, dependencies included. */
export function installedPackages(settings: Pick<Settings, "stateDir">): string[] {
  const record = join(settings.stateDir, "installed-packages");
  if (!existsSync(record)) return [];
  return readFileSync(record, "utf8").split("\n").filter(Boolean);
}
