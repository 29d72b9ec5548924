/**
 * A capacity plan as a drawing: a lane a group with its members as steps, lanes for what all groups together take of the hosts,
 * and a time axis. What is lent is hatched, what is missing to a minimum is red. Pure: the same plan always gives the same bytes.
 */
import type { Instant } from "../../core/clock.ts";
import { formatMib } from "../../core/units.ts";
import type { PlanSegment, PlanUse } from "../../kinds/scaling/plan-year.ts";
import { escapeXml, round, text, textWidth } from "../networks/svg-shapes.ts";
import { columnsOf, type Envelope, outline, type Scale, steps } from "./envelope.ts";
import { capacityText, localTime, type ShownPlan } from "./plan-text.ts";
import { planStyle } from "./svg-style.ts";
import { type Tick, ticksBetween } from "./ticks.ts";

const margin = 24;
const plotWidth = 960;
const laneHeight = 62;
const laneGap = 26;
const top = 112;
const axisHeight = 34;
/** A plateau narrower than this has no number. */
const narrowest = 22;
const laneColors = 8;
/** Blocks with less between them are one. */
const closest = 5;

interface Frame {
  shown: ShownPlan;
  left: number;
  x(at: Instant): number;
}

export function drawPlan(shown: ShownPlan): string {
  const { plan, keys, timeZone } = shown;
  const groups = plan.groups.filter(({ key }) => keys.has(key));
  const left = margin + Math.max(150, ...groups.map(({ key }) => textWidth(key, 13) + 20));
  const span = Math.max(1, plan.until - plan.from);
  const frame = { shown, left, x: (at: Instant) => left + ((at - plan.from) / span) * plotWidth };
  const lanes = groups.map(
    (group, index) => (y: number) => groupLane(frame, group.key, group.segments, index, y),
  );
  const all = [...lanes, ...useLanes(frame)];
  const width = left + plotWidth + margin + 70;
  const bottom = top + all.length * (laneHeight + laneGap);
  const height = bottom + axisHeight + margin;
  const ticks = ticksBetween(plan.from, plan.until, timeZone, 16);
  const shapes = [
    text(margin, 40, "Capacity plan", "title"),
    text(margin, 62, subtitle(shown), "quiet"),
    ...legend(shown, margin, 86),
    ...ticks.map((tick) => gridLine(frame, tick, top - 8, bottom - laneGap + 8)),
    ...all.flatMap((lane, index) => lane(top + index * (laneHeight + laneGap))),
    ...axis(frame, ticks, bottom - laneGap + 8),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="Capacity plan">
<style>${planStyle}</style>
<defs><pattern id="lent" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatch" d="M0 0V6"/></pattern></defs>
<rect class="ground" width="${width}" height="${height}"/>
${shapes.join("\n")}
</svg>
`;
}

function subtitle({ plan, timeZone, bounded }: ShownPlan): string {
  const range = `${localTime(plan.from, timeZone)} to ${localTime(plan.until, timeZone)}, ${timeZone}`;
  const unused = `unused on average: ${capacityText(plan.unused.mean)}`;
  return bounded ? `${range}  ·  hosts: ${capacityText(plan.capacity)}  ·  ${unused}` : range;
}

/** Only what is in the drawing. */
function legend({ plan, keys, bounded }: ShownPlan, x: number, y: number): string[] {
  const seen = (items: readonly { group: string }[]) => items.some(({ group }) => keys.has(group));
  const entries = [
    ["members", "area color-0", true],
    ["at times", "band color-0", plan.changes.length > 200],
    ["lent to others", "lent", seen(plan.loans)],
    ["missing to the minimum", "missing", seen(plan.conflicts)],
    ["what the hosts have", "limit", bounded],
  ] as const;
  let at = x;
  return entries.flatMap(([label, kind, isShown]) => {
    if (!isShown) return [];
    const shape =
      kind === "limit"
        ? `<path class="limit" d="M${at} ${y - 4}h22"/>`
        : `<rect class="${kind}" x="${at}" y="${y - 10}" width="22" height="11"/>`;
    const shapes = [shape, text(at + 28, y, label, "label")];
    at += 28 + textWidth(label, 11) + 22;
    return shapes;
  });
}

function groupLane(
  frame: Frame,
  key: string,
  segments: readonly PlanSegment[],
  index: number,
  y: number,
): string[] {
  const most = Math.max(1, ...segments.map(({ granted, wanted }) => Math.max(granted, wanted)));
  const scale = laneScale(frame, y, most);
  const level = (of: (segment: PlanSegment) => number) =>
    columnsOf(
      segments.map((segment) => ({ from: segment.from, until: segment.until, value: of(segment) })),
      scale,
    );
  const granted = level((segment) => segment.granted);
  const color = `color-${index % laneColors}`;
  const first = segments[0];
  const bounds = first ? boundsText(segments) : "";
  return [
    ...laneFrame(frame, y, key, bounds, String(most)),
    ...blocks(frame, segments, scale, "lent", ({ granted: got, lent }) => got + lent),
    ...blocks(frame, segments, scale, "missing", ({ granted: got, min }) => Math.max(got, min)),
    `<path class="area ${color}" d="${outline(granted.low, scale)}"/>`,
    ...(isDense(granted)
      ? [`<path class="band ${color}" d="${outline(granted.high, scale, granted.low)}"/>`]
      : []),
    `<path class="steps ${color}" d="${steps(granted.high, scale)}"/>`,
    ...segments.flatMap((segment) => plateau(frame, segment, scale)),
    ...segments.flatMap((segment) => conflictMark(frame, segment, y)),
  ];
}

function boundsText(segments: readonly PlanSegment[]): string {
  const mins = segments.map(({ min }) => min);
  const maxs = segments.map(({ max }) => max);
  const range = (values: readonly number[]) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return low === high ? String(low) : `${low}–${high}`;
  };
  return `min ${range(mins)}, max ${range(maxs)}`;
}

function laneScale(frame: Frame, y: number, most: number): Scale {
  const { plan } = frame.shown;
  return {
    left: frame.left,
    columns: plotWidth,
    from: plan.from,
    until: plan.until,
    base: y + laneHeight,
    y: (value) => y + laneHeight - (value / most) * (laneHeight - 12),
  };
}

function laneFrame({ left }: Frame, y: number, title: string, note: string, most: string): string[] {
  return [
    `<path class="base" d="M${left} ${y + laneHeight}h${plotWidth}"/>`,
    text(margin, y + 30, title, "strong"),
    text(margin, y + 47, note, "quiet"),
    text(left + plotWidth + 8, y + 16, most, "quiet"),
    text(left + plotWidth + 8, y + laneHeight + 4, "0", "quiet"),
  ];
}

/** What lies between the members that it has and a greater number; those close together are drawn as one. */
function blocks(
  { x }: Frame,
  segments: readonly PlanSegment[],
  scale: Scale,
  kind: string,
  upTo: (segment: PlanSegment) => number,
): string[] {
  const found: { from: number; until: number; low: number; high: number }[] = [];
  for (const segment of segments) {
    const [low, high] = [segment.granted, upTo(segment)];
    if (high <= low) continue;
    const last = found.at(-1);
    if (last && x(segment.from) - last.until < closest) {
      last.until = x(segment.until);
      last.low = Math.min(last.low, low);
      last.high = Math.max(last.high, high);
    } else found.push({ from: x(segment.from), until: x(segment.until), low, high });
  }
  return found.map(({ from, until, low, high }) => {
    const [above, below] = [scale.y(high), scale.y(low)];
    return `<rect class="${kind}" x="${round(from)}" y="${round(above)}" width="${round(Math.max(1, until - from))}" height="${round(below - above)}"/>`;
  });
}

function isDense({ low, high }: Envelope): boolean {
  return low.some((value, column) => value < (high[column] ?? 0));
}

/** Its number, where there is room for it. */
function plateau({ x }: Frame, { from, until, granted }: PlanSegment, scale: Scale): string[] {
  const width = x(until) - x(from);
  if (width < narrowest) return [];
  return [text(x(from) + width / 2, scale.y(granted) - 4, String(granted), "count", "middle")];
}

function conflictMark({ x, shown }: Frame, { from, until, granted, min }: PlanSegment, y: number): string[] {
  if (granted >= min) return [];
  const width = Math.max(2, x(until) - x(from));
  const said = `${localTime(from, shown.timeZone)} to ${localTime(until, shown.timeZone)}: ${granted} of at least ${min}`;
  return [
    `<rect class="conflict" x="${round(x(from))}" y="${y + laneHeight + 3}" width="${round(width)}" height="5"><title>${escapeXml(said)}</title></rect>`,
  ];
}

/** CPUs and memory of all groups together, those that are not shown as well. */
function useLanes(frame: Frame): ((y: number) => string[])[] {
  const { plan, bounded } = frame.shown;
  const lane =
    (title: string, of: (use: PlanUse["used"]) => number, format: (value: number) => string) =>
    (y: number) => {
      const peak = Math.max(0, ...plan.use.map(({ used }) => of(used)));
      const limit = bounded ? of(plan.capacity) : undefined;
      const scale = laneScale(frame, y, Math.max(1, peak, limit ?? 0));
      const level = columnsOf(
        plan.use.map(({ from, until, used }) => ({ from, until, value: of(used) })),
        scale,
      );
      const at = limit === undefined ? undefined : round(scale.y(limit));
      return [
        ...laneFrame(
          frame,
          y,
          title,
          `all groups, at most ${format(peak)}`,
          limit === undefined ? format(peak) : "",
        ),
        `<path class="area all" d="${outline(level.low, scale)}"/>`,
        ...(isDense(level) ? [`<path class="band all" d="${outline(level.high, scale, level.low)}"/>`] : []),
        `<path class="steps all" d="${steps(level.high, scale)}"/>`,
        ...(at === undefined || limit === undefined
          ? []
          : [
              `<path class="limit" d="M${frame.left} ${at}h${plotWidth}"/>`,
              text(frame.left + plotWidth + 8, at + 4, format(limit), "label"),
            ]),
      ];
    };
  return [
    lane(
      "CPUs",
      ({ cpus }) => cpus,
      (value) => String(value),
    ),
    lane(
      "Memory",
      ({ memoryMib }) => memoryMib,
      (value) => formatMib(value),
    ),
  ];
}

function gridLine({ x }: Frame, { at }: Tick, from: number, to: number): string {
  return `<path class="grid" d="M${round(x(at))} ${from}V${to}"/>`;
}

function axis(frame: Frame, ticks: readonly Tick[], y: number): string[] {
  const { plan } = frame.shown;
  return ticks.flatMap((tick, index) => {
    const end = ticks[index + 1]?.at ?? plan.until;
    const at = tick.span ? (frame.x(tick.at) + frame.x(end)) / 2 : frame.x(tick.at);
    if (tick.span && frame.x(end) - frame.x(tick.at) < textWidth(tick.label, 11)) return [];
    return [text(at, y + 18, tick.label, "label", "middle")];
  });
}
