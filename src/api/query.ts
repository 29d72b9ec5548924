import { type FieldError, StrataError } from "../core/errors.ts";
import { closest } from "../core/spelling.ts";

/** The parameters after `?`, checked as strictly as bodies: what is not known is an error, not ignored. */
export class Query {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  /** @throws Invalid for a parameter that is not among `known`. */
  constructor(raw: unknown, known: readonly string[]) {
    const entries = Object.entries((raw ?? {}) as Record<string, string | string[]>);
    const errors = entries
      .filter(([name]) => !known.includes(name))
      .map(([name]): FieldError => {
        const near = closest(name, known);
        const hint = near === undefined ? "" : `; did you mean "${near}"?`;
        const path = `?${name.slice(0, 80)}`;
        return { path, message: `is not a known parameter${hint}`, allowed: known.join(", ") || "none" };
      });
    if (errors.length > 0) throw wrongQuery(errors);
    this.#values = new Map(entries.map(([name, value]) => [name, Array.isArray(value) ? value : [value]]));
  }

  /** @throws Invalid when it is given more than once. */
  text(name: string): string | undefined {
    const values = this.#values.get(name) ?? [];
    if (values.length > 1) throw wrongQuery([{ path: `?${name}`, message: "is given more than once" }]);
    return values[0];
  }

  /** @throws Invalid when it is missing. */
  requireText(name: string): string {
    const value = this.text(name);
    if (value === undefined) throw wrongQuery([{ path: `?${name}`, message: "is required" }]);
    return value;
  }

  integer(name: string): number | undefined {
    const value = this.text(name);
    if (value === undefined) return undefined;
    if (!/^\d{1,15}$/.test(value))
      throw wrongQuery([{ path: `?${name}`, message: "must be a whole number" }]);
    return Number(value);
  }

  flag(name: string): boolean {
    const value = this.text(name);
    if (value === undefined || value === "false") return false;
    if (value === "true" || value === "") return true;
    throw wrongQuery([{ path: `?${name}`, message: "must be true or false", allowed: "true, false" }]);
  }

  /** Repeated `name=KEY=VALUE` as a record; undefined when there is none. */
  pairs(name: string): Record<string, string> | undefined {
    const values = this.#values.get(name);
    if (!values) return undefined;
    const pairs = values.map((value) => {
      const at = value.indexOf("=");
      if (at > 0) return [value.slice(0, at), value.slice(at + 1)] as const;
      throw wrongQuery([{ path: `?${name}`, message: "must be KEY=VALUE", allowed: `${name}=KEY=VALUE` }]);
    });
    return Object.fromEntries(pairs);
  }
}

function wrongQuery(fields: readonly FieldError[]): StrataError {
  const [first] = fields;
  return new StrataError("Invalid", `the request's parameter ${first?.path} ${first?.message}`, { fields });
}
