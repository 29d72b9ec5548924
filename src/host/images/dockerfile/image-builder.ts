/**
 * What makes images of Dockerfiles: a Docker Engine, or another program that knows the format. It gets a context that was
 * checked, and gives layers; all that is Strata's own (init, kernel, service, what must be a guest's own) is the same
 * whoever builds. `builder-conformance.ts` is what every builder must do.
 */
import type { ImageConfig } from "../layers/image-archive.ts";

export interface BuildLimits {
  /** Of each step; never continued on swap. */
  memoryMib: number;
  /** Processor time per time; fractions are allowed. */
  cpus: number;
}

export interface BuildOrder {
  /** A tar on this host. */
  context: string;
  /** What is built; the one in the context may read otherwise, and is a file like any other. */
  dockerfile: string;
  args: Readonly<Record<string, string>>;
  /** The stage to build; left out, the last one. */
  target?: string | undefined;
  /** False: every step is made anew. */
  cache: boolean;
  limits: BuildLimits;
  signal: AbortSignal;
  /** Each line that the build prints, its steps included. */
  onLine(line: string): void;
}

export interface BuiltImage {
  /** The builder's name for it, for `FROM` of the same session. */
  id: string;
  config: NonNullable<ImageConfig["config"]>;
}

export interface ImageBuilder {
  /** For people: `the Docker Engine`. */
  readonly name: string;
  /** Why it cannot build here at the moment; undefined when it can. */
  unavailable(signal: AbortSignal): Promise<string | undefined>;
  /**
   * Begins builds of one scope (a key of a project: lower-case letters and digits). What one scope built is never a cache
   * for another, since a step's result may hold what only that project could reach when it ran. One session at a time on a
   * host: the caller sees to it. What a killed session left is removed here.
   */
  open(scope: string, signal: AbortSignal): Promise<BuildSession>;
}

/** Disposal keeps the newest results as the scope's cache, and removes older ones. */
export interface BuildSession extends AsyncDisposable {
  /** Makes a root tree of an image of this host an image of the builder's, once per digest; its name, for FROM. */
  offer(digest: string, tree: { path: string; idBase: number }, signal: AbortSignal): Promise<string>;
  /**
   * No step of a build may have more than its limits of memory, processors and processes. Nothing of a build that failed or
   * was aborted goes on when it settles; the layers it had made are a cache for the next one.
   * @throws Invalid for a step that fails or a Dockerfile that is wrong, with the last lines it printed; Unavailable when
   * the builder is; the signal's reason.
   */
  build(order: BuildOrder): Promise<BuiltImage>;
  /** Calls `use` with the image as an archive of layers, as `docker save` or an OCI layout. */
  save(
    id: string,
    use: (archive: AsyncIterable<Uint8Array>) => Promise<void>,
    signal: AbortSignal,
  ): Promise<void>;
}
