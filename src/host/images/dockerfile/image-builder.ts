/**
 * What makes images of Dockerfiles: a Docker Engine, or another program that knows the format. It gets a context that was
 * checked, and gives layers; all that is Strata's own (init, kernel, service, what must be a guest's own) is the same
 * whoever builds.
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
  /** The builder's name for it. */
  id: string;
  config: NonNullable<ImageConfig["config"]>;
}

export interface ImageBuilder {
  /** For people: `the Docker Engine`. */
  readonly name: string;
  /** Why it cannot build here at the moment; undefined when it can. */
  unavailable(signal: AbortSignal): Promise<string | undefined>;
  /** Makes a root tree of an image of this host an image of the builder's, once per digest; its name, for FROM. */
  offer(digest: string, tree: { path: string; idBase: number }, signal: AbortSignal): Promise<string>;
  /**
   * Nothing of a build that failed or was aborted goes on when it settles.
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
  /** Keeps the newest results as a cache for the next builds, and removes older ones. */
  tidy(signal: AbortSignal): Promise<void>;
}
