/** Builds of one scope: see buildah-builder.ts. */
import { constants, createWriteStream } from "node:fs";
import { chown, mkdir, open, rm, writeFile } from "node:fs/promises";
import { availableParallelism, totalmem } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { stripVTControlCharacters } from "node:util";
import * as z from "zod";
import type { Clock } from "../../../../core/clock.ts";
import { StrataError } from "../../../../core/errors.ts";
import { exportLayers } from "../../export/write-layers.ts";
import { imageConfigSchema } from "../../layers/image-archive.ts";
import { configOf, readApplication } from "../application.ts";
import {
  buildCpuWeight,
  explainFailure,
  hasProxy,
  LastLines,
  limitsOn,
  maxBuildProcesses,
} from "../build-limits.ts";
import { guardSpace } from "../disk-guard.ts";
import type { BuildLimits, BuildOrder, BuildSession, BuiltImage } from "../image-builder.ts";
import { type BuildNetwork, type JailEnd, type JailRun, runInJail } from "./build-jail.ts";
import type { BuildahBuilderOptions } from "./buildah-builder.ts";

export interface SessionOptions extends Pick<BuildahBuilderOptions, "cgroups" | "group" | "idBase"> {
  jail: { jail: string; store: string; work: string; input: string };
  network: BuildNetwork;
  clock: Clock;
  /** Called once, with the disposal. */
  end(): Promise<void>;
}

/** Results that stay as a cache, and images of Strata that were built on. */
const keptBuilds = 12;
const keptBases = 4;
const buildRepo = "localhost/strata-build";
const baseRepo = "localhost/strata-base";
/** What buildah itself may take besides its steps. */
const ownMemoryMib = 128;
const ownProcesses = 256;
const toolTimeoutMs = 10 * 60_000;
const maxBuildMs = 24 * 3600_000;
/** Arguments of a program are limited by the kernel: all of them together, and each (MAX_ARG_STRLEN, its end included). */
const maxArgumentsBytes = 1024 ** 2;
const maxArgumentBytes = 128 * 1024 - 1;
/** What buildah prints about itself, between the steps and what these say. */
const bookkeeping = /^(--> |COMMIT |Successfully tagged |\[[0-9/]+\] COMMIT |[0-9a-f]{64}$|time=")/;
const killed = 137;
const maxTries = 3;
/**
 * buildah runs itself, for each step as well, from a copy in memory that the kernel is to keep from being written to. The kernel refuses
 * that now and then on a busy host, while pages of the copy are still on their way; the step has not begun then.
 */
const notBegun = /sealing memfd copy: Device or resource busy/;

const imagesSchema = z
  .array(z.object({ id: z.string(), names: z.array(z.string()).nullish(), created: z.number().nullish() }))
  .nullable();
const inspectionSchema = z.object({ Docker: imageConfigSchema });

export class BuildahSession implements BuildSession {
  readonly #options: SessionOptions;
  readonly #group: string;
  #count = 0;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#group = `${options.group}/buildah`;
  }

  /** Takes away what a killed session left: its containers, and a store that it left in disorder. */
  async recover(signal: AbortSignal): Promise<void> {
    await this.#limit({ memoryMib: toolMemoryMib, cpus: 1 });
    const { status } = await this.#buildah(["rm", "--all"], { signal });
    if (status === 0) return;
    const { store } = this.#options.jail;
    await rm(store, { recursive: true, force: true });
    await mkdir(store, { mode: 0o700 });
    await chown(store, this.#options.idBase, this.#options.idBase);
    await this.#expect(["rm", "--all"], signal);
  }

  async offer(digest: string, tree: { path: string; idBase: number }, signal: AbortSignal): Promise<string> {
    const name = `${baseRepo}:${digest.replace(/^sha256:/, "")}`;
    if (await this.#inspect(name, signal)) return name;
    const { input } = this.#options.jail;
    const application = await readApplication(tree.path);
    const config = application ? configOf(application) : {};
    const archive = join(input, "base.tar");
    using space = this.#guard(signal);
    await exportLayers({ tree, os: "", directory: input, signal: space.signal, config }, (bytes) =>
      pipeline(Readable.from(bytes), createWriteStream(archive, { mode: 0o644 }), { signal: space.signal }),
    );
    await rm(join(input, "layer.tar"), { force: true });
    const { stdout } = await this.#expect(
      ["pull", "--quiet", "docker-archive:/input/base.tar"],
      space.signal,
    );
    await this.#expect(["tag", lastLine(stdout), name], space.signal);
    await rm(archive, { force: true });
    return name;
  }

  async build(order: BuildOrder): Promise<BuiltImage> {
    const host = { memoryBytes: totalmem(), cpus: availableParallelism() };
    await this.#limit(limitsOn(host, order.limits));
    using space = this.#guard(order.signal);
    const { signal } = space;
    await this.#unpack(order, signal);
    const name = `${buildRepo}:${this.#options.clock.now()}-${++this.#count}`;
    const printed = new LastLines();
    const seen = { layer: undefined as string | undefined, error: undefined as string | undefined };
    const tell = (line: string) => {
      order.onLine(line);
      printed.add(line);
    };
    const onLine = (raw: string) => {
      const line = stripVTControlCharacters(raw);
      seen.layer = /^--> ([0-9a-f]{11,64})$/.exec(line)?.[1] ?? seen.layer;
      if (line.trim() === "" || bookkeeping.test(line)) return;
      // The last one is buildah's own; those before are what a step said.
      if (seen.error !== undefined) tell(`Error: ${seen.error}`);
      seen.error = /^Error: (.*)$/.exec(line)?.[1];
      if (seen.error === undefined) tell(line);
    };
    try {
      const { status, stderr } = await this.#buildah(buildArguments(order, name), {
        ...{ signal, onLine, timeoutMs: maxBuildMs, network: this.#options.network },
      });
      if (status !== 0) throw failureOf(status, seen.error, stderr, printed);
    } catch (error) {
      if (seen.layer) await this.#keepAsCache(seen.layer, name).catch(() => {});
      signal.throwIfAborted();
      throw error;
    }
    const config = await this.#inspect(name, signal);
    if (!config) throw new StrataError("Unavailable", "buildah built an image and does not have it");
    return { id: name, config };
  }

  async save(
    id: string,
    use: (archive: AsyncIterable<Uint8Array>) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    using space = this.#guard(signal);
    await this.#expect(["push", "--quiet", id, "docker-archive:/work/image.tar"], space.signal);
    const path = join(this.#options.jail.work, "image.tar");
    // A stranger could have put a link, or a pipe that nobody writes to, in its place.
    const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK;
    await using file = await open(path, flags);
    if (!(await file.stat()).isFile()) throw new StrataError("Invalid", "buildah wrote no archive");
    await use(file.createReadStream({ autoClose: false, highWaterMark: 1024 ** 2 }));
    await rm(path, { force: true });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { cgroups, group, end } = this.#options;
    try {
      await this.#limit({ memoryMib: toolMemoryMib, cpus: 1 });
      await this.#tidy(AbortSignal.timeout(toolTimeoutMs)).catch(() => {}); // the next session tries again
    } finally {
      await end();
      await cgroups.remove(this.#group);
      await cgroups.remove(group).catch(() => {}); // another builder is at work in it
    }
  }

  /** The newest results stay, with all that is as new; so does what they were made from. */
  async #tidy(signal: AbortSignal): Promise<void> {
    // A step that was ended leaves its container.
    await this.#buildah(["rm", "--all"], { signal });
    const { stdout } = await this.#expect(["images", "--json"], signal);
    const images = imagesSchema.parse(JSON.parse(stdout)) ?? [];
    const named = (repo: string) =>
      images
        .flatMap(({ names, created }) => (names ?? []).map((name) => ({ name, created: created ?? 0 })))
        .filter(({ name }) => name.startsWith(`${repo}:`))
        .sort((a, b) => timeOf(b.name, b.created) - timeOf(a.name, a.created));
    const builds = named(buildRepo);
    const oldest = builds.at(keptBuilds - 1);
    const since = oldest ? timeOf(oldest.name, oldest.created) / 1000 : 0;
    const old = [
      ...[...builds.slice(keptBuilds), ...named(baseRepo).slice(keptBases)].map(({ name }) => name),
      ...images
        .filter(({ names, created }) => (names ?? []).length === 0 && (created ?? 0) < since)
        .map(({ id }) => id),
    ];
    // One that others were made from stays until these are gone.
    for (const name of old) await this.#buildah(["rmi", name], { signal });
  }

  /** The context is unpacked within the jail, and the Dockerfile put beside it. */
  async #unpack({ context, dockerfile }: BuildOrder, signal: AbortSignal): Promise<void> {
    await writeFile(join(this.#options.jail.input, "Dockerfile"), dockerfile, { mode: 0o644 });
    await using file = await open(context, "r");
    const unpack =
      "rm -rf /work/* /work/.[!.]* && mkdir /work/context && exec tar --extract --file=- --directory=/work/context --no-same-owner --no-overwrite-dir";
    const { status, stderr } = await this.#run({ args: ["sh", "-c", unpack], signal, stdin: file.fd });
    if (status === 0) return;
    throw new StrataError("Invalid", "the build's context cannot be unpacked", { detail: stderr });
  }

  /** What a build that failed got to, so that the next one, with the mistake mended, goes on from there. */
  async #keepAsCache(layer: string, name: string): Promise<void> {
    await this.#buildah(["tag", layer, name], { signal: AbortSignal.timeout(toolTimeoutMs) });
  }

  async #inspect(name: string, signal: AbortSignal): Promise<BuiltImage["config"] | undefined> {
    const { status, stdout } = await this.#buildah(["inspect", "--type", "image", name], { signal });
    if (status !== 0) return undefined;
    return inspectionSchema.safeParse(JSON.parse(stdout)).data?.Docker.config ?? {};
  }

  async #limit({ memoryMib, cpus }: BuildLimits): Promise<void> {
    const { cgroups, group } = this.#options;
    const processes = maxBuildProcesses;
    await cgroups.ensure(group, { processes, cpuWeight: buildCpuWeight });
    // What the one before left in memory is not this one's.
    await cgroups.remove(this.#group);
    await cgroups.ensure(this.#group, { memoryMib: memoryMib + ownMemoryMib, cpus, processes });
  }

  #guard(signal: AbortSignal): Disposable & { signal: AbortSignal } {
    const space = guardSpace(this.#options.jail.store, this.#options.clock);
    return {
      signal: AbortSignal.any([signal, space.signal]),
      [Symbol.dispose]: () => space[Symbol.dispose](),
    };
  }

  async #expect(args: readonly string[], signal: AbortSignal): Promise<JailEnd> {
    const end = await this.#buildah(args, { signal });
    if (end.status === 0) return end;
    const said = lastLine(end.stderr).slice(0, 500);
    throw new StrataError("Unavailable", `buildah ${args[0]} failed: ${said}`, { detail: end.stderr });
  }

  /** A buildah that did not even begin begins anew. */
  async #buildah(args: readonly string[], run: Omit<BuildahRun, "args">): Promise<JailEnd> {
    for (let tries = 1; ; tries++) {
      const end = await this.#run({ ...run, args: ["buildah", ...args] });
      if (end.status === 0 || tries === maxTries || !notBegun.test(end.stderr)) return end;
    }
  }

  #run({ timeoutMs = toolTimeoutMs, network = "none", ...run }: BuildahRun): Promise<JailEnd> {
    const { jail, idBase, cgroups } = this.#options;
    const group = this.#group;
    return runInJail({ ...jail, idBase, network, cgroups, group }, { ...run, timeoutMs });
  }
}

type BuildahRun = Omit<JailRun, "timeoutMs"> & { timeoutMs?: number; network?: BuildNetwork };

const toolMemoryMib = 1024;
/** Of each user id in a step. All together may have as many as the group, where buildah must not be the one that fails. */
const stepProcesses = maxBuildProcesses - ownProcesses;

/** Pure. @throws Invalid for more than a command line can hold. */
export function buildArguments(
  { args, target, cache }: Pick<BuildOrder, "args" | "target" | "cache">,
  name: string,
): string[] {
  const given = Object.entries(args).map(([key, value]) => `--build-arg=${key}=${value}`);
  const long = given.findIndex((argument) => Buffer.byteLength(argument) > maxArgumentBytes);
  if (long !== -1) {
    const name = Object.keys(args)[long];
    throw new StrataError(
      "Invalid",
      `spec.source.args: ${name} has more than 128 KiB, which is all that buildah can take`,
    );
  }
  if (Buffer.byteLength(given.join(" ")) > maxArgumentsBytes) {
    throw new StrataError(
      "Invalid",
      "spec.source.args has more than 1 MiB, which is all that buildah can take",
    );
  }
  return [
    ...["build", "--isolation=chroot", "--network=host", "--format=docker", "--pull=false", "--layers"],
    `--ulimit=nproc=${stepProcesses}:${stepProcesses}`,
    ...(cache && !hasProxy(args) ? [] : ["--no-cache"]),
    ...(target === undefined ? [] : [`--target=${target}`]),
    ...given,
    ...[`--tag=${name}`, "--file=/input/Dockerfile", "/work/context"],
  ];
}

function failureOf(
  status: number,
  error: string | undefined,
  stderr: string,
  printed: LastLines,
): StrataError {
  if (error !== undefined) return explainFailure(error, printed);
  if (status === killed) {
    return explainFailure(
      "buildah was killed, most likely because the build took all of its memory",
      printed,
    );
  }
  if (
    /failed to create new OS thread|pthread_create failed|fork\/exec .*temporarily unavailable/.test(stderr)
  ) {
    const message = `the build took all of the ${maxBuildProcesses} processes that it may have`;
    return explainFailure(message, printed);
  }
  const message = `buildah ended with status ${status}: ${lastLine(stderr).slice(0, 300)}`;
  return new StrataError("Unavailable", message, { detail: stderr.slice(-4000) });
}

function lastLine(text: string): string {
  return text.trim().split("\n").at(-1) ?? "";
}

/** In milliseconds; the tag of a build says when it began, whatever its layers' age. */
function timeOf(name: string, createdSeconds: number): number {
  return Number(/:(\d+)-\d+$/.exec(name)?.[1] ?? createdSeconds * 1000);
}
