/**
 * `strata uninstall`: takes away all that Strata put on this machine, in the reverse order of its making. The daemon
 * removes what it made (guests, networks, disks); only then do its files, its unit and the packages go.
 */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { readdir, rm, rmdir } from "node:fs/promises";
import { flushCompileCache } from "node:module";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { OptionValues, Session } from "../cli/command.ts";
import type { Output } from "../cli/output.ts";
import { follow, patience } from "../cli/watching.ts";
import type { HttpClient } from "../client/http-client.ts";
import { hasCode, StrataError } from "../core/errors.ts";
import { silentLogger } from "../core/logger.ts";
import { ownFile } from "../core/own-files.ts";
import { instanceKind } from "../kinds/instance.ts";
import { projectKind } from "../kinds/project.ts";
import { storagePoolKind } from "../kinds/storage-pool.ts";
import { answers, removeUnit, startDaemon, stopDaemon } from "./daemon-process.ts";
import { installedPackages, requireRoot } from "./packages.ts";
import { isMachineDaemon, type Settings } from "./settings.ts";

const root = fileURLToPath(ownFile(""));

export async function uninstall(session: Session, settings: Settings, values: OptionValues): Promise<Output> {
  requireRoot("uninstalling");
  const force = values.flag("force");
  const hasState = existsSync(join(settings.stateDir, "store.db"));
  const packages = values.flag("keep-packages") ? [] : installedPackages(settings);
  const client = hasState ? await reachDaemon(session, settings) : undefined;
  if (client) await refuseInstances(client, session, force);
  await session.confirm(
    `Strata's state and images${packages.length > 0 ? `, and the ${packages.length} packages that it installed,` : ""} will be removed. Go on?`,
  );
  if (client) await deleteProjects(client, session);
  if (client) await deletePools(client, session);
  await stopDaemon(settings, session.clock);
  if (isMachineDaemon(settings)) await removeUnit();
  if (hasState && !settings.fake) {
    const { removeHostTraces } = await import("./real-host-parts.ts");
    await removeHostTraces(settings, silentLogger, session.signal).catch((error: unknown) => {
      // Where the host lacks what they are made with, there are none.
      if (!hasCode(error, "Unavailable")) throw error;
    });
  }
  // The state directory goes last: it has the list of packages, should this be interrupted.
  const kept = removePackages(packages, session);
  await removeFiles(settings);
  if (isMachineDaemon(settings)) await removeToolchain();
  const text =
    kept.length > 0
      ? `Strata is gone; other packages need these, so they stay: ${kept.join(", ")}`
      : "Strata is gone";
  return { type: "message", text, json: { removed: true, keptPackages: kept } };
}

/** Only a daemon can take its guests and networks away: it is started when it does not run. */
async function reachDaemon(session: Session, settings: Settings): Promise<HttpClient> {
  if (!(await answers(settings, session.clock))) await startDaemon(settings, session.clock, session.signal);
  const { createHttpClient } = await import("../client/http-client.ts");
  return createHttpClient({ socketPath: settings.socketPath });
}

async function refuseInstances(client: HttpClient, session: Session, force: boolean): Promise<void> {
  const { items } = await client.list(instanceKind, {}, { signal: session.signal });
  if (items.length === 0 || force) return;
  const names = items.map(({ metadata }) => `${metadata.project}/${metadata.name}`);
  const shown = names.slice(0, 10).join(", ") + (names.length > 10 ? ", …" : "");
  throw new StrataError(
    "Conflict",
    `${names.length} instances exist (${shown}); delete them first, or add --force to delete them as well`,
  );
}

/** With all that is in them: instances, images, networks. */
async function deleteProjects(client: HttpClient, session: Session): Promise<void> {
  const { signal } = session;
  for (const instance of (await client.list(instanceKind, {}, { signal })).items) {
    if (!instance.spec.protected) continue;
    const { project, name } = instance.metadata;
    const ref = { name, ...(project ? { project } : {}) };
    await client.patch(instanceKind, ref, { spec: { protected: false } }, { signal });
  }
  const { items } = await client.list(projectKind, {}, { signal });
  for (const { metadata } of items) {
    if (!metadata.deletedAt) await client.deleteProject(metadata.name, { signal, cascade: true });
  }
  const uids = new Set<string>(items.map(({ metadata }) => metadata.uid));
  await follow(
    client,
    projectKind,
    {},
    patience(session),
    (seen) => {
      const left = [...seen.values()].filter(({ metadata }) => uids.has(metadata.uid));
      for (const { metadata } of left) session.printer.progress(`projects/${metadata.name}`, "deleting");
      return left.length === 0;
    },
    () => "deleting the projects",
  );
}

/** What is in them has gone with the projects; their directories and whatever else is there stay. */
async function deletePools(client: HttpClient, session: Session): Promise<void> {
  const { signal } = session;
  const { items } = await client.list(storagePoolKind, {}, { signal });
  if (items.length === 0) return;
  for (const { metadata } of items) await client.delete(storagePoolKind, { name: metadata.name }, { signal });
  const limits = patience(session);
  await follow(
    client,
    storagePoolKind,
    {},
    limits,
    (seen) => seen.size === 0,
    () => "deleting the storage pools",
  );
}

async function removeFiles(settings: Settings): Promise<void> {
  for (const directory of [settings.runDir, settings.stateDir])
    await rm(directory, { recursive: true, force: true });
  const base = settings.ownDirectory;
  if (base === undefined) return;
  // Images of a directory elsewhere are shared with other daemons.
  await rm(join(base, "images"), { recursive: true, force: true });
  if (existsSync(base) && (await readdir(base)).length === 0) await rmdir(base);
}

/**
 * Returns those that stay because something else needs them by now, or because the system cannot be without them. Which
 * these are is apt's to say: it is asked what it would remove had nobody asked for our packages.
 */
function removePackages(packages: readonly string[], session: Session): string[] {
  const installed = packages.filter((name) => isInstalled(name));
  if (installed.length === 0) return [];
  spawnSync("apt-mark", ["auto", ...installed], { stdio: "ignore" });
  const { stdout } = aptGet([...strictly, "--simulate", "autoremove"]);
  const removable = new Set([...stdout.matchAll(/^(?:Remv|Purg) ([^\s:]+)/gm)].map((match) => match[1]));
  const doomed = installed.filter((name) => removable.has(name));
  if (doomed.length > 0) {
    session.printer.note(`removes from Debian: ${doomed.join(" ")}`);
    const { status, stderr } = aptGet(["--quiet=2", "purge", ...doomed]);
    if (status !== 0) {
      throw new StrataError(
        "Internal",
        `apt-get could not remove the packages: ${stderr.trim().slice(-500)}`,
      );
    }
  }
  return installed.filter((name) => !doomed.includes(name));
}

/** Only what is depended on counts, not what is recommended. */
const strictly = ["RecommendsImportant", "SuggestsImportant"].flatMap((name) => [
  "-o",
  `APT::AutoRemove::${name}=false`,
]);

function isInstalled(name: string): boolean {
  const { stdout } = spawnSync("dpkg-query", ["--status", name], { encoding: "utf8" });
  return /^Status: \S+ \S+ installed$/m.test(stdout);
}

function aptGet(args: readonly string[]) {
  return spawnSync("apt-get", ["--yes", "-o", "DPkg::Lock::Timeout=600", "-o", "Dpkg::Use-Pty=0", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    encoding: "utf8",
    env: { ...process.env, DEBIAN_FRONTEND: "noninteractive", LC_ALL: "C" },
  });
}

/** What the launcher fetched into the checkout. The program that runs here stays in memory until it ends. */
async function removeToolchain(): Promise<void> {
  if (!existsSync(join(root, "node_modules", ".strata-lock"))) return; // a developer's own
  flushCompileCache();
  await rm(join(root, "node_modules"), { recursive: true, force: true });
  await rm(join(root, ".strata"), { recursive: true, force: true });
}
