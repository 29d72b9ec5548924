/**
 * Builds Dockerfiles with buildah, on hosts where no Docker Engine runs: no daemon, and each scope has a store of its own, so
 * what one project built cannot be found by another. Each run of buildah is in a jail (build-jail.ts); its steps run in there by
 * chroot, with a part of Docker's capabilities and system calls.
 *
 * `DIRECTORY/SCOPE/store/` is the store; the other directories beside it are there while a session is. A store is a cache and
 * nothing else: one that cannot be opened is made anew, and those of the scopes that built last stay.
 */
import { access, chown, mkdir, readdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Clock } from "../../../../core/clock.ts";
import type { Cgroups } from "../../../cgroups.ts";
import type { BuildSession, ImageBuilder } from "../image-builder.ts";
import type { BuildNetwork } from "./build-jail.ts";
import { BuildahSession } from "./buildah-session.ts";

export interface BuildahBuilderOptions {
  /** Of the stores; made where it is missing. */
  directory: string;
  /** First host id of the range that builds run with. */
  idBase: number;
  /** `host`, `none`, or left out: one of its own. Other names are networks of a Docker Engine. */
  network?: string | undefined;
  cgroups: Pick<Cgroups, "ensure" | "procsFiles" | "kill" | "remove">;
  /** Control group of all builds of this daemon; a sub-group is made in it. */
  group: string;
  clock: Clock;
}

const programs = "/usr/bin";
/** Scopes whose stores stay. */
const keptScopes = 8;

export function createBuildahBuilder(options: BuildahBuilderOptions): ImageBuilder {
  return new BuildahBuilder(options);
}

class BuildahBuilder implements ImageBuilder {
  readonly name = "buildah";
  readonly #options: BuildahBuilderOptions;

  constructor(options: BuildahBuilderOptions) {
    this.#options = options;
  }

  async unavailable(): Promise<string | undefined> {
    const network = networkOf(this.#options.network);
    if (network === undefined) {
      return `it has no network "${this.#options.network}" (STRATA_BUILD_NETWORK), only host and none`;
    }
    const needed = network === "own" ? ["buildah", "slirp4netns"] : ["buildah"];
    const missing: string[] = [];
    for (const name of needed) {
      const found = await access(join(programs, name)).then(
        () => true,
        () => false,
      );
      if (!found) missing.push(name);
    }
    return missing.length > 0 ? `${missing.join(" and ")} not installed` : undefined;
  }

  async open(scope: string, signal: AbortSignal): Promise<BuildSession> {
    const { directory, idBase, group, cgroups, clock, network } = this.#options;
    const home = join(directory, scope);
    const at = (name: string) => join(home, name);
    await mkdir(home, { recursive: true, mode: 0o700 });
    for (const name of ["work", "input", "jail"]) {
      await rm(at(name), { recursive: true, force: true });
      // The directory above lets nobody pass but root.
      await mkdir(at(name), { mode: 0o755 });
    }
    await mkdir(at("store"), { recursive: true, mode: 0o700 });
    for (const name of ["work", "store"]) await chown(at(name), idBase, idBase);
    const jail = { jail: at("jail"), store: at("store"), work: at("work"), input: at("input") };
    const session = new BuildahSession({
      ...{ jail, idBase, network: networkOf(network) ?? "none", cgroups, group, clock },
      end: async () => {
        for (const name of ["work", "input", "jail"]) await rm(at(name), { recursive: true, force: true });
        await removeOldStores(directory);
      },
    });
    await session.recover(signal);
    return session;
  }
}

function networkOf(name: string | undefined): BuildNetwork | undefined {
  if (name === undefined) return "own";
  return name === "host" || name === "none" ? name : undefined;
}

/** A session changes its scope's directory, and so the time of it. */
async function removeOldStores(directory: string): Promise<void> {
  const found = await Promise.all(
    (await readdir(directory)).map(async (name) => {
      const path = join(directory, name);
      return { path, usedAt: (await stat(path)).mtimeMs };
    }),
  );
  found.sort((a, b) => b.usedAt - a.usedAt);
  for (const { path } of found.slice(keptScopes)) await rm(path, { recursive: true, force: true });
}
