/** `group plan`: what the calendars of groups will do to the hosts' capacity, before it happens. */
import { writeFile } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import type { Instant } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import { didYouMean } from "../../core/spelling.ts";
import { planCapacity } from "../../kinds/scaling/plan-year.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Cell, Output } from "../output.ts";
import {
  conflictColumns,
  conflictRows,
  headLine,
  loanColumns,
  loanRows,
  planColumns,
  planJson,
  planRows,
  type ShownPlan,
  unusedLine,
} from "../plan/plan-text.ts";
import { capacityForGroups, plannedGroup, readPlanWorld, timeZoneOf } from "../plan/read-plan.ts";
import { drawPlan } from "../plan/svg.ts";

/** A plan further ahead than this says nothing that its first years do not. */
const maxYears = 5;
/** More than all hosts of anybody, for callers who may not see them. */
const unbounded = { cpus: 1e9, memoryMib: 1e12 };

export const groupPlanCommands: readonly CommandSpec[] = [
  {
    path: "group plan",
    group: "Groups",
    summary: "Compute the coming year: sizes by calendar, conflicts, what is lent, what stays unused",
    arguments: [
      { name: "[group...]", summary: "only these (default: all of the project)", completes: "groups" },
    ],
    options: [
      { flags: "--from <date>", summary: "YYYY-MM-DD or an RFC 3339 time (default: now)" },
      { flags: "--until <date>", summary: "likewise (default: a year later)" },
      { flags: "--svg <file>", summary: "write a drawing to a file" },
    ],
    examples: [
      "strata group plan -p campus",
      "strata group plan enrollment lms --from 2026-08-01 --until 2026-11-01 --svg plan.svg",
    ],
    run: plan,
  },
];

async function plan(call: Call): Promise<Output> {
  const { session, options } = call;
  const { project } = session;
  const world = await readPlanWorld(await session.client(), project, session.signal);
  const own = world.groups.filter(({ metadata }) => metadata.project === project);
  const keys = call.args.length === 0 ? own.map(({ metadata }) => metadata.name) : [...call.args];
  for (const name of keys) {
    if (own.some(({ metadata }) => metadata.name === name)) continue;
    const names = own.map(({ metadata }) => metadata.name);
    throw new StrataError(
      "NotFound",
      `there is no group "${name}" in project ${project}${didYouMean(name, names)}`,
    );
  }
  if (keys.length === 0)
    return { type: "message", text: `project ${project} has no groups`, json: { groups: [] } };
  const timeZone = timeZoneOf(own);
  const { from, until } = rangeOf(call, timeZone);
  const capacity = capacityForGroups(world);
  const shown: ShownPlan = {
    plan: planCapacity({
      groups: world.groups.map((group) => plannedGroup(group, project)),
      capacity: capacity ?? unbounded,
      from,
      until,
    }),
    keys: new Set(keys),
    timeZone,
    bounded: capacity !== undefined,
  };
  const file = options.text("svg");
  const drawn = file === undefined ? [] : [await draw(resolvePath(session.cwd, file), shown)];
  return { type: "message", text: [...textOf(call, shown), ...drawn].join("\n"), json: planJson(shown) };
}

function textOf({ session: { printer } }: Call, shown: ShownPlan): string[] {
  const table = (columns: readonly string[], rows: readonly (readonly Cell[])[]) => {
    // The last column tells what comes again: nothing, mostly.
    const width = rows.some((row) => row.at(-1) !== "") ? columns.length : columns.length - 1;
    return printer.tableText(
      columns.slice(0, width),
      rows.map((row) => row.slice(0, width)),
    );
  };
  const section = (title: string, columns: readonly string[], rows: readonly (readonly Cell[])[]) =>
    rows.length === 0 ? [`${title}: none`] : [`${title}:`, table(columns, rows)];
  return [
    headLine(shown),
    "",
    table(planColumns, planRows(shown)),
    "",
    ...section("Conflicts, minimums that the hosts cannot hold", conflictColumns, conflictRows(shown)),
    ...section("Lent", loanColumns, loanRows(shown)),
    ...(shown.bounded ? [unusedLine(shown)] : []),
  ];
}

async function draw(path: string, shown: ShownPlan): Promise<string> {
  await writeFile(path, drawPlan(shown)).catch((cause: NodeJS.ErrnoException) => {
    throw new StrataError("Invalid", `cannot write the drawing to ${path} (${cause.code})`, { cause });
  });
  return `drawn in ${path}`;
}

function rangeOf({ session, options }: Call, timeZone: string): { from: Instant; until: Instant } {
  const [first, last] = [options.text("from"), options.text("until")];
  const from =
    first === undefined ? startOfMinute(session.clock.now()) : parseTime("--from", first, timeZone);
  const start = Temporal.Instant.fromEpochMilliseconds(from).toZonedDateTimeISO(timeZone);
  const until =
    last === undefined ? start.add({ years: 1 }).epochMilliseconds : parseTime("--until", last, timeZone);
  if (until <= from)
    throw new StrataError("Invalid", `--until (${last}) must be after --from (${first ?? "now"})`);
  if (until > start.add({ years: maxYears }).epochMilliseconds) {
    throw new StrataError("Invalid", `--until (${last}) is more than ${maxYears} years after --from`);
  }
  return { from, until };
}

function startOfMinute(at: Instant): Instant {
  return at - (at % 60_000);
}

/** A date is its first moment in the zone. */
function parseTime(option: string, value: string, timeZone: string): Instant {
  try {
    if (/^\d{4}-\d\d-\d\d$/.test(value)) {
      return Temporal.PlainDate.from(value).toZonedDateTime(timeZone).epochMilliseconds;
    }
    return Temporal.Instant.from(value).epochMilliseconds;
  } catch (cause) {
    const allowed = "a date such as 2026-09-01 or a time such as 2026-09-01T08:00:00Z";
    throw new StrataError("Invalid", `${option} is "${value}"; it must be ${allowed}`, { cause });
  }
}
