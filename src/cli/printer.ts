/**
 * The one place that draws: tables, trees, progress, questions, errors. Results go to standard output, everything that
 * tells how a command is doing goes to standard error, so that a pipe gets data alone.
 */
import { createInterface } from "node:readline/promises";
import type { Readable, Writable } from "node:stream";
import type { Clock } from "../core/clock.ts";
import { StrataError } from "../core/errors.ts";
import type { Json } from "../core/json.ts";
import { LiveLines, type LiveTarget } from "./live-lines.ts";
import type { Branch, Cell, Output, Tone } from "./output.ts";

export interface Streams {
  stdin: Readable & { isTTY?: boolean };
  stdout: Writable & { isTTY?: boolean; rows?: number };
  stderr: LiveTarget;
}

const colors: Record<Tone, string> = { good: "32", bad: "31", busy: "33", dim: "2" };

export class Printer {
  readonly json: boolean;
  readonly #streams: Streams;
  readonly #colorful: boolean;
  readonly #live: LiveLines;

  constructor(streams: Streams, clock: Clock, options: { json: boolean; color: boolean }) {
    this.#streams = streams;
    this.#live = new LiveLines(streams.stderr, clock);
    this.json = options.json;
    this.#colorful = options.color;
  }

  output(output: Output): void {
    if (output.type === "done") return;
    this.#live.clear();
    if (this.json) this.writeJson(output.json);
    else if (output.type === "message") this.#out(output.text);
    else if (output.type === "tree") this.#out(this.#tree(output.branches, ""));
    else if (output.rows.length === 0) this.note(output.empty);
    else this.#out(this.#table(output.columns, output.rows));
  }

  /** One JSON document, indented, for people and programs alike. */
  writeJson(value: Json): void {
    this.#streams.stdout.write(`${JSON.stringify(value, null, 2)}\n`);
  }

  /** One element of a stream: a line of JSON or a line of text. */
  item(text: string, json: Json): void {
    this.#streams.stdout.write(`${this.json ? JSON.stringify(json) : text}\n`);
  }

  /** Says something beside the result. */
  note(text: string): void {
    this.#live.clear();
    this.#streams.stderr.write(`${text}\n`);
  }

  table(columns: readonly string[], rows: readonly (readonly Cell[])[]): void {
    if (!this.json) this.#out(this.#table(columns, rows));
  }

  /** As `table` prints it. */
  tableText(columns: readonly string[], rows: readonly (readonly Cell[])[]): string {
    return this.#table(columns, rows);
  }

  /** How far something has come; see LiveLines. */
  progress(key: string, text: string, more: { percent?: string; settled?: boolean } = {}): void {
    this.#live.set(key, text, more.percent ?? "", more.settled ?? false);
  }

  /**
   * Asks before something is destroyed.
   * @throws Invalid where nobody can answer.
   */
  async confirm(question: string, signal: AbortSignal): Promise<boolean> {
    if (!this.#streams.stdin.isTTY || !this.#streams.stderr.isTTY) {
      throw new StrataError("Invalid", `${question} Nobody can answer here: add --yes to go on`);
    }
    this.#live.clear();
    const reader = createInterface({ input: this.#streams.stdin, output: this.#streams.stderr });
    try {
      const answer = await reader.question(`${question} [y/N] `, { signal });
      return /^y(es)?$/i.test(answer.trim());
    } finally {
      reader.close();
    }
  }

  paint(text: string, tone: Tone): string {
    return this.#colorful && text !== "" ? `\u001b[${colors[tone]}m${text}\u001b[0m` : text;
  }

  #out(text: string): void {
    this.#live.clear();
    this.#streams.stdout.write(`${text}\n`);
  }

  #table(columns: readonly string[], rows: readonly (readonly Cell[])[]): string {
    const widths = columns.map((column, index) =>
      rows.reduce((width, row) => Math.max(width, cellText(row[index]).length), column.length),
    );
    const line = (cells: readonly Cell[]) =>
      cells
        .map((cell, index) => {
          const text = cellText(cell);
          const padding = index === cells.length - 1 ? "" : " ".repeat((widths[index] ?? 0) - text.length);
          return `${this.#cell(cell)}${padding}`;
        })
        .join("  ")
        .trimEnd();
    return [line(columns.map((text) => ({ text, tone: "dim" as const }))), ...rows.map(line)].join("\n");
  }

  #tree(branches: readonly Branch[], indent: string): string {
    const valued = branches.filter((branch) => branch.value !== undefined && !branch.children);
    const width = Math.max(0, ...valued.map((branch) => branch.label.length));
    return branches
      .map((branch) => {
        const label = branch.value === undefined ? branch.label : branch.label.padEnd(width);
        const value = branch.value === undefined ? "" : `  ${this.#cell(branch.value)}`;
        const own = `${indent}${this.paint(label, "dim")}${value}`.trimEnd();
        return branch.children?.length ? `${own}\n${this.#tree(branch.children, `${indent}  `)}` : own;
      })
      .join("\n");
  }

  #cell(cell: Cell): string {
    return typeof cell === "string" ? printable(cell) : this.paint(printable(cell.text), cell.tone);
  }
}

function cellText(cell: Cell | undefined): string {
  return cell === undefined ? "" : printable(typeof cell === "string" ? cell : cell.text);
}

/** Nothing that a resource says may move the cursor or forge another line. */
function printable(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is taken out
  return text.replace(/[\u0000-\u001f\u007f-\u009f]+/g, " ");
}
