import { StrataError } from "../../core/errors.ts";

/**
 * A full disk, by whichever way it was noticed, as the one error that people understand; any other error unchanged.
 * @param what completes "there is no space left to …"
 */
export function explainNoSpace(error: unknown, what: string, directory: string): unknown {
  return isNoSpace(error)
    ? new StrataError("Unavailable", `there is no space left to ${what}: ${directory} is full`, {
        cause: error,
      })
    : error;
}

function isNoSpace(error: unknown): boolean {
  for (
    let current = error, depth = 0;
    current instanceof Error && depth < 8;
    current = current.cause, depth++
  ) {
    const { code } = current as NodeJS.ErrnoException;
    if (code === "ENOSPC" || code === "EDQUOT") return true;
    const text = current instanceof StrataError ? (current.detail ?? "") : current.message;
    if (/no space left on device|disk quota exceeded/i.test(text)) return true;
  }
  return false;
}
