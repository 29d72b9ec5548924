import type { Json } from "../core/json.ts";

/** How a value is meant: good, bad, under way, or beside the point. Colours on a terminal, nothing elsewhere. */
export type Tone = "good" | "bad" | "busy" | "dim";

export type Cell = string | { text: string; tone: Tone };

/** A line of a tree: a label, a value, and what belongs below it. */
export interface Branch {
  label: string;
  value?: Cell;
  children?: readonly Branch[];
}

/**
 * What a command returns. Only the printer knows how it looks; with --json it prints `json` alone, which has the form of
 * the API's own resources.
 */
export type Output =
  | {
      type: "table";
      columns: readonly string[];
      rows: readonly (readonly Cell[])[];
      /** Printed instead of a table without rows. */
      empty: string;
      json: Json;
    }
  /** `status`: the exit status, where it says more than success. */
  | { type: "tree"; branches: readonly Branch[]; json: Json; status?: number }
  | { type: "message"; text: string; json: Json }
  /** Printed already, such as a stream; `status` is the exit status. */
  | { type: "done"; status?: number };
