/** Writes down what happens to groups and to the requests while a demonstration runs. */
import type { Clock } from "../../core/clock.ts";
import type { Group } from "../../kinds/group.ts";
import type { Moment } from "./chart.ts";
import type { Answer } from "./load-generator.ts";

export interface Counted {
  sent: number;
  failed: number;
  /** Answers by the name of who gave them. */
  by: Map<string, number>;
}

/** All times in ms since `begin`. */
export class Recording {
  readonly #clock: Clock;
  #begunMs: number;
  readonly #serving = new Map<string, Moment[]>();
  readonly #answers: { atMs: number; group: string; failed: boolean; by: string | undefined }[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
    this.#begunMs = clock.monotonicMs();
  }

  /** What was seen before counts as the state at the beginning. */
  begin(): void {
    this.#begunMs = this.#clock.monotonicMs();
    this.#answers.length = 0;
    for (const [name, moments] of this.#serving) {
      const last = moments.at(-1);
      this.#serving.set(name, last ? [{ atMs: 0, value: last.value }] : []);
    }
  }

  get elapsedMs(): number {
    return this.#clock.monotonicMs() - this.#begunMs;
  }

  see(group: Group): void {
    const { name } = group.metadata;
    const moments = this.#serving.get(name) ?? [];
    this.#serving.set(name, moments);
    if (moments.at(-1)?.value === group.status.ready) return;
    moments.push({ atMs: Math.max(0, this.elapsedMs), value: group.status.ready });
  }

  answered(group: string, answer: Answer): void {
    const atMs = answer.sentMs - this.#begunMs;
    if (atMs < 0) return;
    const failed = answer.status === 0 || answer.status >= 500;
    this.#answers.push({ atMs, group, failed, by: answer.by });
  }

  serving(group: string): readonly Moment[] {
    return this.#serving.get(group) ?? [];
  }

  /** Least and most members that served in [fromMs, untilMs). */
  range(group: string, fromMs: number, untilMs: number): { least: number; most: number; last: number } {
    const moments = this.serving(group);
    const before = moments.findLast(({ atMs }) => atMs <= fromMs)?.value ?? 0;
    const within = moments.filter(({ atMs }) => atMs > fromMs && atMs < untilMs).map(({ value }) => value);
    const all = [before, ...within];
    return { least: Math.min(...all), most: Math.max(...all), last: all.at(-1) ?? before };
  }

  count(fromMs: number, untilMs: number, group?: string): Counted {
    const counted: Counted = { sent: 0, failed: 0, by: new Map() };
    for (const answer of this.#answers) {
      if (answer.atMs < fromMs || answer.atMs >= untilMs) continue;
      if (group !== undefined && answer.group !== group) continue;
      counted.sent++;
      if (answer.failed) counted.failed++;
      if (answer.by !== undefined) counted.by.set(answer.by, (counted.by.get(answer.by) ?? 0) + 1);
    }
    return counted;
  }

  /** Requests per second in equal steps. */
  load(lengthMs: number, steps: number): { atMs: number; sent: number; failed: number }[] {
    const stepMs = lengthMs / steps;
    const counts = Array.from({ length: steps }, (_, index) => ({
      atMs: index * stepMs,
      sent: 0,
      failed: 0,
    }));
    for (const { atMs, failed } of this.#answers) {
      const step = counts[Math.floor(atMs / stepMs)];
      if (!step) continue;
      step.sent += 1_000 / stepMs;
      if (failed) step.failed += 1_000 / stepMs;
    }
    return counts;
  }
}
