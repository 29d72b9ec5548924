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
import { StrataError } from "../core/errors.ts";
import { silentLogger } from "../core/logger.ts";
import { instanceKind } from "../kinds/instance.ts";
import { projectKind } from "../kinds/project.ts";
import { answers, removeUnit, startDaemon, stopDaemon } from "./daemon-process.ts";
import { installedPackages, requireRoot } from "./packages.ts";
import { isMachineDaemon, type Settings } from "./settings.ts";

const root = fileURLToPath(new URL("../..", import.meta.url));

export async function uninstall(session: Session, settings: Settings, values: OptionValues): Promise<Output> {
  requireRoot("uninstalling");
  const force = values.flag("force");
  const hasState = existsSync(join(settings.stateDir, "store.db"));
  const packages = values.flag("keep-packages") ? [] : installedPackages(settings);
  const client = hasState ? await reachDaemon(session, settings) : undefined;
  if (client) await refuseInstances(client, session, force);
  await session.confirm(
    `Strata's state, images${packages.length > 0 ? ` and the ${packages.length} packages that it installed` : ""} will be removed. Go on?`,
  );
  if (client) await deleteProjects(client, session);
  await stopDaemon(settings, session.clock);
  if (isMachineDaemon(settings)) await removeUnit();
  if (hasState && !settings.fake) {
    const { removeHostTraces } = await import("./real-host-parts.ts");
    await removeHostTraces(settings, silentLogger, session.signal);
  }
  await removeFiles(settings);
  const kept = removePackages(packages, session);
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

async function removeFiles(settings: Settings): Promise<void> {
  for (const directory of [settings.runDir, settings.stateDir])
    await rm(directory, { recursive: true, force: true });
  const base = settings.ownDirectory;
  if (base === undefined) return;
  // Images of a directory elsewhere are shared with other daemons.
  await rm(join(base, "images"), { recursive: true, force: true });
  if (existsSync(base) && (await readdir(base)).length === 0) await rmdir(base);
}

/** Returns those that stay because something else needs them by now. */
function removePackages(packages: readonly string[], session: Session): string[] {
  const installed = packages.filter((name) => spawnSync("dpkg-query", ["-W", name]).status === 0);
  if (installed.length === 0) return [];
  const own = new Set(installed);
  const collateral = (names: readonly string[]) => removedBy(names).filter((name) => !own.has(name));
  const doomed =
    collateral(installed).length === 0
      ? installed
      : installed.filter((name) => collateral([name]).length === 0);
  const kept = installed.filter((name) => !doomed.includes(name));
  if (doomed.length > 0) {
    session.printer.note(`removes from Debian: ${doomed.join(" ")}`);
    const { status } = aptGet(["purge", "--quiet=2", ...doomed], "inherit");
    if (status !== 0)
      throw new StrataError("Internal", "apt-get could not remove the packages; its message above says why");
  }
  return kept;
}

/** Names of all packages that would go with these. */
function removedBy(names: readonly string[]): string[] {
  const { stdout } = aptGet(["--simulate", "purge", ...names], "pipe");
  return [...stdout.matchAll(/^(?:Remv|Purg) (\S+)/gm)].flatMap(
    (match) => match[1]?.replace(/:\w+$/, "") ?? [],
  );
}

function aptGet(args: readonly string[], output: "inherit" | "pipe") {
  return spawnSync("apt-get", ["--yes", "-o", "DPkg::Lock::Timeout=600", ...args], {
    stdio: ["ignore", output === "inherit" ? 2 : "pipe", output === "inherit" ? 2 : "pipe"],
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
