/** `demo`: a stack's year in minutes, on real guests, with load, a table and a chart of what happened. */
import { access, writeFile } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import type { Client } from "../../client/client.ts";
import type { Instant } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { ownFile } from "../../core/own-files.ts";
import { groupKind } from "../../kinds/group.ts";
import type { Kind } from "../../kinds/kind.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import { drawHappening } from "../demo/chart.ts";
import { LoadGenerator } from "../demo/load-generator.ts";
import { Recording } from "../demo/record.ts";
import {
  beforeTheYear,
  type DemoGroup,
  inTheYear,
  type MonthRow,
  monthAt,
  monthRows,
  type Pace,
  plannedAt,
  planRehearsal,
  portsOf,
  toHappening,
} from "../demo/rehearsal.ts";
import { lengthOf, type Stretch } from "../demo/short-year.ts";
import type { Output } from "../output.ts";
import { deleteAll } from "../stack/apply-stack.ts";
import { bringUp } from "../stack/bring-up.ts";
import { type Desired, stackLabel } from "../stack/expand-stack.ts";
import { type LoadedStack, loadStack } from "../stack/load-stack.ts";
import { checkHosts, planStack } from "../stack/plan-stack.ts";
import { readHosts, readProject } from "../stack/read-stack.ts";
import { follow, patience, retrying } from "../watching.ts";

export const demoCommands: readonly CommandSpec[] = [
  {
    path: "demo",
    group: "Stacks",
    summary: "Live through a stack's year in minutes: real guests, load, a chart of what happened",
    arguments: [{ name: "<stack>", summary: "`campus`, or a stack file", completes: "files" }],
    options: [
      { flags: "--svg <file>", summary: "where the chart goes (default: NAME-year.svg)" },
      { flags: "--from <month>", summary: "first month (default: the next August)" },
      { flags: "--months <n>", summary: "how many", default: "12" },
      { flags: "--busy <seconds>", summary: "of a month in which something changes", default: "90" },
      { flags: "--quiet <seconds>", summary: "of any other month", default: "6" },
      { flags: "--rate <n>", summary: "requests per second for each member that is planned", default: "5" },
      { flags: "--keep", summary: "leave the guests running afterwards" },
    ],
    examples: ["sudo strata demo campus", "strata demo campus --svg year.svg --busy 120 --keep"],
    run: demo,
  },
];

/** A group's members have answered before the year begins. */
const settleMs = 3_000;
const watchEveryMs = 250;
/** More than the slowest year of the longest kind. */
const longestMs = 86_400_000;
/** Between a port of the stack and the demonstration's. */
const portDistance = 10_000;

async function demo(call: Call): Promise<Output> {
  const { session, options } = call;
  if (!session.wait)
    throw new StrataError("Invalid", "--no-wait has no meaning here: a demonstration is watched");
  const file = await findStackFile(call.args[0] ?? "", session);
  const stack = await loadBeside(file, session);
  const pace = paceOf(call);
  const groups = groupsOf(stack);
  const stretches = planRehearsal(groups, pace);
  const svg = resolvePath(session.cwd, options.text("svg") ?? `${stack.name.replace(/-demo$/, "")}-year.svg`);
  const client = await session.startedClient();
  session.onInterrupt(`interrupted; \`strata down ${stack.name}\` removes what the demonstration made`);
  const still = withoutCalendars(stack);
  const limits = patience(session);
  checkHosts(still.desired, await readHosts(client, limits));
  const plan = planStack(still, await readProject(client, still.project, limits));
  await bringUp(client, still, plan, session);
  const year = await live(client, stack, groups, stretches, session, options.count("rate") ?? 5);
  await writeFile(svg, drawHappening(year.happening));
  if (!options.flag("keep")) await removeAll(client, stack, session);
  session.printer.note(`chart: ${svg}`);
  return report(groups, year.rows);
}

/** `campus` is the example that comes with Strata; anything else is a file. */
async function findStackFile(text: string, session: Session): Promise<string> {
  const own = ownFile(`examples/${text}.yaml`).pathname;
  if (/^[a-z0-9-]+$/.test(text)) {
    const there = await access(own).then(
      () => true,
      () => false,
    );
    if (there) return own;
  }
  return resolvePath(session.cwd, text);
}

/** Under a name and behind ports of its own, so that a stack of the same file is not touched. */
async function loadBeside(file: string, session: Session): Promise<LoadedStack> {
  const places = { cwd: session.cwd, home: session.env.HOME };
  const { name } = await loadStack(file, places);
  const stack = await loadStack(file, { ...places, name: `${name}-demo` });
  return { ...stack, desired: stack.desired.map(behindOtherPorts) };
}

function behindOtherPorts(one: Desired): Desired {
  if (one.kind.name !== loadBalancerKind.name) return one;
  const spec = loadBalancerKind.spec.parse(one.spec);
  const listeners = spec.listeners.map((listener) => ({
    ...listener,
    port: portBeside(listener.port),
    ...(listener.redirectTo === undefined ? {} : { redirectTo: portBeside(listener.redirectTo) }),
  }));
  return { ...one, spec: { ...spec, listeners } as unknown as JsonObject };
}

/** 18081 for 8081. */
function portBeside(port: number): number {
  return port + portDistance > 65_535 ? port - portDistance : port + portDistance;
}

function paceOf({ options, session }: Call): Pace {
  const seconds = (name: string, standard: number) => {
    const value = options.count(name) ?? standard;
    if (value < 1 || value > 3600) {
      throw new StrataError(
        "Invalid",
        `--${name} is ${value}; it must be a number of seconds from 1 to 3600`,
      );
    }
    return value * 1_000;
  };
  const months = options.count("months") ?? 12;
  if (months < 1 || months > 24)
    throw new StrataError("Invalid", `--months is ${months}; it must be from 1 to 24`);
  return {
    first: firstMonth(options.text("from"), session.clock.now()),
    months,
    busyMs: seconds("busy", 90),
    quietMs: seconds("quiet", 6),
  };
}

function firstMonth(text: string | undefined, now: Instant): Pace["first"] {
  const match = text === undefined ? undefined : /^(20\d\d)-(0[1-9]|1[0-2])$/.exec(text);
  if (match) return { year: Number(match[1]), month: Number(match[2]) };
  if (text !== undefined)
    throw new StrataError("Invalid", `--from is "${text}"; it must be a month such as 2026-08`);
  const today = Temporal.Instant.fromEpochMilliseconds(now).toZonedDateTimeISO("UTC");
  return { year: today.month < 8 ? today.year : today.year + 1, month: 8 };
}

function groupsOf({ desired }: LoadedStack): DemoGroup[] {
  const specs = <S, T>(kind: Kind<S, T>) =>
    desired
      .filter((one) => one.kind.name === kind.name)
      .map((one) => [one.name, kind.spec.parse(one.spec)] as const);
  const balancers = specs(loadBalancerKind).map(([, spec]) => spec);
  return specs(groupKind).map(([name, spec]) => ({ name, spec, ports: portsOf(name, balancers) }));
}

function withoutCalendars(stack: LoadedStack): LoadedStack {
  const desired = stack.desired.map((one) =>
    one.kind.name === groupKind.name
      ? { ...one, spec: beforeTheYear(groupKind.spec.parse(one.spec)) as unknown as JsonObject }
      : one,
  );
  return { ...stack, desired };
}

interface Year {
  rows: MonthRow[];
  happening: ReturnType<typeof toHappening>;
}

async function live(
  client: Client,
  stack: LoadedStack,
  groups: readonly DemoGroup[],
  stretches: readonly Stretch[],
  session: Session,
  ratePerMember: number,
): Promise<Year> {
  const { clock, signal } = session;
  const recording = new Recording(clock);
  const over = new AbortController();
  const ended = AbortSignal.any([over.signal, signal]);
  const watching = watchGroups(client, stack.project, recording, session, ended);
  let startAt: Instant | undefined;
  let rehearsed = [...groups];
  const planned = (name: string) => {
    const group = rehearsed.find((one) => one.name === name);
    if (!group || startAt === undefined) return 1;
    return Math.max(1, plannedAt(group.spec, startAt, recording.elapsedMs));
  };
  const generators = groups.flatMap(({ name, ports }) =>
    ports.slice(0, 1).map((port) => {
      const rate = () => ratePerMember * planned(name);
      const generator = new LoadGenerator({ url: `http://127.0.0.1:${port}/healthz`, clock, rate, identify });
      generator.onAnswer = (answer) => recording.answered(name, answer);
      return generator.run(ended);
    }),
  );
  try {
    await clock.sleep(settleMs, signal);
    startAt = clock.now();
    recording.begin();
    const begun = startAt;
    rehearsed = groups.map((group) => ({ ...group, spec: inTheYear(group.spec, stretches, begun) }));
    await setSpecs(client, stack, rehearsed, session);
    await passTime(groups, stretches, recording, session);
  } finally {
    over.abort();
    await Promise.all(generators);
    await watching;
  }
  const title = `${stack.name.replace(/-demo$/, "")}: a year`;
  return {
    rows: monthRows(rehearsed, stretches, recording, startAt),
    happening: toHappening(title, rehearsed, stretches, recording, startAt),
  };
}

/** The campus answers with the name of the instance. */
function identify(body: string): string | undefined {
  return /"instance":\s*"([^"]+)"/.exec(body)?.[1];
}

async function setSpecs(
  client: Client,
  { project }: LoadedStack,
  groups: readonly DemoGroup[],
  session: Session,
): Promise<void> {
  const limits = patience(session);
  for (const { name, spec } of groups) {
    const { policies, behavior } = spec;
    const patch = { spec: { policies, behavior } as unknown as JsonObject };
    await retrying(() => client.patch(groupKind, { project, name }, patch), limits);
  }
}

async function passTime(
  groups: readonly DemoGroup[],
  stretches: readonly Stretch[],
  recording: Recording,
  { clock, signal, printer }: Session,
): Promise<void> {
  const lengthMs = lengthOf(stretches);
  while (recording.elapsedMs < lengthMs) {
    const serving = groups.map(({ name }) => `${name} ${recording.serving(name).at(-1)?.value ?? 0}`);
    const percent = `${Math.floor((recording.elapsedMs / lengthMs) * 100)} %`;
    printer.progress("year", `${monthAt(stretches, recording.elapsedMs)}: ${serving.join(", ")}`, {
      percent,
    });
    await clock.sleep(Math.min(watchEveryMs, Math.max(1, lengthMs - recording.elapsedMs)), signal);
  }
  printer.progress("year", "over", { settled: true });
}

async function watchGroups(
  client: Client,
  project: string,
  recording: Recording,
  session: Session,
  signal: AbortSignal,
): Promise<void> {
  const { clock } = session;
  const limits = { clock, signal, deadlineMs: clock.monotonicMs() + longestMs };
  const look = (seen: ReadonlyMap<string, Parameters<Recording["see"]>[0]>) => {
    for (const group of seen.values()) recording.see(group);
    return false;
  };
  await follow(client, groupKind, { project }, limits, look, () => "the demonstration").catch((error) => {
    if (!signal.aborted) throw error;
  });
}

async function removeAll(client: Client, stack: LoadedStack, session: Session): Promise<void> {
  const limits = patience(session);
  const existing = await readProject(client, stack.project, limits);
  const own = existing.filter(
    ({ resource: { metadata } }) =>
      metadata.labels[stackLabel] === stack.name && metadata.owner === undefined,
  );
  await deleteAll(client, own, limits, session.printer);
}

function report(groups: readonly DemoGroup[], rows: readonly MonthRow[]): Output {
  return {
    type: "table",
    columns: [
      "MONTH",
      ...groups.flatMap(({ name }) => [name.toUpperCase(), "PLANNED"]),
      "REQUESTS",
      "FAILED",
    ],
    rows: rows.map((row) => [
      row.label,
      ...row.groups.flatMap(({ least, most, planned }) => [
        least === most ? String(most) : `${least}–${most}`,
        String(planned),
      ]),
      String(row.sent),
      row.failed === 0 ? "0" : { text: String(row.failed), tone: "bad" as const },
    ]),
    empty: "no month passed",
    json: rows as unknown as JsonObject[],
  };
}
