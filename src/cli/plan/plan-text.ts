/** A capacity plan as text: what changes when and why, conflicts, what is lent, what stays unused. */
import { type Instant, toTimestamp } from "../../core/clock.ts";
import type { Json } from "../../core/json.ts";
import { formatMib } from "../../core/units.ts";
import type { Capacity } from "../../kinds/scaling/arbiter.ts";
import type { CapacityPlan } from "../../kinds/scaling/plan-year.ts";
import type { Cell } from "../output.ts";

export interface ShownPlan {
  plan: CapacityPlan;
  /** Of the groups to show, all of which are in the plan. */
  keys: ReadonlySet<string>;
  timeZone: string;
  /** False where no host can be seen: capacity is then without bounds. */
  bounded: boolean;
}

/** Rows of the table; what comes again and again is one row. */
export const planColumns = ["WHEN", "GROUP", "MEMBERS", "WHY", "AGAIN"] as const;

export function planRows({ plan, keys, timeZone }: ShownPlan): Cell[][] {
  const first = plan.groups
    .filter(({ key }) => keys.has(key))
    .map(({ key, segments }): Cell[] => {
      const segment = segments[0];
      const why = segment?.events.length ? segment.events.join(", ") : "at first";
      return [localTime(plan.from, timeZone), key, String(segment?.granted ?? 0), why, ""];
    });
  const changes = plan.changes.filter(({ group }) => keys.has(group));
  const rows = repeated(changes, ({ group, from, to, why }) => `${group} ${from} ${to} ${why}`).map(
    ({ one, more, last }): Cell[] => [
      localTime(one.at, timeZone),
      one.group,
      `${one.from} → ${one.to}`,
      one.why,
      again(more, last.at, timeZone),
    ],
  );
  return [...first, ...rows];
}

export const conflictColumns = ["FROM", "UNTIL", "GROUP", "MINIMUM", "GETS", "AGAIN"] as const;

export function conflictRows({ plan, keys, timeZone }: ShownPlan): Cell[][] {
  const conflicts = plan.conflicts.filter(({ group }) => keys.has(group));
  return repeated(conflicts, ({ group, min, granted }) => `${group} ${min} ${granted}`).map(
    ({ one, more, last }) => [
      { text: localTime(one.from, timeZone), tone: "bad" },
      localTime(one.until, timeZone),
      one.group,
      String(one.min),
      { text: String(one.granted), tone: "bad" },
      again(more, last.from, timeZone),
    ],
  );
}

export const loanColumns = ["FROM", "UNTIL", "GROUP", "LENDS", "TO", "AGAIN"] as const;

export function loanRows({ plan, keys, timeZone }: ShownPlan): Cell[][] {
  const loans = plan.loans.filter(({ group }) => keys.has(group));
  return repeated(loans, ({ group, members, takers }) => `${group} ${members} ${takers}`).map(
    ({ one, more, last }) => [
      localTime(one.from, timeZone),
      localTime(one.until, timeZone),
      one.group,
      String(one.members),
      one.takers.join(", "),
      again(more, last.from, timeZone),
    ],
  );
}

export function headLine({ plan, timeZone, bounded }: ShownPlan): string {
  const range = `${localTime(plan.from, timeZone)} to ${localTime(plan.until, timeZone)} (${timeZone})`;
  return bounded
    ? `${range}; the hosts have ${capacityText(plan.capacity)} for groups`
    : `${range}; no host can be seen from here, so what is missing is not known`;
}

export function unusedLine({ plan, timeZone }: ShownPlan): string {
  const { mean, least, leastAt } = plan.unused;
  return `Unused: ${capacityText(mean)} on average, at least ${capacityText(least)} (${localTime(leastAt, timeZone)})`;
}

export function capacityText({ cpus, memoryMib }: Capacity): string {
  const rounded = Math.round(cpus * 10) / 10;
  return `${rounded} CPU${rounded === 1 ? "" : "s"} and ${formatMib(Math.round(memoryMib))}`;
}

interface Repeated<T> {
  one: T;
  /** How often it comes after that, and the last of them. */
  more: number;
  last: T;
}

function repeated<T>(items: readonly T[], key: (item: T) => string): Repeated<T>[] {
  const found = new Map<string, Repeated<T>>();
  for (const item of items) {
    const known = found.get(key(item));
    if (known) {
      known.more++;
      known.last = item;
    } else found.set(key(item), { one: item, more: 0, last: item });
  }
  return [...found.values()];
}

function again(more: number, last: Instant, timeZone: string): string {
  return more === 0 ? "" : `${more} more, last ${localTime(last, timeZone)}`;
}

/** `2026-09-01 08:00`; seconds only where there are some. */
export function localTime(instant: Instant, timeZone: string): string {
  const local = Temporal.Instant.fromEpochMilliseconds(instant)
    .toZonedDateTimeISO(timeZone)
    .toPlainDateTime();
  const text = local.toString({ smallestUnit: "second" }).replace("T", " ");
  return text.endsWith(":00") ? text.slice(0, 16) : text;
}

/** With RFC 3339 times, as the API has them. */
export function planJson({ plan, keys, timeZone, bounded }: ShownPlan): Json {
  const span = <T extends { from: Instant; until: Instant }>({ from, until, ...rest }: T) => ({
    from: toTimestamp(from),
    until: toTimestamp(until),
    ...rest,
  });
  const shown = <T extends { group: string }>(items: readonly T[]) =>
    items.filter(({ group }) => keys.has(group));
  const json = {
    ...span({ from: plan.from, until: plan.until }),
    timeZone,
    ...(bounded
      ? { capacity: plan.capacity, unused: { ...plan.unused, leastAt: toTimestamp(plan.unused.leastAt) } }
      : {}),
    groups: plan.groups
      .filter(({ key }) => keys.has(key))
      .map(({ key, segments }) => ({ group: key, segments: segments.map(span) })),
    changes: shown(plan.changes).map(({ at, ...change }) => ({ at: toTimestamp(at), ...change })),
    conflicts: shown(plan.conflicts).map(span),
    loans: shown(plan.loans).map(span),
    use: plan.use.map(span),
  };
  return json as unknown as Json;
}
