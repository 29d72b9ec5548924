/**
 * Builds Dockerfiles with the host's Docker Engine, by the builder that its API has without a session (BuildKit's needs
 * one). Images of builds are labelled and tagged by their time; the newest are kept, since they are the cache of the next
 * builds. A build ends with its connection: the Engine kills the step that runs and removes its container.
 */
import { createReadStream } from "node:fs";
import { Readable } from "node:stream";
import { stripVTControlCharacters } from "node:util";
import type { Clock } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { type ImageApplication, readApplication } from "../../host/images/dockerfile/application.ts";
import type { BuildOrder, BuiltImage, ImageBuilder } from "../../host/images/dockerfile/image-builder.ts";
import { imageConfigSchema } from "../../host/images/layers/image-archive.ts";
import { withTreeArchive } from "../../host/images/tree-archive.ts";
import { contextWith, dockerfileName } from "./build-context-stream.ts";
import { guardSpace } from "./disk-guard.ts";
import { Engine, engineSocket, importTimeoutMs } from "./engine.ts";
import { lastMessage, messagesOf } from "./engine-messages.ts";
import { labels } from "./labels.ts";

export interface EngineBuilderOptions {
  namespace: string;
  /** Of the Engine. Default: what DOCKER_HOST says, else /var/run/docker.sock. */
  socketPath?: string;
  /** The Engine's network that the steps of a build have; left out, the Engine's default. */
  network?: string | undefined;
  clock: Clock;
}

/** Results that stay as a cache. */
const keptBuilds = 12;
/** Images of Strata that were built on, and stay for the next build. */
const keptBases = 4;
const keptErrorLines = 12;
const period = 100_000;
/** Of 1024 that a container has by default: guests and everything else come first. */
const cpuShares = 128;
/** What the Engine prints about itself, between the steps and what these say. */
const bookkeeping = /^( ---> |Removing intermediate container |Successfully (built|tagged) )/;
const saveTimeoutMs = 30 * 60_000;
const maxBuildMs = 24 * 3600_000;

export function createEngineBuilder(options: EngineBuilderOptions): ImageBuilder {
  return new EngineBuilder(options);
}

class EngineBuilder implements ImageBuilder {
  readonly name = "the Docker Engine";
  readonly #options: EngineBuilderOptions;
  readonly #engine: Engine;
  readonly #repo: string;
  #count = 0;

  constructor(options: EngineBuilderOptions) {
    this.#options = options;
    this.#engine = new Engine(() => engineSocket(options.socketPath, process.env.DOCKER_HOST));
    this.#repo = `strata.local/${options.namespace}`;
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
    const { DockerRootDir, MemTotal, NCPU } = await this.#engine.info(order.signal);
    const limits = limitsOn({ memoryBytes: MemTotal, cpus: NCPU }, order.limits);
    using space = guardSpace(DockerRootDir, clock);
    const signal = AbortSignal.any([order.signal, space.signal]);
    const printed: string[] = [];
    const seen = { layer: undefined as string | undefined, error: undefined as string | undefined };
    const name = `${this.#repo}/build:${this.#options.clock.now()}-${++this.#count}`;
    const stream = await this.#send({ ...order, limits, signal }, name);
    const stop = () => stream.destroy();
    signal.addEventListener("abort", stop, { once: true });
    try {
      for await (const message of messagesOf(stream, signal)) {
        seen.error ??= message.error;
        for (const line of stripVTControlCharacters(message.stream ?? "").split(/[\r\n]+/)) {
          seen.layer = /^ ---> ([0-9a-f]{12,64})$/.exec(line)?.[1] ?? seen.layer;
          if (line.trim() === "" || bookkeeping.test(line)) continue;
          order.onLine(line);
          printed.push(line.slice(0, 500));
          if (printed.length > keptErrorLines) printed.shift();
        }
      }
      signal.throwIfAborted();
      if (seen.error !== undefined) throw explain(seen.error, printed);
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
  async #send(order: BuildOrder, name: string): Promise<Readable> {
    const body = Readable.from(contextWith(order, createReadStream(order.context)));
    let failure: unknown;
    body.once("error", (error) => {
      failure = error;
    });
    try {
      return await this.#engine.ask(
        "build the Dockerfile",
        async (docker, abortSignal) => {
          const query = { ...this.#query(order, name), abortSignal };
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

  async tidy(signal: AbortSignal): Promise<void> {
    await this.#keepNewest(`${this.#repo}/build`, keptBuilds, signal);
    await this.#keepNewest(`${this.#repo}/base`, keptBases, signal);
  }

  async #keepNewest(repo: string, count: number, signal: AbortSignal): Promise<void> {
    const filters = JSON.stringify({ reference: [repo] });
    const found = await this.#engine.ask(
      `list images of ${repo}`,
      (docker, abortSignal) => docker.listImages({ filters, abortSignal } as object),
      { signal },
    );
    const tags = found
      .flatMap(({ RepoTags, Created }) => (RepoTags ?? []).map((tag) => ({ tag, created: Created })))
      .filter(({ tag }) => tag.startsWith(`${repo}:`))
      .sort((a, b) => timeOf(b) - timeOf(a));
    for (const { tag } of tags.slice(count)) {
      await this.#engine.call(
        `remove image ${tag}`,
        (docker, abortSignal) => docker.getImage(tag).remove({ abortSignal }),
        // 409: somebody made a container or an image of it.
        { signal, accept: [404, 409] },
      );
    }
  }

  #query({ args, target, cache, limits }: BuildOrder, name: string): Record<string, unknown> {
    const { namespace, network } = this.#options;
    const memory = limits.memoryMib * 1024 ** 2;
    return {
      ...{ t: name, dockerfile: dockerfileName, rm: true, forcerm: true, nocache: !cache || hasProxy(args) },
      ...{ memory, memswap: memory, cpuperiod: period, cpushares: cpuShares },
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

/** In milliseconds; the tag of a build says when it began, whatever its layers' age. */
function timeOf({ tag, created }: { tag: string; created: number }): number {
  return Number(/:(\d+)-\d+$/.exec(tag)?.[1] ?? created * 1000);
}

/** So that whoever builds on an image takes over its application, as with every other base. */
export function instructionsOf(application: ImageApplication): string[] {
  const { command, environment, workingDirectory, user, ports, stopSignal } = application;
  return [
    `ENTRYPOINT ${JSON.stringify(command)}`,
    ...environment.map((variable) => {
      const at = variable.indexOf("=");
      return `ENV ${variable.slice(0, at)}="${variable.slice(at + 1).replace(/["\\$]/g, "\\$&")}"`;
    }),
    `WORKDIR ${workingDirectory}`,
    ...(user ? [`USER ${user}`] : []),
    ...ports.map((port) => `EXPOSE ${port}`),
    `STOPSIGNAL ${stopSignal}`,
  ];
}

/**
 * Docker's predefined arguments reach every step and are no part of its cache's key: what was built with somebody's proxy
 * must not be found by, nor come from, another build.
 */
function hasProxy(args: BuildOrder["args"]): boolean {
  return Object.keys(args).some((name) => /^(https?|ftp|no|all)_proxy$/i.test(name));
}

/** What nobody needs to ask for (the kind's defaults): on a small host it is as much as there may be. */
const defaults = { memoryMib: 2048, cpus: 2 };

/** @throws Invalid for more than half of the host's memory, or more processors than it has. */
function limitsOn(
  host: { memoryBytes: number | undefined; cpus: number },
  limits: BuildOrder["limits"],
): BuildOrder["limits"] {
  const half = host.memoryBytes ? Math.floor(host.memoryBytes / 2 / 1024 ** 2) : Number.POSITIVE_INFINITY;
  const most = { memoryMib: half, cpus: host.cpus };
  const above = (["memoryMib", "cpus"] as const)
    .filter((name) => limits[name] > Math.max(most[name], defaults[name]))
    .map((name) => `${name} is ${limits[name]}, at most ${most[name]}`);
  if (above.length > 0) {
    const message = `spec.source.limits asks for more than this host allows: ${above.join("; ")}`;
    throw new StrataError("Invalid", message);
  }
  return {
    memoryMib: Math.min(limits.memoryMib, most.memoryMib),
    cpus: Math.min(limits.cpus, most.cpus),
  };
}

/** A step's failure in the words of the step. */
function explain(error: string, printed: readonly string[]): StrataError {
  const said = printed.join("\n").slice(-1500);
  const code = /no such host|connection refused|i\/o timeout|TLS handshake/i.test(error)
    ? "Unavailable"
    : "Invalid";
  return new StrataError(
    code,
    `the Dockerfile cannot be built: ${error.slice(0, 500)}${said ? `\n${said}` : ""}`,
  );
}
