/**
 * How things come along, on a terminal: one line for each, redrawn in place, with the seconds it has taken. Where there
 * is no terminal, each change is a line of its own.
 */
import type { Writable } from "node:stream";
import type { Clock } from "../core/clock.ts";

export interface LiveTarget extends Writable {
  isTTY?: boolean;
  columns?: number;
  rows?: number;
}

interface Line {
  text: string;
  detail: string;
  sinceMs: number;
  settled: boolean;
}

const tickMs = 1_000;
/** Shorter waits need no clock. */
const shownFromSeconds = 3;
const maxLines = 20;

export class LiveLines {
  readonly #target: LiveTarget;
  readonly #clock: Clock;
  readonly #lines = new Map<string, Line>();
  #drawn = 0;
  #cancelTick: () => void = () => {};

  constructor(target: LiveTarget, clock: Clock) {
    this.#target = target;
    this.#clock = clock;
  }

  /** `detail` changes often (a percentage) and is worth no line of its own; `settled`: nothing more is to be expected. */
  set(key: string, text: string, detail: string, settled: boolean): void {
    const previous = this.#lines.get(key);
    // What was there from the beginning is not worth a line.
    if (settled && !previous) return;
    const sinceMs = previous?.text === text ? previous.sinceMs : this.#clock.monotonicMs();
    this.#lines.set(key, { text, detail, sinceMs, settled });
    if (this.#target.isTTY) this.#redraw();
    else if (previous?.text !== text) this.#target.write(`${key}: ${text}\n`);
  }

  /** Takes the lines off the terminal; what is told next starts anew. */
  clear(): void {
    this.#erase();
    this.#cancelTick();
    if (this.#target.isTTY) this.#lines.clear();
  }

  #redraw(): void {
    this.#erase();
    this.#cancelTick();
    const active = [...this.#lines].filter(([, line]) => !line.settled);
    const room = Math.max(1, Math.min(maxLines, (this.#target.rows || 24) - 3));
    const shown = active.slice(0, room).map(([key, line]) => this.#fit(key, line));
    if (active.length > room) shown.push(`… and ${active.length - room} more`);
    for (const line of shown) this.#target.write(`${line}\n`);
    this.#drawn = shown.length;
    if (shown.length > 0) this.#cancelTick = this.#clock.after(tickMs, () => this.#redraw());
  }

  /** A longer line would wrap, and the next redraw erase too little. */
  #fit(key: string, { text, detail, sinceMs }: Line): string {
    const seconds = Math.floor((this.#clock.monotonicMs() - sinceMs) / 1000);
    const time = seconds >= shownFromSeconds ? ` (${seconds} s)` : "";
    const tail = `${detail && ` ${detail}`}${time}`;
    const room = (this.#target.columns || 80) - 1 - tail.length;
    const line = `${key}: ${text}`;
    return `${line.length <= room ? line : `${line.slice(0, Math.max(0, room - 1))}…`}${tail}`;
  }

  #erase(): void {
    if (this.#drawn > 0) this.#target.write(`\u001b[${this.#drawn}A\u001b[J`);
    this.#drawn = 0;
  }
}
