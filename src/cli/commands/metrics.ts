/** What is measured: `top` for now, `metrics` over time. */

import { fromTimestamp, toTimestamp } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { Json } from "../../core/json.ts";
import { didYouMean } from "../../core/spelling.ts";
import type { Kind } from "../../kinds/kind.ts";
import type { CurrentMetrics, MetricSeries } from "../../kinds/metric-answers.ts";
import { findMetric, type MeasuredKind, metricNames } from "../../kinds/metric-names.ts";
import { findKind } from "../../kinds/registry.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import { parseDuration } from "../metrics/duration.ts";
import { bySteps, sparkline } from "../metrics/sparkline.ts";
import { defaultSort, sortMetrics, topTable } from "../metrics/top-table.ts";
import { valueText } from "../metrics/values.ts";
import type { Output } from "../output.ts";
import { kindTitle, resolve } from "../resolve.ts";
import { Screen } from "../screen.ts";

const refreshMs = 2_000;
/** Characters of a sparkline. */
const sparkSteps = 60;
/** Rows of `metrics --metric`. */
const tableRows = 12;

const words = ["instances", "groups", "hosts", "balancers", "pools"] as const;
const kindOfWord: Readonly<Record<string, MeasuredKind>> = {
  instances: "instances",
  groups: "groups",
  hosts: "hosts",
  balancers: "load-balancers",
  pools: "storage-pools",
};

const nothing =
  "nothing is measured right now: samples come every ten seconds from what runs, and every second from members of groups";

export const metricCommands: readonly CommandSpec[] = [
  {
    path: "top",
    group: "Instances",
    summary: "Show what instances, groups, hosts, balancers or storage pools are doing, live",
    arguments: [{ name: "[what]", summary: "of what (default: instances)", choices: words }],
    options: [
      { flags: "--once", summary: "show it once and end" },
      { flags: "--sort <metric>", summary: "the largest first, or by name (default: the first column)" },
    ],
    examples: [
      "strata top",
      "strata top --sort memory",
      "strata top balancers --project campus",
      "strata top hosts --once --json",
    ],
    run: top,
  },
  {
    path: "metrics",
    group: "Instances",
    summary: "Show what something did over time",
    arguments: [{ name: "<name>", summary: "name or beginning of the id", completes: "instances" }],
    options: [
      { flags: "--of <what>", summary: "what it is (default: instances)", choices: words },
      { flags: "--metric <name>", summary: "this one in detail (default: all of them)" },
      { flags: "--since <time>", summary: "how far back, such as 15m, 2h or 7d (default: 1h)" },
    ],
    examples: [
      "strata metrics lms",
      "strata metrics lms --metric cpu --since 7d",
      "strata metrics enrollment --of groups --metric custom/students",
    ],
    run: metrics,
  },
];

async function top(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const kind = kindOfWord[args[0] ?? "instances"] ?? "instances";
  const by = options.text("sort") ?? defaultSort(kind);
  if (by !== "name") requireMetric(kind, by, "--sort");
  const client = await session.client();
  const scope = session.projectGiven && kind !== "hosts" ? { project: session.project } : {};
  const read = async () =>
    sortMetrics(await client.currentMetrics(kind, scope, { signal: session.signal }), by);
  const live = session.streams.stdout.isTTY && !options.flag("once") && !session.printer.json;
  if (!live) {
    const items = await read();
    return { type: "table", ...topTable(kind, items), empty: nothing, json: items as unknown as Json };
  }
  await watchTop(session, kind, read);
  return { type: "done" };
}

/** Until Ctrl-C, which is how it is meant to end. */
async function watchTop(
  session: Session,
  kind: MeasuredKind,
  read: () => Promise<CurrentMetrics[]>,
): Promise<void> {
  const { clock, signal, printer } = session;
  // Whatever is wrong from the beginning is told as of any command.
  let items = await read();
  const screen = new Screen(session.streams.stdout);
  let trouble = "";
  try {
    while (!signal.aborted) {
      const { columns, rows } = topTable(kind, items);
      const table = rows.length === 0 ? nothing : printer.tableText(columns, rows);
      const title = `${kind.replace("-", " ")}: ${rows.length} measured, ${toTimestamp(clock.now()).slice(11, 19)} UTC`;
      screen.draw([`${printer.paint(title, "dim")}${trouble}`, "", ...table.split("\n")]);
      await clock.sleep(refreshMs, signal);
      try {
        items = await read();
        trouble = "";
      } catch (error) {
        trouble = `  ${printer.paint(error instanceof Error ? error.message : String(error), "bad")}`;
      }
    }
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    screen.close();
  }
}

async function metrics(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const kind = kindOfWord[options.text("of") ?? "instances"] ?? "instances";
  const metric = options.text("metric");
  if (metric !== undefined) requireMetric(kind, metric, "--metric");
  const sinceMs = parseDuration("since", options.text("since") ?? "1h");
  const client = await session.client();
  const resourceKind = findKind(kind) as Kind;
  const { metadata } = await resolve(client, resourceKind, session.project, args[0] ?? "", session.signal);
  const { name, project } = metadata;
  const ref = project === undefined ? { name } : { project, name };
  const until = session.clock.now();
  const read = (one: string) =>
    client.metricSeries(
      {
        kind,
        ref,
        metric: one,
        from: toTimestamp(until - sinceMs),
        until: toTimestamp(until),
        stepSeconds: Math.max(1, Math.ceil(sinceMs / 1_000 / sparkSteps)),
      },
      { signal: session.signal },
    );
  if (metric !== undefined) return oneMetric(session, kindTitle(resourceKind), await read(metric));
  const current = await client.currentMetrics(kind, project === undefined ? {} : { project }, {
    signal: session.signal,
  });
  const custom = Object.keys(current.find(({ uid }) => uid === metadata.uid)?.values ?? {});
  const names = new Set([...metricNames(kind).filter((one) => !one.includes("/NAME")), ...custom]);
  const all = await Promise.all([...names].filter((one) => !one.includes("@")).map(read));
  return allMetrics(all);
}

function allMetrics(all: readonly MetricSeries[]): Output {
  const known = all.filter(({ points }) => points.length > 0);
  return {
    type: "table",
    columns: ["METRIC", "NOW", "MEAN", "MOST", ""],
    rows: known.map((series) => {
      const { last, mean, most } = summaryOf(series);
      const { unit } = series;
      return [series.metric, ...[last, mean, most].map((value) => valueText(value, unit)), sparkOf(series)];
    }),
    empty: "nothing was measured of it in that time",
    json: all as unknown as Json,
  };
}

function oneMetric(session: Session, title: string, series: MetricSeries): Output {
  const { points, unit, metric, name } = series;
  const json = series as unknown as Json;
  if (points.length === 0) {
    return { type: "message", text: `no ${metric} of ${title} ${name} was measured in that time`, json };
  }
  const { least, mean, most, last } = summaryOf(series);
  const say = (value: number) => valueText(value, unit);
  const rows = points
    .slice(-tableRows)
    .map((point) => [
      point.at.slice(0, 19).replace("T", " "),
      say(point.mean),
      say(point.min),
      say(point.max),
    ]);
  const summary = findMetric(series.kind, metric)?.summary ?? "";
  const text = [
    `${metric} of ${title} ${name}: ${summary}; a step is ${series.stepSeconds} s`,
    sparkOf(series),
    `least ${say(least)}, mean ${say(mean)}, most ${say(most)}, now ${say(last)}`,
    "",
    session.printer.tableText(["UTC", "MEAN", "LEAST", "MOST"], rows),
  ].join("\n");
  return { type: "message", text, json };
}

function summaryOf({ points }: MetricSeries) {
  const sum = points.reduce((total, point) => total + point.mean, 0);
  return {
    least: Math.min(...points.map(({ min }) => min)),
    mean: sum / Math.max(1, points.length),
    most: Math.max(...points.map(({ max }) => max)),
    last: points.at(-1)?.mean ?? 0,
  };
}

function sparkOf({ points, from, until, stepSeconds }: MetricSeries): string {
  const range = {
    from: fromTimestamp(from) ?? 0,
    until: fromTimestamp(until) ?? 0,
    stepMs: stepSeconds * 1_000,
  };
  return sparkline(
    bySteps(
      points.map(({ at, mean }) => ({ at: fromTimestamp(at) ?? 0, mean })),
      range,
    ),
  );
}

/** @throws Invalid with what there is. */
function requireMetric(kind: MeasuredKind, metric: string, option: string): void {
  if (findMetric(kind, metric)) return;
  const names = metricNames(kind);
  throw new StrataError(
    "Invalid",
    `${option}: ${kind} have no metric "${metric}"${didYouMean(metric, names)}; they have ${names.join(", ")}`,
  );
}
