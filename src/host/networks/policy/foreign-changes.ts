/**
 * Tells others' changes of rules from our own in what `nft monitor rules` prints. Pure.
 *
 * Only rules are listened to: nft 1.0.6 prints megabytes of garbage for elements with ranges. Whoever flushes a ruleset, a
 * table or a chain deletes rules, so that is seen; a foreign change of nothing but elements is not.
 *
 * A transaction of ours that changes rules begins and ends with a rule of a table that is there for nothing else. What
 * the kernel announces of one transaction is never mixed with another, so all between the two is ours.
 */

/** A name for the table, and what only this process writes into it. */
export interface Marks {
  /** `inet NAME` */
  table: string;
  token: string;
}

const chain = "marks";

/** The transaction with its marks; one that changes no rules stays as it is. */
export function withMarks(text: string, { table, token }: Marks): string {
  if (!/^(?:add rule|flush chain|delete (?:chain|table)) /m.test(text)) return text;
  const mark = (what: string) => `add rule ${table} ${chain} return comment "${what} ${token}"\n`;
  const make = `add table ${table}\nadd chain ${table} ${chain}\nflush chain ${table} ${chain}\n`;
  return `${make}${mark("begin")}${text}${mark("end")}`;
}

/** A line can be very long, and only its beginning matters. */
const maxLineLength = 4_096;

export interface ForeignChangesOptions {
  /** Those of interest, as `inet strata`. */
  tables: readonly string[];
  marks: Marks;
  /** Somebody else changed a rule in one of the tables. */
  onChange: (line: string) => void;
  /** A transaction of ours begins. What was heard before was there before it. */
  onOwn?: () => void;
}

export class ForeignChanges {
  readonly #options: ForeignChangesOptions;
  #partial = "";
  #ours = false;

  constructor(options: ForeignChangesOptions) {
    this.#options = options;
  }

  read(text: string): void {
    const lines = text.split("\n");
    lines[0] = this.#partial + lines[0];
    this.#partial = (lines.pop() ?? "").slice(0, maxLineLength);
    for (const line of lines) this.#readLine(line);
  }

  #readLine(line: string): void {
    // `add rule inet strata input handle 4 accept`, `delete rule bridge strata from-ports handle 7`
    const table = /^\w+ rule (\w+ [^\s{]+) /.exec(line)?.[1];
    const { tables, marks, onChange, onOwn } = this.#options;
    if (table === marks.table) {
      if (line.includes(`"end ${marks.token}"`)) this.#ours = false;
      if (!line.includes(`"begin ${marks.token}"`)) return;
      this.#ours = true;
      onOwn?.();
    } else if (!this.#ours && table !== undefined && tables.includes(table)) {
      onChange(line.slice(0, 200));
    }
  }
}
