import type { SeriesName } from "./metric-store.ts";

/** Series by name, made for samples that come subject by subject: one look-up of a short key for each. */
export class SeriesIndex<Series> {
  readonly #subjects = new Map<string, Map<string, Series>>();
  #size = 0;
  #lastSubject = "";
  #lastUid = "";
  #last: Map<string, Series> | undefined;

  get size(): number {
    return this.#size;
  }

  get(name: SeriesName): Series | undefined {
    return this.#metricsOf(name)?.get(name.metric);
  }

  set(name: SeriesName, series: Series): void {
    let metrics = this.#metricsOf(name);
    if (!metrics) {
      metrics = new Map();
      this.#subjects.set(keyOf(name), metrics);
      this.#last = undefined;
    }
    if (!metrics.has(name.metric)) this.#size++;
    metrics.set(name.metric, series);
  }

  delete(name: SeriesName): void {
    const metrics = this.#metricsOf(name);
    if (!metrics?.delete(name.metric)) return;
    this.#size--;
    if (metrics.size > 0) return;
    this.#subjects.delete(keyOf(name));
    this.#last = undefined;
  }

  *values(): Iterable<Series> {
    for (const metrics of this.#subjects.values()) yield* metrics.values();
  }

  #metricsOf(name: SeriesName): Map<string, Series> | undefined {
    const { subject, uid } = name;
    if (this.#last && subject === this.#lastSubject && uid === this.#lastUid) return this.#last;
    this.#lastSubject = subject;
    this.#lastUid = uid;
    this.#last = this.#subjects.get(keyOf(name));
    return this.#last;
  }
}

function keyOf({ subject, uid }: SeriesName): string {
  return `${subject} ${uid}`;
}
