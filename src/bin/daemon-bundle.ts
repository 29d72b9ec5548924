/**
 * The daemon's modules, its own and those of the packages it always needs, joined into few files without comments and types.
 * A process keeps the source text of each module it loads, and what it knows of each: the 800 single ones cost 14 MiB more
 * (docs/benchmarks.md). Made anew when a source has changed; where it cannot be made, the daemon runs from its source.
 */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  closeSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ownFile } from "../core/own-files.ts";

/** Where joined files lie: each below one of its own, two directories below the checkout (core/own-files.ts). */
const parent = fileURLToPath(ownFile(".strata/"));
const prefix = "daemon-";
const bundler = fileURLToPath(ownFile("node_modules/esbuild/bin/esbuild"));
const buildTimeoutMs = 60_000;
/** A daemon that still runs from an earlier one may load a part of it late. */
const keptBundles = 5;
/** They have files of their own beside their code, or programs for one kind of machine. Loaded when needed. */
const apart = ["@lydell/node-pty", "acme-client", "dockerode"];
/** For packages that are not ECMAScript modules. */
const preamble = `import { createRequire } from "node:module";const require = createRequire(import.meta.url);`;

/**
 * The first module of the joined daemon, made if need be: it exports what daemon-main.ts does.
 * @returns undefined where it cannot be made; why is told on standard error.
 */
export function bundledDaemon(): string | undefined {
  try {
    const directory = join(parent, prefix + stampOfSources());
    if (!existsSync(directory)) {
      makeBundle(directory);
      removeOldBundles();
    }
    return join(directory, "daemon-main.mjs");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    process.stderr.write(`The daemon runs from its source and needs more memory: ${reason}\n`);
    return undefined;
  }
}

/**
 * It appears as a whole or not at all, also after a loss of power: daemons may start side by side. Nobody else may write to it,
 * whatever the umask. @throws when it cannot be made.
 */
export function makeBundle(directory: string): void {
  const part = `${directory}.${process.pid}`;
  mkdirSync(dirname(directory), { recursive: true, mode: 0o755 });
  rmSync(part, { recursive: true, force: true });
  mkdirSync(part, { mode: 0o700 });
  const options = [
    "--bundle",
    "--splitting",
    "--format=esm",
    "--platform=node",
    `--target=node${process.versions.node}`,
    "--minify-whitespace",
    "--minify-syntax",
    "--sourcemap=external",
    "--sources-content=false",
    "--legal-comments=external", // their letters would double the size of the text in memory
    "--log-level=warning",
    "--out-extension:.js=.mjs",
    `--banner:js=${preamble}`,
    ...apart.map((name) => `--external:${name}`),
    `--outdir=${part}`,
  ];
  const entry = fileURLToPath(ownFile("src/bin/daemon-main.ts"));
  try {
    const [command, ...first] = commandOf(bundler);
    const { status, stderr, error } = spawnSync(command, [...first, entry, ...options], {
      cwd: fileURLToPath(ownFile("")),
      encoding: "utf8",
      timeout: buildTimeoutMs,
    });
    if (status !== 0) throw new Error(`its modules could not be joined: ${stderr?.trim() || error?.message}`);
    settle(part);
    renameSync(part, directory);
  } catch (error) {
    rmSync(part, { recursive: true, force: true });
    if (!existsSync(directory)) throw error; // else another daemon was faster
  }
}

/** esbuild is a script for Node.js until its own installation, where that may run, puts a binary in the script's place. */
export function commandOf(path: string): [command: string, ...args: string[]] {
  const begin = Buffer.alloc(2);
  const descriptor = openSync(path, "r");
  try {
    readSync(descriptor, begin);
  } finally {
    closeSync(descriptor);
  }
  return begin.toString("latin1") === "#!" ? [process.execPath, path] : [path];
}

/** A name may be on disk long before what is in the files: they are written out first. */
function settle(directory: string): void {
  chmodSync(directory, 0o755);
  const files = readdirSync(directory).map((name) => join(directory, name));
  for (const file of files) chmodSync(file, 0o644);
  for (const path of [...files, directory]) {
    const descriptor = openSync(path, "r");
    try {
      fsyncSync(descriptor);
    } finally {
      closeSync(descriptor);
    }
  }
}

/** Changes when any source file, the versions of the packages or the version of Node.js do. */
function stampOfSources(): string {
  const hash = createHash("sha256").update(process.version);
  for (const name of sourceNames()) {
    const { size, mtimeMs } = statSync(ownFile(name));
    hash.update(`\n${name} ${size} ${mtimeMs}`);
  }
  return hash.digest("hex").slice(0, 16);
}

function sourceNames(): string[] {
  const modules = ["src", "sim"].flatMap((folder) =>
    readdirSync(ownFile(folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.endsWith(".test.ts"))
      .map((name) => `${folder}/${name}`),
  );
  return [...modules.sort(), "package-lock.json"];
}

/** All but those that were made last. */
function removeOldBundles(): void {
  const made = readdirSync(parent)
    .filter((name) => name.startsWith(prefix))
    .map((name) => ({ path: join(parent, name), atMs: statSync(join(parent, name)).mtimeMs }))
    .sort((a, b) => b.atMs - a.atMs);
  for (const { path } of made.slice(keptBundles)) rmSync(path, { recursive: true, force: true });
}
