import type { Sample } from "../metrics/metric-store.ts";

/**
 * Samples as Prometheus reads them: the text format, version 0.0.4
 * (https://prometheus.io/docs/instrumenting/exposition_formats/). Units are base units where there are some: bytes, seconds.
 */
export const expositionType = "text/plain; version=0.0.4; charset=utf-8";

export interface Family {
  name: string;
  help: string;
  type: "gauge" | "counter";
  values: { labels: Readonly<Record<string, string>>; value: number }[];
}

interface Shape {
  name: string;
  help: string;
  factor?: number;
  labels?: Readonly<Record<string, string>>;
}

const mebibyte = 1024 ** 2;
const perSecond = "per second, over the last round";

function latency(quantile: string): Shape {
  return {
    name: "latency_seconds",
    help: "Time to answer, by quantile.",
    factor: 1e-3,
    labels: { quantile },
  };
}

/** By kind and metric (kinds/metric-names.ts). */
const shapes: Readonly<Record<string, Readonly<Record<string, Shape>>>> = {
  instances: {
    cpu: { name: "cpu_percent", help: "Use of the CPUs promised to the instance." },
    memory: { name: "memory_bytes", help: "Memory in use.", factor: mebibyte },
    "memory-percent": { name: "memory_percent", help: "Memory in use, of what was promised." },
    "disk-read": { name: "disk_read_bytes_per_second", help: `Bytes read ${perSecond}.` },
    "disk-written": { name: "disk_written_bytes_per_second", help: `Bytes written ${perSecond}.` },
    received: { name: "network_received_bytes_per_second", help: `Bytes received ${perSecond}.` },
    sent: { name: "network_sent_bytes_per_second", help: `Bytes sent ${perSecond}.` },
  },
  "load-balancers": {
    requests: { name: "requests_per_second", help: `Requests answered ${perSecond}.` },
    errors: { name: "errors_per_second", help: `Answers of 5xx and refused requests ${perSecond}.` },
    "latency-50": latency("0.5"),
    "latency-90": latency("0.9"),
    "latency-95": latency("0.95"),
    "latency-99": latency("0.99"),
    queue: { name: "queue_requests", help: "Requests that wait or are held." },
    sessions: { name: "sessions", help: "Connections of clients now." },
  },
  groups: {
    members: { name: "members", help: "Members that are to serve." },
    desired: { name: "desired_members", help: "Members the group should have." },
  },
  hosts: {
    cpu: { name: "cpu_percent", help: "Use of all CPUs of the host." },
    memory: { name: "memory_bytes", help: "Memory in use.", factor: mebibyte },
    "memory-percent": { name: "memory_percent", help: "Memory in use, of what there is." },
    load: { name: "load1", help: "Load average of the last minute." },
    "disk-percent": { name: "disk_percent", help: "Use of the file system of the state directory." },
  },
  "storage-pools": {
    "used-percent": { name: "used_percent", help: "Use of its file system, of what can be written." },
    capacity: { name: "capacity_bytes", help: "Size of its file system.", factor: mebibyte },
    used: { name: "used_bytes", help: "Use of its file system, by whatever is on it.", factor: mebibyte },
    allocated: { name: "allocated_bytes", help: "Blocks of its volumes and snapshots.", factor: mebibyte },
    promised: { name: "promised_bytes", help: "Sizes of its volumes.", factor: mebibyte },
  },
};

const prefixes: Readonly<Record<string, string>> = {
  instances: "instance",
  "load-balancers": "load_balancer",
  groups: "group",
  hosts: "host",
  "storage-pools": "storage_pool",
};

/** Families in the order of their names; what has no shape is left out. */
export function familiesOf(samples: Iterable<Sample>): Family[] {
  const families = new Map<string, Family>();
  for (const { subject, uid, metric, value } of samples) {
    const [, plural = "", first = "", second] = subject.split("/");
    const prefix = prefixes[plural];
    const shape = shapeOf(plural, metric);
    if (!prefix || !shape) continue;
    const name = `strata_${prefix}_${shape.name}`;
    let family = families.get(name);
    if (!family) {
      family = { name, help: shape.help, type: "gauge", values: [] };
      families.set(name, family);
    }
    const place = second === undefined ? { [prefix]: first } : { project: first, [prefix]: second };
    family.values.push({ labels: { ...place, uid, ...shape.labels }, value: value * (shape.factor ?? 1) });
  }
  return [...families.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
}

function shapeOf(plural: string, metric: string): Shape | undefined {
  if (metric.startsWith("custom/")) {
    return { name: "custom", help: "Pushed to the API.", labels: { metric: metric.slice("custom/".length) } };
  }
  const [base = "", server] = metric.split("@");
  const shape = shapes[plural]?.[base];
  if (!shape || server === undefined) return shape;
  // Of one instance: a family of its own, or sums over the balancers would count everything twice.
  return { ...shape, name: `server_${shape.name}`, labels: { ...shape.labels, instance_uid: server } };
}

export function renderExposition(families: readonly Family[]): string {
  return families.map(renderFamily).join("");
}

function renderFamily({ name, help, type, values }: Family): string {
  const lines = values.map(({ labels, value }) => `${name}${renderLabels(labels)} ${renderValue(value)}\n`);
  return `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function renderLabels(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeValue(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeValue(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}

/** As Go's ParseFloat reads it. */
function renderValue(value: number): string {
  if (Number.isFinite(value)) return String(value);
  return Number.isNaN(value) ? "NaN" : value > 0 ? "+Inf" : "-Inf";
}
