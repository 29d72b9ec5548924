/** Reads what `nft monitor` prints: changes line by line, and after each transaction who made it. Pure. */

export interface Generation {
  /** Process that made the change; undefined when nft does not say. */
  pid: number | undefined;
}

/** A line of a large set can be very long, and only its beginning matters. */
const maxLineLength = 4_096;

export class GenerationReader {
  readonly #tables: readonly string[];
  readonly #onChange: (generation: Generation) => void;
  #partial = "";
  #touched = false;

  constructor(tables: readonly string[], onChange: (generation: Generation) => void) {
    this.#tables = tables;
    this.#onChange = onChange;
  }

  read(text: string): void {
    const lines = text.split("\n");
    lines[0] = this.#partial + lines[0];
    this.#partial = (lines.pop() ?? "").slice(0, maxLineLength);
    for (const line of lines) this.#readLine(line);
  }

  #readLine(line: string): void {
    const generation = /^# new generation \d+(?: by process (\d+))?/.exec(line);
    if (!generation) {
      // `add element inet strata cards { … }`, `delete table bridge strata`
      const subject = /^(?:add|delete|destroy|flush|insert|replace) \w+ (\w+ [^\s{]+)/.exec(line)?.[1];
      if (subject !== undefined && this.#tables.includes(subject)) this.#touched = true;
      return;
    }
    if (this.#touched)
      this.#onChange({ pid: generation[1] === undefined ? undefined : Number(generation[1]) });
    this.#touched = false;
  }
}
