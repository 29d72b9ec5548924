/**
 * Builds a root tree from a Debian suite with mmdebstrap, as an archive on a stream. Packages come from the mirror
 * and through the proxies that the host's own apt uses, where it knows Debian, else from deb.debian.org; apt checks
 * signatures in both cases.
 */
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import type { Readable } from "node:stream";
import { StrataError } from "../../core/errors.ts";
import type { ImageSource } from "../../kinds/image.ts";
import type { Progress } from "../../kinds/kind.ts";
import { run } from "../run.ts";
import { dyingWithUs, ownNamespaces } from "./contained-process.ts";
import { customizeHook, debianPackages, essentialHook, excludedPaths } from "./debian-recipe.ts";

type DebianSource = Extract<ImageSource, { type: "debian" }>;

export interface DebianBuildOptions {
  /** For temporary files; removed by the caller. */
  directory: string;
  signal: AbortSignal;
  onProgress(progress: Progress): void;
}

/** Fixed, so that the same packages give the same files: nothing in a tree says when it was built. */
const sourceDateEpoch = "1700000000";
const keptErrorLines = 40;

/** Share of the time when the tree begins to come. */
export const builtFraction = 0.85;

/** mmdebstrap's messages, with the share of the whole time that has usually passed when they come. */
const steps: readonly [prefix: string, step: string, fraction: number][] = [
  ["running apt-get update", "reading the package lists", 0.02],
  ["downloading packages", "downloading packages", 0.1],
  ["extracting archives", "unpacking the base system", 0.2],
  ["installing essential packages", "installing the base system", 0.3],
  ["installing remaining packages", "installing packages", 0.4],
  ["running --customize-hook", "configuring", 0.8],
  ["cleaning package lists", "cleaning up", 0.82],
  ["creating tarball", "packing the tree", builtFraction],
];

/** @throws (while reading) Unavailable when packages cannot be fetched, Invalid for a package that does not exist. */
export async function* buildDebianTree(
  source: DebianSource,
  options: DebianBuildOptions,
): AsyncGenerator<Uint8Array, void, void> {
  const { directory, signal, onProgress } = options;
  await mkdir(directory, { mode: 0o755 });
  const [program, argv] = dyingWithUs("unshare", [
    ...ownNamespaces,
    "--mount-proc",
    "nice",
    "-n10",
    "ionice",
    "-c3",
    "mmdebstrap",
    ...(await mmdebstrapArguments(source, signal)),
  ]);
  const child = spawn(program, argv, {
    env: {
      PATH: "/usr/sbin:/usr/bin:/sbin:/bin",
      LANG: "C.UTF-8",
      TMPDIR: directory,
      SOURCE_DATE_EPOCH: sourceDateEpoch,
    },
    cwd: directory,
    stdio: ["ignore", "pipe", "pipe"],
  });
  const kill = () => child.kill("SIGKILL");
  signal.addEventListener("abort", kill, { once: true });
  const ended = new Promise<number>((resolve, reject) => {
    child.once("error", (cause) =>
      reject(new StrataError("Unavailable", "cannot run mmdebstrap", { cause })),
    );
    child.once("close", (code) => resolve(code ?? 128));
  });
  ended.catch(() => {});
  const messages = followMessages(child.stderr, onProgress);
  try {
    yield* child.stdout;
    const status = await ended;
    signal.throwIfAborted();
    if (status !== 0) throw explainFailure(source, messages());
  } finally {
    signal.removeEventListener("abort", kill);
    kill();
    await ended.catch(() => {});
  }
}

async function mmdebstrapArguments(source: DebianSource, signal: AbortSignal): Promise<string[]> {
  return [
    "--mode=root",
    "--variant=minbase",
    "--format=tar",
    `--include=${debianPackages(source.packages).join(",")}`,
    ...excludedPaths.map((path) => `--dpkgopt=path-exclude=${path}`),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    ...(await proxyOptions(signal)),
    `--essential-hook=${essentialHook}`,
    `--customize-hook=${customizeHook}`,
    source.suite,
    "-",
    ...(await mirrors(source.suite, signal)),
  ];
}

/** Lines for the image's sources.list; none leaves the choice to mmdebstrap. */
async function mirrors(suite: string, signal: AbortSignal): Promise<string[]> {
  const known = await debianMirrors(signal);
  return known === undefined ? [] : sourcesOf(known, suite);
}

export interface DebianMirrors {
  main: string;
  security: string;
}

/** Where this host's own apt gets Debian from; undefined where it does not. */
export async function debianMirrors(signal: AbortSignal): Promise<DebianMirrors | undefined> {
  const format = "$(REPO_URI) $(ORIGIN) $(LABEL)";
  const known = await run("apt-get", ["indextargets", "--format", format], { signal }).catch(() => undefined);
  const uriOf = (label: string) =>
    known?.stdout
      .split("\n")
      .map((line) => line.split(" "))
      .find(
        ([uri, origin, name]) => origin === "Debian" && name === label && /^https?:/.test(uri ?? ""),
      )?.[0];
  const main = uriOf("Debian");
  const security = uriOf("Debian-Security");
  return main === undefined || security === undefined ? undefined : { main, security };
}

/** Lines of a sources.list. */
export function sourcesOf({ main, security }: DebianMirrors, suite: string): string[] {
  return [
    `deb ${main} ${suite} main`,
    `deb ${main} ${suite}-updates main`,
    `deb ${security} ${suite}-security main`,
  ];
}

async function proxyOptions(signal: AbortSignal): Promise<string[]> {
  const lines = await aptProxies(signal);
  return lines.map((line) => `--aptopt=${line}`);
}

/** Lines of an apt.conf: the proxies that this host's own apt uses. */
export async function aptProxies(signal: AbortSignal): Promise<string[]> {
  const scopes = ["Acquire::http::Proxy", "Acquire::https::Proxy"];
  const known = await run("apt-config", ["dump", "--format", "%f %v%n", ...scopes], { signal }).catch(
    () => undefined,
  );
  return (known?.stdout ?? "")
    .split("\n")
    .filter((line) => /^Acquire::https?::Proxy [^\s"]+$/.test(line))
    .map((line) => `${line.replace(" ", ' "')}"`);
}

function followMessages(stderr: Readable, onProgress: (progress: Progress) => void): () => string[] {
  const kept: string[] = [];
  let partial = "";
  stderr.setEncoding("utf8").on("data", (text: string) => {
    const lines = (partial + text).split(/\r?\n|\r/);
    partial = (lines.pop() ?? "").slice(-4096);
    for (const line of lines) {
      const known = steps.find(([prefix]) => line.startsWith(`I: ${prefix}`));
      if (known) onProgress({ step: known[1], fraction: known[2] });
      if (!/^(done|\s*)$/.test(line)) kept.push(line);
      if (kept.length > keptErrorLines) kept.shift();
    }
  });
  return () => kept;
}

/** What a person can do about it, from the last lines of mmdebstrap and apt. */
export function explainFailure(source: DebianSource, messages: readonly string[]): StrataError {
  const detail = messages.join("\n").slice(-4000);
  const missing = /Unable to locate package (\S+)|Package '?(\S+?)'? has no installation candidate/.exec(
    detail,
  );
  if (missing) {
    const name = missing[1] ?? missing[2];
    return new StrataError("Invalid", `Debian ${source.suite} has no package "${name}"`, { detail });
  }
  if (/unmet dependencies|held broken packages|Conflicts:/.test(detail)) {
    const names = source.packages.join(", ");
    return new StrataError(
      "Invalid",
      `the packages ${names} cannot be installed together in ${source.suite}`,
      {
        detail,
      },
    );
  }
  if (
    /Failed to fetch|Could not resolve|Connection (failed|refused|timed out)|Temporary failure/.test(detail)
  ) {
    return new StrataError("Unavailable", "cannot fetch Debian's packages: the mirror does not answer", {
      detail,
    });
  }
  return new StrataError(
    "Internal",
    `building Debian ${source.suite} failed; the daemon's log has the reason`,
    {
      detail,
    },
  );
}
