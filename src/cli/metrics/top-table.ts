/** What `strata top` shows of each kind. Pure. */
import type { CurrentMetrics } from "../../kinds/metric-answers.ts";
import { findMetric, type MeasuredKind } from "../../kinds/metric-names.ts";
import type { Cell, Tone } from "../output.ts";
import { valueText } from "./values.ts";

interface Column {
  title: string;
  metric: string;
}

const columns: Readonly<Record<MeasuredKind, readonly Column[]>> = {
  instances: [
    { title: "CPU", metric: "cpu" },
    { title: "MEMORY", metric: "memory" },
    { title: "OF ITS", metric: "memory-percent" },
    { title: "READ", metric: "disk-read" },
    { title: "WRITTEN", metric: "disk-written" },
    { title: "RECEIVED", metric: "received" },
    { title: "SENT", metric: "sent" },
  ],
  groups: [
    { title: "MEMBERS", metric: "members" },
    { title: "DESIRED", metric: "desired" },
  ],
  hosts: [
    { title: "CPU", metric: "cpu" },
    { title: "MEMORY", metric: "memory" },
    { title: "OF ITS", metric: "memory-percent" },
    { title: "LOAD", metric: "load" },
    { title: "DISK", metric: "disk-percent" },
  ],
  "storage-pools": [
    { title: "USED", metric: "used-percent" },
    { title: "CAPACITY", metric: "capacity" },
    { title: "ALLOCATED", metric: "allocated" },
    { title: "PROMISED", metric: "promised" },
  ],
  "load-balancers": [
    { title: "REQUESTS", metric: "requests" },
    { title: "ERRORS", metric: "errors" },
    { title: "50 %", metric: "latency-50" },
    { title: "95 %", metric: "latency-95" },
    { title: "99 %", metric: "latency-99" },
    { title: "QUEUE", metric: "queue" },
    { title: "SESSIONS", metric: "sessions" },
  ],
};

export interface TopTable {
  columns: readonly string[];
  rows: readonly (readonly Cell[])[];
}

/** By default, the busiest first. */
export function defaultSort(kind: MeasuredKind): string {
  return columns[kind][0]?.metric ?? "name";
}

/** `name`, or a metric: the largest first, what lacks it last. */
export function sortMetrics(items: readonly CurrentMetrics[], by: string): CurrentMetrics[] {
  const names = (a: CurrentMetrics, b: CurrentMetrics) =>
    `${a.project ?? ""}/${a.name}` < `${b.project ?? ""}/${b.name}` ? -1 : 1;
  const value = (item: CurrentMetrics) => item.values[by] ?? Number.NEGATIVE_INFINITY;
  return [...items].sort((a, b) =>
    by === "name" || value(a) === value(b) ? names(a, b) : value(b) - value(a),
  );
}

export function topTable(kind: MeasuredKind, items: readonly CurrentMetrics[]): TopTable {
  const projects = new Set(items.map(({ project }) => project));
  const withProject = projects.size > 1;
  const own = kind === "groups" ? ["ITS OWN"] : [];
  return {
    columns: [
      "NAME",
      ...(withProject ? ["PROJECT"] : []),
      ...columns[kind].map(({ title }) => title),
      ...own,
    ],
    rows: items.map((item) => [
      item.name,
      ...(withProject ? [item.project ?? ""] : []),
      ...columns[kind].map(({ metric }) => cell(kind, metric, item.values[metric])),
      ...(kind === "groups" ? [customText(item.values)] : []),
    ]),
  };
}

function cell(kind: MeasuredKind, metric: string, value: number | undefined): Cell {
  const info = findMetric(kind, metric);
  const text = valueText(value, info?.unit ?? "count");
  if (value === undefined || value === 0) return { text, tone: "dim" };
  return info?.unit === "percent" ? { text, tone: load(value) } : text;
}

function load(percent: number): Tone {
  if (percent >= 90) return "bad";
  return percent >= 70 ? "busy" : "good";
}

function customText(values: Readonly<Record<string, number>>): string {
  return Object.entries(values)
    .filter(([metric]) => metric.startsWith("custom/"))
    .map(([metric, value]) => `${metric.slice("custom/".length)} ${valueText(value, "count")}`)
    .sort()
    .join(", ");
}
