import { describeError, StrataError } from "../core/errors.ts";
import { exitCodes, exitInterrupted } from "./exit-codes.ts";

/** Thrown where Ctrl-C ends a command; `message` says what goes on without it. */
export class Interrupted extends Error {}

/** What a person reads about an error: one line, then a line for each wrong value. Never a stack trace. */
export function explain(error: unknown, debug = false): string {
  if (error instanceof Interrupted) return error.message;
  const lines: string[] = [];
  if (error instanceof StrataError) {
    lines.push(`error: ${error.message}`);
    for (const field of error.fields) {
      lines.push(`  ${field.path}: ${field.message}${field.allowed ? ` (allowed: ${field.allowed})` : ""}`);
    }
  } else {
    const text = error instanceof Error ? error.message : String(error);
    lines.push(`error: unexpected: ${firstLine(text)}; STRATA_DEBUG=1 shows more`);
  }
  if (debug) lines.push(`debug: ${describeError(error)}`);
  return lines.join("\n");
}

export function exitStatus(error: unknown): number {
  if (error instanceof Interrupted) return exitInterrupted;
  return error instanceof StrataError ? exitCodes[error.code] : 1;
}

function firstLine(text: string): string {
  return text.split("\n", 1)[0] ?? "";
}
