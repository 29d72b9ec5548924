/**
 * What passes through one balancer, as far as the agent takes part in it: requests that are held, the access log, and
 * what is measured.
 */
import type { Clock } from "../../core/clock.ts";
import type { BalancerStatistics, Balancers } from "../../host/balancers/balancers.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { type AccessRecord, formatAccess, type Latency, percentile } from "./access-log.ts";
import { Holder } from "./holder.ts";
import { LogFile } from "./log-file.ts";
import { LogIntake } from "./log-intake.ts";

export interface TrafficOptions {
  uid: string;
  balancers: Pick<Balancers, "channels" | "logPath" | "statistics">;
  clock: Clock;
  /** As the API has it now. */
  resource(): LoadBalancer | undefined;
  /** Something changed that the balancer's status tells. */
  onChange(): void;
}

/** Latencies kept between two reports, of the whole and of each server; more are counted but not measured. */
const maxLatencies = 5_000;
/** Rates are those of so long a time, or a little more. */
const windowMs = 1_000;
/** Until its rates are of at least so long a time, a balancer has none. */
const shortestWindowMs = 500;
/** A balancer whose figures stay about the same reports them this often. */
const reportEveryMs = 1_000;
/** A rate that changed by this share since it was reported is news, and reported at once. */
const newsShare = 0.15;
/** So are so few requests a second none. */
const newsFloor = 2;

export class Traffic {
  readonly holder: Holder;
  readonly #options: TrafficOptions;
  readonly #intake: LogIntake;
  readonly #file: LogFile;
  readonly #latencies = new Map<string, number[]>();
  /** Oldest first: what the window begins with, and what came since. */
  readonly #looks: { at: number; statistics: BalancerStatistics[] }[] = [];
  #answered = false;
  #reported = { at: Number.NEGATIVE_INFINITY, requests: 0, queue: 0 };

  constructor(options: TrafficOptions) {
    this.#options = options;
    const { uid, balancers, clock, onChange } = options;
    this.holder = new Holder(clock, onChange);
    this.#file = new LogFile(balancers.logPath(uid), clock);
    this.#intake = new LogIntake(
      {
        onAccess: (record) => this.#access(record),
        onLatency: (latency) => this.#measure(latency),
        // Of a server's health, mostly.
        onNotice: onChange,
      },
      clock,
    );
  }

  /** HAProxy finds both from then on. */
  async listen(): Promise<void> {
    const { uid, balancers } = this.#options;
    const { holder, log } = balancers.channels(uid);
    await Promise.all([this.holder.listen(holder), this.#intake.listen(log)]);
  }

  close(): void {
    this.holder.close();
    this.#intake.close();
  }

  /**
   * What is worth a report now: once a second, and at once when the rate of requests changes. Of servers, `METRIC@UID`.
   * To be called every few hundred milliseconds; costs nothing while nothing happens.
   */
  async news(): Promise<Record<string, number> | undefined> {
    const { uid, balancers, clock } = this.#options;
    const due = clock.monotonicMs() - this.#reported.at >= reportEveryMs;
    if (!due && !this.#answered && this.holder.count === this.#reported.queue) return undefined;
    this.#answered = false;
    const statistics = await balancers.statistics(uid);
    const now = clock.monotonicMs();
    this.#looks.push({ at: now, statistics });
    while ((this.#looks[1]?.at ?? now) <= now - windowMs) this.#looks.shift();
    const [base] = this.#looks;
    if (!base || now - base.at < shortestWindowMs) return undefined;
    const held = this.holder.count;
    const values = trafficValues(base.statistics, statistics, now - base.at, this.#latencies, held);
    const { requests = 0 } = values;
    const change = Math.abs(requests - this.#reported.requests);
    const isNews = change > Math.max(newsFloor, newsShare * this.#reported.requests);
    if (!due && !isNews && held === this.#reported.queue) return undefined;
    this.#reported = { at: now, requests, queue: held };
    this.#latencies.clear();
    return values;
  }

  /** A request was answered: there may be news. */
  answered(): void {
    this.#answered = true;
  }

  #access(record: AccessRecord): void {
    this.#measure(record);
    const resource = this.#options.resource();
    if (!resource?.spec.accessLog) return;
    const uid = uidOf(record.server);
    const name = resource.status.targets.find((target) => target.uid === uid)?.name;
    this.#file.write(formatAccess(record, name ?? plainName(record.server)));
  }

  #measure({ server, totalMs }: Latency): void {
    this.answered();
    if (totalMs < 0) return;
    this.#keep("", totalMs);
    this.#keep(uidOf(server), totalMs);
  }

  #keep(uid: string, ms: number): void {
    const kept = this.#latencies.get(uid);
    if (!kept) this.#latencies.set(uid, [ms]);
    else if (kept.length < maxLatencies) kept.push(ms);
  }
}

function uidOf(server: string): string {
  return server.split(".", 1)[0] ?? "";
}

/** Of servers that are not instances, or gone. */
function plainName(server: string): string {
  if (server === "holder" || server === "pause") return "(held)";
  return server.startsWith("<") ? "-" : server;
}

/** Pure. `latencies` by uid, of the whole under "". */
export function trafficValues(
  before: readonly BalancerStatistics[],
  after: readonly BalancerStatistics[],
  elapsedMs: number,
  latencies: ReadonlyMap<string, number[]>,
  held: number,
): Record<string, number> {
  const values: Record<string, number> = {};
  const previous = new Map(before.map((one) => [one.uid, one]));
  for (const one of after) {
    const suffix = one.uid === undefined ? "" : `@${one.uid}`;
    const old = previous.get(one.uid);
    const perSecond = (counter: "requests" | "errors") => {
      // Smaller than before: HAProxy began anew.
      const base = old && old[counter] <= one[counter] ? old[counter] : 0;
      return ((one[counter] - base) * 1000) / Math.max(1, elapsedMs);
    };
    values[`requests${suffix}`] = perSecond("requests");
    values[`errors${suffix}`] = perSecond("errors");
    values[`sessions${suffix}`] = one.sessions;
    values[`queue${suffix}`] = one.queue + (one.uid === undefined ? held : 0);
    const sorted = (latencies.get(one.uid ?? "") ?? []).toSorted((a, b) => a - b);
    for (const percent of [50, 90, 95, 99]) {
      const value = percentile(sorted, percent / 100);
      if (value !== undefined) values[`latency-${percent}${suffix}`] = value;
    }
  }
  return values;
}
