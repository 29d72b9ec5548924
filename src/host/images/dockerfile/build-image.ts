/**
 * From a Dockerfile to an entry of the image directory: the first builder that can builds it, then what the image lacks to
 * start as every type of guest, and then its layers take the way of all layers (see import-artefact), less what must be a
 * guest's own or says when it was built.
 */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describeError, hasCode, StrataError } from "../../../core/errors.ts";
import { plainFileHeader, tarEnd, tarPadding } from "../../../core/tar-writer.ts";
import type { ImageSource } from "../../../kinds/image.ts";
import type { Progress } from "../../../kinds/kind.ts";
import { maxArtefactBytes } from "../artefact.ts";
import type { BuildLogs } from "../build-log.ts";
import { aptProxies, debianMirrors } from "../debian-build.ts";
import type { Description } from "../entry-files.ts";
import type { MakeImageOptions } from "../image-store.ts";
import { type ImportContext, importArchive, type NoteOrigin } from "../import-artefact.ts";
import type { JobDirectory } from "../job-directory.ts";
import { readImageArchive } from "../layers/image-archive.ts";
import { stepsOf } from "../layers/layer-steps.ts";
import { mergedArchive } from "../layers/merged-archive.ts";
import { applicationOf } from "./application.ts";
import type { BuildContext } from "./build-context.ts";
import { completionDockerfile, completionFiles } from "./completion.ts";
import { type BuildText, basesOf, replaceBases } from "./dockerfile-text.ts";
import { refuseForeignImages } from "./foreign-images.ts";
import type { BuildSession, BuiltImage, ImageBuilder } from "./image-builder.ts";
import { tidyTree } from "./tidy-tree.ts";

export interface BuildRequest {
  context: ImportContext;
  job: JobDirectory;
  source: Extract<ImageSource, { type: "dockerfile" }>;
  build: BuildContext;
  /** Digests of Strata's images that the Dockerfile names, and their trees, by name. */
  bases: ReadonlyMap<string, string>;
  trees: ReadonlyMap<string, { path: string; idBase: number }>;
  builders: readonly ImageBuilder[];
  /** Of the project: see ImageBuilder. */
  scope: string;
  logs: BuildLogs;
  options: MakeImageOptions;
  note: NoteOrigin;
}

type Tell = (line: string) => void;

const both = (first: Tell, second: Tell) => (line: string) => {
  first(line);
  second(line);
};

/** Share of the time when the Dockerfile's own steps are done, and when all are. */
const stepsFraction = 0.5;
const completedFraction = 0.8;

/** @throws Invalid for a name that no ready image has, and for an image that is not the project's to name. */
export async function findBases(
  text: BuildText,
  find: MakeImageOptions["findImage"],
): Promise<Map<string, string>> {
  refuseForeignImages(text);
  const found = new Map<string, string>();
  for (const name of basesOf(text)) {
    const digest = await find?.(name);
    if (digest === undefined) {
      const message = `the Dockerfile builds on strata/${name}, but this host has no image "${name}" that is ready in the project`;
      throw new StrataError("Invalid", message);
    }
    found.set(name, digest);
  }
  return found;
}

export async function buildImage(request: BuildRequest): Promise<Description> {
  const { source, options } = request;
  const { seconds } = source.limits;
  const timeout = AbortSignal.timeout(seconds * 1000);
  const signal = AbortSignal.any([options.signal, timeout]);
  await using log = options.logName === undefined ? undefined : await request.logs.open(options.logName);
  const tell = (line: string) => log?.add(line);
  try {
    const builder = await chooseBuilder(request.builders, signal);
    await using session = await builder.open(request.scope, signal);
    tell(`strata: building with ${builder.name}`);
    const built = await buildSteps(request, builder.name, session, tell, signal);
    tell("strata: completing the image");
    const completed = await complete(request, session, built, tell, signal);
    tell("strata: reading the layers");
    return await importBuilt(request, session, completed);
  } catch (error) {
    tell(`strata: ended: ${timeout.aborted ? "the time is over" : describeError(error)}`);
    options.signal.throwIfAborted();
    if (!timeout.aborted) throw error;
    const message = `the build took longer than ${seconds} s, its limit, and was ended; a build that needs more is given it with --time-limit`;
    throw new StrataError("Invalid", message, { cause: error });
  }
}

async function chooseBuilder(builders: readonly ImageBuilder[], signal: AbortSignal): Promise<ImageBuilder> {
  const reasons: string[] = [];
  for (const builder of builders) {
    const reason = await builder.unavailable(signal);
    if (reason === undefined) return builder;
    reasons.push(`${builder.name}: ${reason}`);
  }
  const message = `no program on this host can build a Dockerfile now (${reasons.join("; ") || "none is known"}); start a Docker Engine (package docker.io), or install the packages buildah and slirp4netns`;
  throw new StrataError("Unavailable", message);
}

async function buildSteps(
  request: BuildRequest,
  builderName: string,
  session: BuildSession,
  tell: Tell,
  signal: AbortSignal,
): Promise<BuiltImage> {
  const { source, build, bases, trees, options } = request;
  const names = new Map<string, string>();
  for (const [name, digest] of bases) {
    const tree = trees.get(name);
    if (!tree) continue;
    options.onProgress({ step: `handing strata/${name} to ${builderName}` });
    names.set(name, await session.offer(digest, tree, signal));
  }
  const named = { dockerfile: build.dockerfile, args: source.args };
  const text = replaceBases(named, (name) => names.get(name) ?? name);
  return await session.build({
    ...{ ...text, context: build.path, target: source.target },
    ...{ cache: source.cache, limits: source.limits, signal },
    onLine: both(tell, progressOf(options.onProgress, 0, stepsFraction)),
  });
}

async function complete(
  request: BuildRequest,
  session: BuildSession,
  built: BuiltImage,
  tell: Tell,
  signal: AbortSignal,
): Promise<BuiltImage> {
  const { job, source, options } = request;
  const application = applicationOf(built.config);
  const [mirrors, proxies] = await Promise.all([debianMirrors(signal), aptProxies(signal)]);
  const files = completionFiles({ application, mirrors, proxies });
  const dockerfile = completionDockerfile(built.id);
  const context = join(job.path, "completion.tar");
  await writeFile(context, Buffer.concat([...[...files].map(([name, text]) => member(name, text)), tarEnd]));
  try {
    return await session.build({
      ...{ context, dockerfile, args: {}, cache: source.cache, limits: source.limits, signal },
      onLine: both(tell, progressOf(options.onProgress, stepsFraction, completedFraction, "completing")),
    });
  } catch (error) {
    if (!hasCode(error, "Invalid")) throw error;
    throw explainIncomplete(error as StrataError);
  }
}

function explainIncomplete(error: StrataError): StrataError {
  const system = /strata: refused: ([^\n]*)/.exec(error.message)?.[1];
  const reason =
    system === undefined
      ? error.message
      : `it holds ${system}, and Strata knows how to add these from Debian and Ubuntu only; install them in the Dockerfile`;
  return new StrataError(
    "Invalid",
    `the Dockerfile is built, but an init and a kernel cannot be added to what came out, so it would not start everywhere: ${reason}`,
    { cause: error },
  );
}

async function importBuilt(
  request: BuildRequest,
  session: BuildSession,
  completed: BuiltImage,
): Promise<Description> {
  const { context, job, options, note } = request;
  const { signal, onProgress } = options;
  onProgress({ step: "reading the layers", fraction: completedFraction });
  const read = Promise.withResolvers<Awaited<ReturnType<typeof readImageArchive>>>();
  await session.save(
    completed.id,
    async (archive) => read.resolve(await readImageArchive(archive, job.path, maxArtefactBytes, signal)),
    signal,
  );
  const { layers, config } = await read.promise;
  note({ steps: stepsOf(config) });
  const archive = mergedArchive(layers, context.limits, signal, tidyTree);
  return importArchive(context, job, options, { archive, packedBytes: () => Number.POSITIVE_INFINITY });
}

/** `Step 3/7 : RUN …` of the Engine, `STEP 3/7: RUN …` of buildah; other lines tell what the step is at. */
export function progressOf(
  onProgress: (progress: Progress) => void,
  from: number,
  to: number,
  title?: string,
): (line: string) => void {
  let step = title ?? "";
  let fraction = from;
  return (line) => {
    const found = /^step (\d+)\/(\d+) ?: (.*)$/i.exec(line);
    if (found) {
      const [, number = "1", count = "1", text = ""] = found;
      fraction = from + ((to - from) * (Number(number) - 1)) / Number(count);
      step = title ?? `${number}/${count} ${text.slice(0, 80)}`;
      onProgress({ step, fraction });
    } else if (line.trim() !== "") {
      const said = line
        .replace(/\p{Cc}/gu, " ")
        .trim()
        .slice(0, 100);
      onProgress({ step: step === "" ? said : `${step}: ${said}`, fraction });
    }
  };
}

function member(path: string, text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([plainFileHeader(path, bytes.length), bytes, tarPadding(bytes.length)]);
}
