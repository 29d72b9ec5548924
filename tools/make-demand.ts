/**
 * Writes the demand series that the forecast is measured with: requests per second, hourly means, 26 weeks of three services
 * in Europe/Berlin. Nothing of this is known to the code that forecasts: it reads the files.
 *
 *   node tools/make-demand.ts [SEED] [DIRECTORY]
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { randomFraction, seededRandom } from "../src/core/random.ts";

const zone = "Europe/Berlin";
const weeks = 26;
const hourMs = 3_600_000;
const [seed = "2026", directory = "docs/forecast"] = process.argv.slice(2);

interface Moment {
  hour: number;
  /** 1 Monday … 7 Sunday. */
  weekday: number;
  date: string;
  day: number;
  monthEnd: boolean;
}

class Dice {
  readonly #random;
  constructor(seedNumber: number) {
    this.#random = seededRandom(seedNumber);
  }
  fraction = () => randomFraction(this.#random);
  /** Box–Muller. */
  normal = () => Math.sqrt(-2 * Math.log(1 - this.fraction())) * Math.cos(2 * Math.PI * this.fraction());
  chance = (probability: number) => this.fraction() < probability;
  between = (low: number, high: number) => low + this.fraction() * (high - low);
}

const bump = (hour: number, at: number, width: number) => Math.exp(-(((hour - at) / width) ** 2));

/** A school's enrollment: terms, holidays, a rush that grows towards a deadline, evenings at home, growth. */
function enrollment(dice: Dice) {
  const holidays = new Set<string>();
  const mark = (from: string, days: number) => {
    for (let day = 0; day < days; day++)
      holidays.add(Temporal.PlainDate.from(from).add({ days: day }).toString());
  };
  mark("2026-07-16", 44);
  mark("2026-10-19", 13);
  const deadline = Temporal.PlainDate.from("2026-09-25");
  let drift = 0;
  return (moment: Moment, index: number) => {
    drift = 0.985 * drift + 0.03 * dice.normal();
    const growth = 1 + 0.15 * (index / (52 * 168));
    const left = deadline.since(Temporal.PlainDate.from(moment.date)).total("days");
    const rush = left >= 0 && left < 28 ? 1 + 3 * Math.exp(-left / 9) : 1;
    const shape =
      0.04 + bump(moment.hour, 10.5, 2.6) + 0.7 * bump(moment.hour, 15, 2) + 0.8 * bump(moment.hour, 20, 1.8);
    const week = [1.15, 1.1, 1, 0.95, 0.75, 0.35, 0.55][moment.weekday - 1] ?? 1;
    const term = holidays.has(moment.date) ? 0.25 : 1;
    const outlier = dice.chance(0.002) ? dice.between(2, 6) : 1;
    return 60 * growth * rush * term * shape * week * Math.exp(drift + 0.12 * dice.normal()) * outlier;
  };
}

/** A shop for offices: working hours, lunch, a trend, days that are good or bad as a whole, sales, outages. */
function shop(dice: Dice) {
  const sales = new Set(["2026-06-23", "2026-08-12", "2026-10-06", "2026-11-05"]);
  const closed = new Set(["2026-05-25", "2026-06-04", "2026-10-03", "2026-11-01"]);
  let today = "";
  let mood = 0;
  let drift = 0;
  let outage = 0;
  return (moment: Moment, index: number) => {
    if (moment.date !== today) {
      today = moment.date;
      mood = 0.5 * mood + 0.12 * dice.normal();
    }
    drift = 0.9 * drift + 0.06 * dice.normal();
    if (dice.chance(0.0008)) outage = Math.ceil(dice.between(1, 5));
    if (outage-- > 0) return 0.5 * dice.fraction();
    const trend = 1 + 0.006 * (index / 168);
    const open = bump(moment.hour, 10, 2.4) + 0.9 * bump(moment.hour, 14.5, 2.6) + 0.08;
    const week = [1.1, 1.05, 1, 1, 0.85, 0.12, 0.08][moment.weekday - 1] ?? 1;
    const event = sales.has(moment.date) ? 1.9 : closed.has(moment.date) ? 0.15 : 1;
    return 220 * trend * open * week * event * Math.exp(mood + drift + 0.05 * dice.normal());
  };
}

/** Jobs at night: they start between one and three, their size has a long tail, more at the end of a month; little by day. */
function batch(dice: Dice) {
  let start = 1;
  let length = 2;
  let size = 0;
  let today = "";
  return (moment: Moment) => {
    if (moment.date !== today) {
      today = moment.date;
      start = dice.between(0.6, 2.6);
      length = dice.between(1.5, 3.5);
      size =
        400 * Math.exp(0.45 * dice.normal()) * (moment.monthEnd ? 2.5 : 1) * (moment.weekday > 5 ? 0.4 : 1);
    }
    const share = Math.max(0, Math.min(moment.hour + 1, start + length) - Math.max(moment.hour, start));
    const stray = dice.chance(0.02) ? dice.between(50, 250) : 0;
    return 4 + 3 * dice.fraction() + size * share * Math.exp(0.1 * dice.normal()) + stray;
  };
}

const first = Temporal.Instant.from("2026-05-18T00:00:00Z");

function momentOf(index: number): Moment {
  const local = first.add({ milliseconds: index * hourMs }).toZonedDateTimeISO(zone);
  const date = local.toPlainDate();
  return {
    hour: local.hour,
    weekday: local.dayOfWeek,
    date: date.toString(),
    day: local.day,
    monthEnd: local.day === local.daysInMonth,
  };
}

/** A line a day (UTC) with its 24 hours; an empty field is a gap in the record. */
function table(value: (moment: Moment, index: number) => number, dice: Dice): string {
  const lines = [`date,${Array.from({ length: 24 }, (_, hour) => String(hour).padStart(2, "0")).join(",")}`];
  let gap = 0;
  for (let day = 0; day < weeks * 7; day++) {
    const cells = Array.from({ length: 24 }, (_, hour) => {
      const index = day * 24 + hour;
      const now = value(momentOf(index), index);
      if (dice.chance(0.0006)) gap = Math.ceil(dice.between(1, 14));
      return gap-- > 0 ? "" : now.toFixed(1);
    });
    lines.push(
      [
        first
          .add({ hours: day * 24 })
          .toString()
          .slice(0, 10),
        ...cells,
      ].join(","),
    );
  }
  return `${lines.join("\n")}\n`;
}

await mkdir(directory, { recursive: true });
for (const [index, [name, make]] of Object.entries({ enrollment, shop, batch }).entries()) {
  const dice = new Dice(Number(seed) * 10 + index);
  await writeFile(join(directory, `${name}.csv`), table(make(dice), new Dice(Number(seed) * 10 + index + 5)));
}
