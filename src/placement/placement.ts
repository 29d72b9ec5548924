/**
 * Which host a new instance or image goes to: filters say which hosts can take it, a score chooses among those. Pure:
 * the same hosts and use give the same answer.
 *
 * Memory is never promised twice; CPUs up to the host's overcommit. Disks grow as they are written, so a disk must fit
 * into what is free now, and is not counted against others.
 */
import { formatMib } from "../core/units.ts";
import type { Host } from "../kinds/host.ts";
import type { InstanceSpec } from "../kinds/instance.ts";

export interface Use {
  cpus: number;
  memoryMib: number;
  instances: number;
}

export interface Candidate {
  host: Host;
  /** Promised to instances placed there already. */
  use: Use;
  /** Members there of the group that the instance belongs to, where they shall be spread. */
  siblings?: number;
}

export type InstanceRequest = Pick<InstanceSpec, "type" | "driver" | "cpus" | "memoryMib" | "diskMib"> & {
  /** The host that has the image; undefined while no host was given the image. */
  imageHost: string | undefined;
};

export type Placement = { host: string } | { message: string };

type Filter<Request> = (candidate: Candidate, request: Request) => string | undefined;

export function placeInstance(request: InstanceRequest, candidates: Iterable<Candidate>): Placement {
  return choose(request, candidates, [...hostFilters, image, driver, memory, cpus, disk], (candidate) =>
    preference(candidate, request),
  );
}

/** `images`: how many were given to each host. */
export function placeImage(candidates: Iterable<Candidate>, images: ReadonlyMap<string, number>): Placement {
  return choose(undefined, candidates, hostFilters, ({ host }) => -(images.get(host.metadata.name) ?? 0));
}

function choose<Request>(
  request: Request,
  candidates: Iterable<Candidate>,
  filters: readonly Filter<Request>[],
  score: (candidate: Candidate) => number,
): Placement {
  let best: { name: string; score: number } | undefined;
  const refusals: string[] = [];
  for (const candidate of candidates) {
    const { name } = candidate.host.metadata;
    const refusal = firstRefusal(candidate, request, filters);
    if (refusal !== undefined) {
      refusals.push(`${name} ${refusal}`);
      continue;
    }
    const own = score(candidate);
    if (!best || own > best.score || (own === best.score && name < best.name)) best = { name, score: own };
  }
  return best ? { host: best.name } : { message: explain(refusals) };
}

function firstRefusal<Request>(
  candidate: Candidate,
  request: Request,
  filters: readonly Filter<Request>[],
): string | undefined {
  for (const filter of filters) {
    const refusal = filter(candidate, request);
    if (refusal !== undefined) return refusal;
  }
  return undefined;
}

/** Hosts named in one message. */
const hostsInMessage = 8;

function explain(refusals: readonly string[]): string {
  if (refusals.length === 0) return "no host can take it: none is registered; start the agent on a machine";
  const named = refusals.slice(0, hostsInMessage).join("; ");
  const more = refusals.length > hostsInMessage ? `; and ${refusals.length - hostsInMessage} more` : "";
  return `no host can take it: ${named}${more}`;
}

const ready: Filter<unknown> = ({ host }) => {
  if (host.status.state === "ready") return undefined;
  return `is not ready (${host.status.message || "no reason given"})`;
};

const cordoned: Filter<unknown> = ({ host }) => (host.spec.cordoned ? "is cordoned" : undefined);

const hostFilters: readonly Filter<unknown>[] = [ready, cordoned];

const image: Filter<InstanceRequest> = ({ host }, { imageHost }) =>
  imageHost === host.metadata.name ? undefined : "does not have the image";

const driver: Filter<InstanceRequest> = ({ host }, request) => {
  const known = Object.entries(host.status.drivers);
  const wanted = known.filter(([name]) => request.driver === undefined || name === request.driver);
  const able = wanted.some(([, { available, types }]) => available && types.includes(request.type));
  if (able) return undefined;
  const why = wanted
    .filter(([, fingerprint]) => !fingerprint.available && fingerprint.message !== "")
    .map(([name, fingerprint]) => `${name}: ${fingerprint.message}`)
    .join(", ");
  const what = `has no working ${request.driver === undefined ? "driver" : `driver "${request.driver}"`} for a ${request.type}`;
  return why === "" ? what : `${what} (${why.slice(0, 300)})`;
};

const memory: Filter<InstanceRequest> = ({ host, use }, { memoryMib }) => {
  const free = host.status.allocatable.memoryMib - use.memoryMib;
  if (memoryMib <= free) return undefined;
  return `has ${formatMib(Math.max(0, free))} of memory free, ${formatMib(memoryMib)} needed`;
};

const cpus: Filter<InstanceRequest> = ({ host, use }, request) => {
  const free = Math.floor(host.status.allocatable.cpus * host.spec.cpuOvercommit) - use.cpus;
  return request.cpus <= free
    ? undefined
    : `has ${Math.max(0, free)} CPUs left to promise, ${request.cpus} needed`;
};

const disk: Filter<InstanceRequest> = ({ host }, { diskMib }) => {
  const free = host.status.allocatable.diskMib;
  return diskMib <= free ? undefined : `has ${formatMib(free)} of disk free, ${formatMib(diskMib)} needed`;
};

/**
 * The host with the fewest members of the same group; of several, the one with the largest share of memory, then of CPUs, that
 * stays free.
 */
export function preference({ host, use, siblings = 0 }: Candidate, request: InstanceRequest): number {
  const { memoryMib, cpus: real } = host.status.allocatable;
  const freeMemory = 1 - (use.memoryMib + request.memoryMib) / Math.max(1, memoryMib);
  const freeCpus = 1 - (use.cpus + request.cpus) / Math.max(1, real * host.spec.cpuOvercommit);
  // What is free is at most 1.001.
  return freeMemory + freeCpus / 1000 - 2 * siblings;
}
