/** What is measured of whom: names, units, and what they mean. Shared by server, command line and documentation. */
import { closest } from "../core/spelling.ts";

export type MetricUnit = "percent" | "mebibytes" | "bytes/s" | "per second" | "ms" | "count";

export interface MetricInfo {
  unit: MetricUnit;
  summary: string;
}

const machineMemory = {
  memory: { unit: "mebibytes", summary: "memory in use" },
  "memory-percent": { unit: "percent", summary: "memory in use, of what there is" },
} as const;

/** By the plural of the kind. */
export const metricsOfKinds = {
  instances: {
    cpu: { unit: "percent", summary: "use of the CPUs promised to it" },
    memory: { unit: "mebibytes", summary: "memory in use" },
    "memory-percent": { unit: "percent", summary: "memory in use, of what was promised to it" },
    "disk-read": { unit: "bytes/s", summary: "read from disks" },
    "disk-written": { unit: "bytes/s", summary: "written to disks" },
    received: { unit: "bytes/s", summary: "received by its network cards" },
    sent: { unit: "bytes/s", summary: "sent by its network cards" },
  },
  "load-balancers": {
    requests: { unit: "per second", summary: "requests answered" },
    errors: { unit: "per second", summary: "answers of 5xx, and requests refused" },
    "latency-50": { unit: "ms", summary: "time to answer that half of the requests stay below" },
    "latency-90": { unit: "ms", summary: "time to answer that 90 % of the requests stay below" },
    "latency-95": { unit: "ms", summary: "time to answer that 95 % of the requests stay below" },
    "latency-99": { unit: "ms", summary: "time to answer that 99 % of the requests stay below" },
    queue: { unit: "count", summary: "requests that wait or are held" },
    sessions: { unit: "count", summary: "connections of clients now" },
  },
  groups: {
    members: { unit: "count", summary: "members that are to serve" },
    desired: { unit: "count", summary: "members it should have" },
  },
  hosts: {
    cpu: { unit: "percent", summary: "use of all its CPUs" },
    ...machineMemory,
    load: { unit: "count", summary: "load average of the last minute" },
    "disk-percent": { unit: "percent", summary: "use of the file system of the state directory" },
  },
  "storage-pools": {
    "used-percent": { unit: "percent", summary: "use of its file system, of what can be written" },
    capacity: { unit: "mebibytes", summary: "size of its file system" },
    used: { unit: "mebibytes", summary: "use of its file system, by whatever is on it" },
    allocated: { unit: "mebibytes", summary: "blocks of its volumes and snapshots" },
    promised: { unit: "mebibytes", summary: "sizes of its volumes" },
  },
} as const satisfies Record<string, Record<string, MetricInfo>>;

export type MeasuredKind = keyof typeof metricsOfKinds;
export const measuredKinds = Object.keys(metricsOfKinds) as MeasuredKind[];

export function isMeasuredKind(plural: string): plural is MeasuredKind {
  return Object.hasOwn(metricsOfKinds, plural);
}

const customName = /^custom\/[a-z][a-z0-9-]{0,62}$/;
/** A balancer's metric of one instance: `requests@UID`. */
const ofServer = /^([a-z0-9-]{1,40})@[0-9a-hjkmnp-tv-z]{16}$/;

export const customMetricRule = "1 to 63 of a-z, 0-9 and '-', starting with a letter";

/** Undefined for a metric that the kind does not have. */
export function findMetric(kind: MeasuredKind, metric: string): MetricInfo | undefined {
  if (kind === "groups" && customName.test(metric)) return { unit: "count", summary: "pushed to the API" };
  const base = kind === "load-balancers" ? (ofServer.exec(metric)?.[1] ?? metric) : metric;
  const known: Readonly<Record<string, MetricInfo>> = metricsOfKinds[kind];
  return Object.hasOwn(known, base) ? known[base] : undefined;
}

/** Names for messages: what the kind has. */
export function metricNames(kind: MeasuredKind): string[] {
  return [...Object.keys(metricsOfKinds[kind]), ...(kind === "groups" ? ["custom/NAME"] : [])];
}

/** A name that the kind has and that is near. */
export function nearMetric(kind: MeasuredKind, metric: string): string | undefined {
  return closest(metric, Object.keys(metricsOfKinds[kind]));
}
