import { StrataError } from "../../core/errors.ts";

/** Primary result codes, https://sqlite.org/rescode.html. */
const resultCodes = {
  busy: 5,
  locked: 6,
  noMemory: 7,
  readOnly: 8,
  ioError: 10,
  corrupt: 11,
  full: 13,
  cannotOpen: 14,
  notADatabase: 26,
} as const;

export function isSqliteError(error: unknown, ...names: (keyof typeof resultCodes)[]): boolean {
  const code = primaryCode(error);
  return names.some((name) => resultCodes[name] === code);
}

/** What node:sqlite threw, in words for the person who asked; the path and SQLite's own words stay in the detail. */
export function toStoreError(action: string, path: string, error: unknown): StrataError {
  if (error instanceof StrataError) return error;
  const options = { cause: error, detail: `${path}, SQLite result ${extendedCode(error) ?? "none"}` };
  if (isSqliteError(error, "full")) {
    return new StrataError(
      "Unavailable",
      `cannot ${action}: the store has no space left; free space in the state directory or compact, then try again`,
      options,
    );
  }
  if (isSqliteError(error, "corrupt", "notADatabase")) {
    return new StrataError(
      "Internal",
      `cannot ${action}: the store's file is damaged; stop the daemon and restore a backup`,
      options,
    );
  }
  if (isSqliteError(error, "busy", "locked", "noMemory", "readOnly", "ioError", "cannotOpen")) {
    return new StrataError(
      "Unavailable",
      `cannot ${action}: the store's disk refused; the daemon's log has the cause`,
      options,
    );
  }
  return new StrataError(
    "Internal",
    `cannot ${action}: the store failed unexpectedly; the daemon's log has the cause`,
    options,
  );
}

/** The low byte of the extended code names the kind of failure. */
function primaryCode(error: unknown): number | undefined {
  const code = extendedCode(error);
  return code === undefined ? undefined : code & 0xff;
}

function extendedCode(error: unknown): number | undefined {
  if (!(error instanceof Error) || !("errcode" in error)) return undefined;
  return typeof error.errcode === "number" ? error.errcode : undefined;
}
