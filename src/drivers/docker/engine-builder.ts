/**
 * Builds Dockerfiles with the host's Docker Engine, by the builder that its API has without a session (BuildKit's needs
 * one). Images of builds are labelled and tagged by their scope and time; the newest of a scope are kept, since they are the cache
 * of its next builds: the Engine is told to take cached layers from these alone (`cachefrom`), and where there are none yet, from
 * nowhere. A build ends with its connection: the Engine kills the step that runs and removes its container.
 */
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { Cgroups } from "../../host/cgroups.ts";
import { type ImageApplication, readApplication } from "../../host/images/dockerfile/application.ts";
import {
  buildCpuWeight,
  explainFailure,
  hasProxy,
  LastLines,
  limitsOn,
  maxBuildProcesses,
} from "../../host/images/dockerfile/build-limits.ts";
import { guardSpace } from "../../host/images/dockerfile/disk-guard.ts";
import type {
  BuildOrder,
  BuildSession,
  BuiltImage,
  ImageBuilder,
} from "../../host/images/dockerfile/image-builder.ts";
import { imageConfigSchema } from "../../host/images/layers/image-archive.ts";
import { withTreeArchive } from "../../host/images/tree-archive.ts";
import { run } from "../../host/run.ts";
import { contextWith, dockerfileName } from "./build-context-stream.ts";
import { Engine, engineSocket, importTimeoutMs } from "./engine.ts";
import { lastMessage, messagesOf } from "./engine-messages.ts";
import { labels } from "./labels.ts";

export interface EngineBuilderOptions {
  namespace: string;
  /** Of the Engine. Default: what DOCKER_HOST says, else /var/run/docker.sock. */
  socketPath?: string;
  /** The Engine's network that the steps of a build have; left out, the Engine's default. */
  network?: string | undefined;
  cgroups: Pick<Cgroups, "ensure" | "kill" | "remove">;
  /** Control group of all builds; the steps of this builder's are in a group below it. */
  group: string;
  clock: Clock;
}

/** Results of a scope that stay as its cache, and of all scopes together. */
const keptBuilds = 12;
const keptOfAll = 60;
/** Images of Strata that were built on, and stay for the next build. */
const keptBases = 4;
const period = 100_000;
/** Of 1024 that a container has by default: guests and everything else come first. */
const cpuShares = 128;
/** What the Engine prints about itself, between the steps and what these say. */
const bookkeeping = /^( ---> |Removing intermediate container |Successfully (built|tagged) )/;
const saveTimeoutMs = 30 * 60_000;
const maxBuildMs = 24 * 3600_000;
const tidyTimeoutMs = 60_000;

export function createEngineBuilder(options: EngineBuilderOptions): ImageBuilder {
  return new EngineBuilder(options);
}

class EngineBuilder implements ImageBuilder {
  readonly name = "the Docker Engine";
  readonly #options: EngineBuilderOptions;
  readonly #engine: Engine;
  #sessions = 0;

  constructor(options: EngineBuilderOptions) {
    this.#options = options;
    this.#engine = new Engine(() => engineSocket(options.socketPath, process.env.DOCKER_HOST));
  }

  async unavailable(signal: AbortSignal): Promise<string | undefined> {
    try {
      await this.#engine.info(signal);
      return undefined;
    } catch (error) {
      signal.throwIfAborted();
      return error instanceof Error ? error.message : String(error);
    }
  }

  open(scope: string): Promise<BuildSession> {
    this.#sessions++;
    return Promise.resolve(new EngineSession(this.#options, this.#engine, scope, () => this.#end()));
  }

  /** The Engine lets a step that was ended go on for a while: with the last session, what is left of the steps ends, and their group goes. */
  async #end(): Promise<void> {
    if (--this.#sessions > 0) return;
    const { cgroups, group } = this.#options;
    await cgroups.kill(stepsOf(group));
    await cgroups.remove(stepsOf(group));
    await cgroups.remove(group).catch(() => {}); // another builder is at work in it
  }
}

class EngineSession implements BuildSession {
  readonly #options: EngineBuilderOptions;
  readonly #engine: Engine;
  readonly #repo: string;
  readonly #scope: string;
  readonly #end: () => Promise<void>;
  #count = 0;

  constructor(options: EngineBuilderOptions, engine: Engine, scope: string, end: () => Promise<void>) {
    this.#options = options;
    this.#end = end;
    this.#engine = engine;
    this.#scope = scope;
    this.#repo = `strata.local/${options.namespace}`;
  }

  async offer(digest: string, tree: { path: string; idBase: number }, signal: AbortSignal): Promise<string> {
    const tag = digest.replace(/^sha256:/, "");
    const repo = `${this.#repo}/base`;
    const name = `${repo}:${tag}`;
    if (await this.#inspect(name, signal)) return name;
    const application = await readApplication(tree.path);
    const changes = [
      `LABEL ${labels.namespace}=${this.#options.namespace}`,
      `LABEL ${labels.build}=base`,
      ...(application ? instructionsOf(application) : []),
    ];
    const answer = await withTreeArchive(tree, (archive) =>
      this.#engine.ask(
        `import image ${name}`,
        async (docker, abortSignal) =>
          await lastMessage(await docker.importImage(archive, { repo, tag, changes, abortSignal } as object)),
        { signal, timeoutMs: importTimeoutMs },
      ),
    );
    if (answer.error === undefined) return name;
    throw new StrataError("Unavailable", `the Docker Engine cannot import image ${name}: ${answer.error}`);
  }

  async build(order: BuildOrder): Promise<BuiltImage> {
    const { clock } = this.#options;
    const { DockerRootDir, MemTotal, NCPU, CgroupDriver } = await this.#engine.info(order.signal);
    const limits = limitsOn({ memoryBytes: MemTotal, cpus: NCPU }, order.limits);
    const parent = await this.#limitAll(CgroupDriver, order.signal);
    using space = guardSpace(DockerRootDir, clock);
    const signal = AbortSignal.any([order.signal, space.signal]);
    const printed = new LastLines();
    const seen = { layer: undefined as string | undefined, error: undefined as string | undefined };
    const sources = await this.#resultsOf(this.#scope, signal);
    const name = `${this.#repo}/build-${this.#scope}:${clock.now()}-${++this.#count}`;
    const stream = await this.#send({ ...order, limits, signal }, { name, parent, sources });
    const stop = () => stream.destroy();
    signal.addEventListener("abort", stop, { once: true });
    try {
      for await (const message of messagesOf(stream, signal)) {
        seen.error ??= message.error;
        for (const line of stripVTControlCharacters(message.stream ?? "").split(/[\r\n]+/)) {
          seen.layer = /^ ---> ([0-9a-f]{12,64})$/.exec(line)?.[1] ?? seen.layer;
          if (line.trim() === "" || bookkeeping.test(line)) continue;
          order.onLine(line);
          printed.add(line);
        }
      }
      signal.throwIfAborted();
      if (seen.error !== undefined) throw explainFailure(seen.error, printed);
    } catch (error) {
      if (seen.layer) await this.#keepAsCache(seen.layer, name).catch(() => {});
      signal.throwIfAborted();
      throw error;
    } finally {
      signal.removeEventListener("abort", stop);
      stream.destroy();
    }
    const found = await this.#inspect(name, signal);
    const config = imageConfigSchema.safeParse({ config: found?.Config }).data?.config;
    if (!found) throw new StrataError("Unavailable", "the Docker Engine built an image and does not have it");
    return { id: name, config: config ?? {} };
  }

  /** The answer begins when the Engine has the whole context. */
  async #send(order: BuildOrder, how: How): Promise<Readable> {
    const body = Readable.from(contextWith(order, createReadStream(order.context)));
    let failure: unknown;
    body.once("error", (error) => {
      failure = error;
    });
    try {
      return await this.#engine.ask(
        "build the Dockerfile",
        async (docker, abortSignal) => {
          const query = { ...this.#query(order, how), abortSignal };
          return (await docker.buildImage(body, query as object)) as Readable;
        },
        { signal: order.signal, timeoutMs: maxBuildMs },
      );
    } catch (error) {
      throw failure ?? error;
    }
  }

  async save(
    id: string,
    use: (archive: AsyncIterable<Uint8Array>) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void> {
    const archive = await this.#engine.ask(`save image ${id}`, (docker) => docker.getImage(id).get(), {
      signal,
      timeoutMs: saveTimeoutMs,
    });
    await use(archive as Readable);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end().catch(() => {}); // a step that cannot be killed may still be in it
    await this.#tidy(AbortSignal.timeout(tidyTimeoutMs)).catch(() => {}); // the next session tries again
  }

  async #tidy(signal: AbortSignal): Promise<void> {
    const kept = (await this.#resultsOf(this.#scope, signal)).slice(0, keptBuilds);
    const all = await this.#resultsOf("*", signal);
    const own = `${this.#repo}/build-${this.#scope}:`;
    const old = all.filter(
      (tag, index) => index >= keptOfAll || (tag.startsWith(own) && !kept.includes(tag)),
    );
    const bases = (await this.#tagsOf(`${this.#repo}/base`, signal)).slice(keptBases);
    for (const tag of [...old, ...bases]) {
      await this.#engine.call(
        `remove image ${tag}`,
        (docker, abortSignal) => docker.getImage(tag).remove({ abortSignal }),
        // 409: somebody made a container or an image of it.
        { signal, accept: [404, 409] },
      );
    }
  }

  /** Of a scope, or of all (`*`); the newest first. */
  #resultsOf(scope: string, signal: AbortSignal): Promise<string[]> {
    return this.#tagsOf(`${this.#repo}/build-${scope}`, signal);
  }

  async #tagsOf(repo: string, signal: AbortSignal): Promise<string[]> {
    const filters = JSON.stringify({ reference: [repo] });
    const found = await this.#engine.ask(
      `list images of ${repo}`,
      (docker, abortSignal) => docker.listImages({ filters, abortSignal } as object),
      { signal },
    );
    const prefix = repo.endsWith("*") ? repo.slice(0, -1) : `${repo}:`;
    return found
      .flatMap(({ RepoTags, Created }) => (RepoTags ?? []).map((tag) => ({ tag, created: Created })))
      .filter(({ tag }) => tag.startsWith(prefix))
      .sort((a, b) => timeOf(b) - timeOf(a))
      .map(({ tag }) => tag);
  }

  /** The Engine's own limits are of each step's container, and none is of processes: these are of the group around them. */
  async #limitAll(driver: string, signal: AbortSignal): Promise<string> {
    const { cgroups, group } = this.#options;
    if (driver !== "systemd") {
      await cgroups.ensure(group, { processes: maxBuildProcesses, cpuWeight: buildCpuWeight });
      await cgroups.ensure(stepsOf(group), { processes: maxBuildProcesses });
      return `/${stepsOf(group)}`;
    }
    const slice = sliceOf(group);
    const properties = [`TasksMax=${maxBuildProcesses}`, `CPUWeight=${buildCpuWeight}`];
    await run("systemctl", ["set-property", "--runtime", slice, ...properties], { signal });
    return slice;
  }

  #query(
    { args, target, cache, limits }: BuildOrder,
    { name, parent, sources }: How,
  ): Record<string, unknown> {
    const { namespace, network } = this.#options;
    const memory = limits.memoryMib * 1024 ** 2;
    const cached = cache && !hasProxy(args) && sources.length > 0;
    return {
      ...{ t: name, dockerfile: dockerfileName, rm: true, forcerm: true, nocache: !cached },
      ...(cached && { cachefrom: JSON.stringify(sources) }),
      ...{ memory, memswap: memory, cpuperiod: period, cpushares: cpuShares, cgroupparent: parent },
      cpuquota: Math.round(limits.cpus * period),
      buildargs: JSON.stringify(args),
      labels: JSON.stringify({ [labels.namespace]: namespace, [labels.build]: "result" }),
      ...(target && { target }),
      ...(network && { networkmode: network }),
    };
  }

  /** What a build that failed got to, so that the next one, with the mistake mended, goes on from there. */
  async #keepAsCache(layer: string, name: string): Promise<void> {
    const at = name.lastIndexOf(":");
    const [repo, tag] = [name.slice(0, at), name.slice(at + 1)];
    await this.#engine.call("tag an image", (docker) => docker.getImage(layer).tag({ repo, tag }), {
      accept: [404, 409],
    });
  }

  #inspect(name: string, signal: AbortSignal) {
    return this.#engine.call(`look at image ${name}`, (docker) => docker.getImage(name).inspect(), {
      signal,
      accept: [404],
    });
  }
}

interface How {
  /** Of the result. */
  name: string;
  /** Control group or slice of the steps. */
  parent: string;
  /** Images whose layers may be taken from the cache. */
  sources: readonly string[];
}

/** systemd names a slice below another by both names: `a-b.slice` is in `a.slice`. */
export function sliceOf(group: string): string {
  return `${group.replace(/[^A-Za-z0-9]+/g, "_")}.slice`;
}

/** In milliseconds; the tag of a build says when it began, whatever its layers' age. */
function timeOf({ tag, created }: { tag: string; created: number }): number {
  return Number(/:(\d+)-\d+$/.exec(tag)?.[1] ?? created * 1000);
}

/** So that whoever builds on an image takes over its application, as with every other base. */
export function instructionsOf(application: ImageApplication): string[] {
  const { command, environment, workingDirectory, user, ports, stopSignal, volumes } = application;
  return [
    `ENTRYPOINT ${JSON.stringify(command)}`,
    ...environment.map((variable) => {
      const at = variable.indexOf("=");
      return `ENV ${variable.slice(0, at)}="${variable.slice(at + 1).replace(/["\\$]/g, "\\$&")}"`;
    }),
    `WORKDIR ${workingDirectory}`,
    ...(user ? [`USER ${user}`] : []),
    ...ports.map((port) => `EXPOSE ${port}`),
    ...(volumes ? [`VOLUME ${JSON.stringify(volumes)}`] : []),
    `STOPSIGNAL ${stopSignal}`,
  ];
}

function stepsOf(group: string): string {
  return `${group}/engine`;
}
