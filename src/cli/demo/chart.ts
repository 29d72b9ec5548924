/** Draws what happened to groups: members over time, what was planned, the load and its failures. Pure. */
import { escapeXml, round } from "../networks/svg-shapes.ts";

export interface Moment {
  /** Milliseconds since the beginning. */
  atMs: number;
  value: number;
}

/** One group: step lines, each value stands until the next. */
export interface Lane {
  name: string;
  /** Beside the name, such as `containers`. */
  note: string;
  /** Members that served. */
  serving: readonly Moment[];
  /** What the plan says: drawn as a shade behind. */
  planned: readonly Moment[];
}

export interface Happening {
  title: string;
  subtitle: string;
  lengthMs: number;
  /** Marks of the axis: what each stretch of time stands for. */
  marks: readonly { atMs: number; label: string }[];
  lanes: readonly Lane[];
  /** Requests per second, sent and failed, in equal steps. */
  load: readonly { atMs: number; sent: number; failed: number }[];
}

const width = 1000;
const margin = { left: 175, right: 30, top: 84 };
const laneHeight = 110;
const loadHeight = 90;
const gap = 34;

const colors = ["#2f7de1", "#d9702b", "#2f9e6e", "#a04fd0", "#c2417c", "#2a9db0"];

const style = `
.ground{fill:#ffffff}text{fill:#1c2430;font:13px system-ui,"Segoe UI",Helvetica,Arial,sans-serif}
.title{font-size:20px;font-weight:600}.strong{font-weight:600;font-size:14px}.quiet{fill:#5b6675;font-size:11px}
.grid{stroke:#dde4ec;stroke-width:1}.axis{stroke:#9fb0c3;stroke-width:1}.planned{opacity:.22}.serving{fill:none;stroke-width:2.4}
.sent{fill:#9fb0c3;opacity:.75}.failed{fill:#cc3d3d}
@media (prefers-color-scheme:dark){.ground{fill:#12161c}text{fill:#e4e9f0}.quiet{fill:#98a4b3}.grid{stroke:#262f3a}
.axis{stroke:#56708f}.sent{fill:#56708f}}`;

export function drawHappening(happening: Happening): string {
  const { lanes, marks, lengthMs } = happening;
  const height = margin.top + (lanes.length + 0) * (laneHeight + gap) + loadHeight + 70;
  const x = (atMs: number) => margin.left + (atMs / lengthMs) * (width - margin.left - margin.right);
  const bottom = height - 50;
  const parts = [
    `<rect class="ground" width="${width}" height="${height}"/>`,
    label(24, 36, happening.title, "title"),
    label(24, 58, happening.subtitle, "quiet"),
    ...marks.map(
      ({ atMs }) =>
        `<line class="grid" x1="${round(x(atMs))}" x2="${round(x(atMs))}" y1="${margin.top - 10}" y2="${bottom}"/>`,
    ),
    ...marks.map((mark, index) => {
      const until = marks[index + 1]?.atMs ?? lengthMs;
      return label(x((mark.atMs + until) / 2), bottom + 18, mark.label, "quiet", "middle");
    }),
    ...lanes.map((lane, index) =>
      drawLane(lane, margin.top + index * (laneHeight + gap), index, x, lengthMs),
    ),
    drawLoad(happening, margin.top + lanes.length * (laneHeight + gap), x),
  ];
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">` +
    `<title>${escapeXml(happening.title)}</title><style>${style}</style>${parts.join("\n")}</svg>\n`
  );
}

function drawLane(
  lane: Lane,
  top: number,
  index: number,
  x: (atMs: number) => number,
  lengthMs: number,
): string {
  const most = Math.max(1, ...[...lane.serving, ...lane.planned].map(({ value }) => value));
  const y = (value: number) => top + laneHeight - (value / (most + 0.3)) * laneHeight;
  const color = colors[index % colors.length];
  const levels = levelsUpTo(most);
  const planned = steps(lane.planned, x, y, lengthMs);
  const from = lane.planned[0] ? x(lane.planned[0].atMs) : x(0);
  return [
    label(24, top + laneHeight / 2 - 4, lane.name, "strong"),
    label(24, top + laneHeight / 2 + 14, lane.note, "quiet"),
    ...levels.map(
      (level) =>
        `<line class="grid" x1="${margin.left}" x2="${width - margin.right}" y1="${round(y(level))}" y2="${round(y(level))}"/>` +
        label(margin.left - 10, y(level) + 4, String(level), "quiet", "end"),
    ),
    planned === ""
      ? ""
      : `<path class="planned" fill="${color}" d="${planned}L${round(x(lengthMs))} ${round(y(0))}L${round(from)} ${round(y(0))}Z"/>`,
    `<path class="serving" stroke="${color}" d="${steps(lane.serving, x, y, lengthMs)}"/>`,
    `<line class="axis" x1="${margin.left}" x2="${width - margin.right}" y1="${round(y(0))}" y2="${round(y(0))}"/>`,
  ].join("\n");
}

function drawLoad({ load, lengthMs }: Happening, top: number, x: (atMs: number) => number): string {
  const most = Math.max(1, ...load.map(({ sent }) => sent));
  const y = (value: number) => top + loadHeight - (value / most) * loadHeight;
  const bar = (from: number, until: number, value: number, kind: string) =>
    value <= 0
      ? ""
      : `<rect class="${kind}" x="${round(x(from))}" y="${round(y(value))}" width="${round(Math.max(0.5, x(until) - x(from)))}" height="${round(top + loadHeight - y(value))}"/>`;
  const failed = load.reduce((sum, one) => sum + one.failed, 0);
  return [
    label(24, top + loadHeight / 2 - 4, "requests", "strong"),
    label(
      24,
      top + loadHeight / 2 + 14,
      failed === 0 ? "per second, none failed" : "per second, failed in red",
      "quiet",
    ),
    label(margin.left - 10, top + 8, String(Math.round(most)), "quiet", "end"),
    label(margin.left - 10, top + loadHeight + 4, "0", "quiet", "end"),
    ...load.map(({ atMs, sent, failed: bad }, index) => {
      const until = load[index + 1]?.atMs ?? lengthMs;
      return bar(atMs, until, sent, "sent") + bar(atMs, until, bad, "failed");
    }),
    `<line class="axis" x1="${margin.left}" x2="${width - margin.right}" y1="${top + loadHeight}" y2="${top + loadHeight}"/>`,
  ].join("\n");
}

/** At most five lines, whole numbers. */
function levelsUpTo(most: number): number[] {
  const every = Math.max(1, Math.ceil(most / 5));
  return Array.from({ length: Math.floor(most / every) + 1 }, (_, index) => index * every);
}

function steps(
  moments: readonly Moment[],
  x: (atMs: number) => number,
  y: (value: number) => number,
  lengthMs: number,
): string {
  let d = "";
  for (const [index, { atMs, value }] of moments.entries()) {
    const until = moments[index + 1]?.atMs ?? lengthMs;
    d += `${index === 0 ? "M" : "L"}${round(x(atMs))} ${round(y(value))}H${round(x(until))}`;
  }
  return d;
}

function label(x: number, y: number, value: string, kind: string, anchor?: "middle" | "end"): string {
  const anchored = anchor === undefined ? "" : ` text-anchor="${anchor}"`;
  return `<text class="${kind}" x="${round(x)}" y="${round(y)}"${anchored}>${escapeXml(value)}</text>`;
}
