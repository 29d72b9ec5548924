/**
 * What a container's root has become, as the Engine tells it, whatever it keeps layers in: which paths changed, and of
 * each what it is now. Where mounts were put into the root, the Engine made directories and files for them: these are no
 * doing of the guest.
 */
import { createHash } from "node:crypto";
import type { Readable } from "node:stream";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { needsContent } from "../../host/drift/compare-roots.ts";
import { DriftBudget } from "../../host/drift/drift-limits.ts";
import { readTar, type TarEntry } from "../../host/images/tar-reader.ts";
import type { RootEntry, RootListing } from "../../kinds/drift.ts";
import type { Drift, DriftRequest } from "../driver.ts";
import type { DockerAccess } from "./docker-access.ts";
import type { ContainerInfo, Engine } from "./engine.ts";
import { runIdOf } from "./run-state.ts";

interface Change {
  /** Absolute. */
  Path: string;
  Kind: number;
}

const deleted = 2;
const concurrency = 8;

export function dockerDrift(access: DockerAccess): Drift<JsonObject> {
  return {
    async read(handle, { original }, signal) {
      signal.throwIfAborted();
      const uid = access.uidOf(handle);
      const container = await access.container(uid, signal);
      if (container === undefined) throw new StrataError("NotFound", `the container ${uid} does not exist`);
      const { engine } = access;
      const answer: unknown = await engine.ask(
        "tell what changed in a container",
        (docker, abortSignal) => docker.getContainer(container.Id).changes({ abortSignal } as object),
        { signal },
      );
      const changes = ((answer ?? []) as Change[]).filter(({ Path }) => !isMount(Path, container, original));
      const budget = new DriftBudget();
      for (const { Path } of changes) budget.path(Path);
      const look = (path: string) => lookInside(engine, container, path, original.get(path), signal);
      const listings = listingsOf(changes, original, await lookAll(changes, look));
      const after = await access.container(uid, signal);
      const ran =
        container.State.Running || (after !== undefined && runIdOf(after.State) !== runIdOf(container.State));
      return { listings, reading: ran ? "running" : "idle" };
    },
  };
}

async function lookAll(
  changes: readonly Change[],
  look: (path: string) => Promise<RootEntry | undefined>,
): Promise<Map<string, RootEntry>> {
  const paths = changes.filter(({ Kind }) => Kind !== deleted).map(({ Path }) => Path.slice(1));
  const found = new Map<string, RootEntry>();
  for (let at = 0; at < paths.length; at += concurrency) {
    const some = await Promise.all(paths.slice(at, at + concurrency).map(look));
    for (const entry of some) if (entry) found.set(entry.path, entry);
  }
  return found;
}

/** A place of a mount, or a directory that leads there alone. */
function isMount(path: string, { Mounts }: ContainerInfo, original: DriftRequest["original"]): boolean {
  return Mounts.some(
    ({ Destination }) =>
      Destination === path || (Destination.startsWith(`${path}/`) && !original.has(path.slice(1))),
  );
}

/** Each directory in which something changed. */
export function listingsOf(
  changes: readonly Change[],
  original: DriftRequest["original"],
  found: ReadonlyMap<string, RootEntry>,
): RootListing[] {
  const parents = new Map<string, { gone: Set<string>; entries: RootEntry[] }>();
  for (const { Path, Kind } of changes) {
    const path = Path.slice(1);
    const slash = path.lastIndexOf("/");
    const parent = path.slice(0, Math.max(0, slash));
    const here = parents.get(parent) ?? { gone: new Set<string>(), entries: [] };
    parents.set(parent, here);
    const entry = found.get(path);
    if (entry) here.entries.push(entry);
    else if (Kind === deleted) here.gone.add(path.slice(slash + 1));
  }
  const names = new Map<string, string[]>([...parents.keys()].map((path) => [path, []]));
  for (const path of original.keys()) {
    const slash = path.lastIndexOf("/");
    const parent = path.slice(0, Math.max(0, slash));
    const name = path.slice(slash + 1);
    if (path !== "" && !parents.get(parent)?.gone.has(name)) names.get(parent)?.push(name);
  }
  return [...parents].map(([path, { entries }]) => {
    const now = entries.map((entry) => entry.path.slice(entry.path.lastIndexOf("/") + 1));
    return { path, names: [...new Set([...(names.get(path) ?? []), ...now])], entries };
  });
}

/** Undefined when it has gone meanwhile. */
async function lookInside(
  engine: Engine,
  { Id }: ContainerInfo,
  path: string,
  before: RootEntry | undefined,
  signal: AbortSignal,
): Promise<RootEntry | undefined> {
  const archive = await engine.call(
    "read a container's file",
    (docker, abortSignal) =>
      docker.getContainer(Id).getArchive({ path: `/${path}`, abortSignal } as { path: string }),
    { signal, accept: [404] },
  );
  if (archive === undefined) return undefined;
  try {
    // The first member is what was asked for; a directory's content follows, and is not waited for.
    for await (const member of readTar(archive as Readable)) return await entryOf(path, member, before);
    return undefined;
  } finally {
    (archive as Readable).destroy();
  }
}

async function entryOf(path: string, member: TarEntry, before: RootEntry | undefined): Promise<RootEntry> {
  const { mode, uid, gid, sizeBytes, target, attributes } = member;
  const common = { path, mode: mode & 0o7777, uid, gid };
  switch (member.type) {
    case "symlink":
      return { ...common, type: "symlink", target };
    case "directory":
    case "fifo":
      return { ...common, type: member.type };
    case "character":
    case "block":
      return { ...common, type: "device" };
    case "file":
    case "hardlink": {
      const capability = Buffer.from(attributes.get("security.capability") ?? []).toString("hex");
      const file: RootEntry = { ...common, type: "file", sizeBytes, capability };
      if (!needsContent(before, sizeBytes)) return file;
      const sum = createHash("sha256");
      for await (const chunk of member.content) sum.update(chunk);
      return { ...file, sha256: sum.digest("hex") };
    }
  }
}
