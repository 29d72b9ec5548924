/**
 * What passes through one balancer, as far as the agent takes part in it: requests that are held, the access log, and
 * what is measured.
 */
import type { Clock } from "../../core/clock.ts";
import type { BalancerStatistics, Balancers } from "../../host/balancers/balancers.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { type AccessRecord, formatAccess, percentile } from "./access-log.ts";
import { Holder } from "./holder.ts";
import { LogFile } from "./log-file.ts";
import { LogIntake } from "./log-intake.ts";

export interface TrafficOptions {
  uid: string;
  balancers: Pick<Balancers, "sockets" | "logPath" | "statistics">;
  clock: Clock;
  /** As the API has it now. */
  resource(): LoadBalancer | undefined;
  /** Something changed that the balancer's status tells. */
  onChange(): void;
}

/** Latencies kept between two rounds, of the whole and of each server; more are counted but not measured. */
const maxLatencies = 5_000;

export class Traffic {
  readonly holder: Holder;
  readonly #options: TrafficOptions;
  readonly #intake: LogIntake;
  readonly #file: LogFile;
  readonly #latencies = new Map<string, number[]>();
  #last: { at: number; statistics: BalancerStatistics[] } | undefined;

  constructor(options: TrafficOptions) {
    this.#options = options;
    const { uid, balancers, clock, onChange } = options;
    this.holder = new Holder(clock, onChange);
    this.#file = new LogFile(balancers.logPath(uid), clock);
    this.#intake = new LogIntake({
      onAccess: (record) => this.#access(record),
      // Of a server's health, mostly.
      onNotice: onChange,
    });
  }

  /** HAProxy finds both from then on. */
  async listen(): Promise<void> {
    const { uid, balancers } = this.#options;
    const { holder, log } = balancers.sockets(uid);
    await Promise.all([this.holder.listen(holder), this.#intake.listen(log)]);
  }

  close(): void {
    this.holder.close();
    this.#intake.close();
  }

  /** Since the last call; of servers, `METRIC@UID`. Undefined the first time, when there is nothing to compare with. */
  async measure(): Promise<Record<string, number> | undefined> {
    const { uid, balancers, clock } = this.#options;
    const statistics = await balancers.statistics(uid);
    const now = clock.monotonicMs();
    const last = this.#last;
    this.#last = { at: now, statistics };
    const latencies = new Map(this.#latencies);
    this.#latencies.clear();
    if (!last) return undefined;
    return trafficValues(last.statistics, statistics, now - last.at, latencies, this.holder.count);
  }

  #access(record: AccessRecord): void {
    const resource = this.#options.resource();
    const uid = record.server.split(".", 1)[0] ?? "";
    this.#keep("", record.totalMs);
    this.#keep(uid, record.totalMs);
    if (!resource?.spec.accessLog) return;
    const name = resource.status.targets.find((target) => target.uid === uid)?.name;
    this.#file.write(formatAccess(record, name ?? plainName(record.server)));
  }

  #keep(uid: string, ms: number): void {
    const kept = this.#latencies.get(uid);
    if (!kept) this.#latencies.set(uid, [ms]);
    else if (kept.length < maxLatencies) kept.push(ms);
  }
}

/** Of servers that are not instances, or gone. */
function plainName(server: string): string {
  if (server === "holder") return "(held)";
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
