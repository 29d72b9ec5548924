/** What restic says, as data. Pure. Its messages are the only way to tell its failures apart: it ends with 1 for all. */
import { type ErrorCode, StrataError } from "../../core/errors.ts";
import { isJsonObject, type Json } from "../../core/json.ts";

export type ResticLine =
  | { type: "progress"; bytes: number }
  | { type: "summary"; readBytes: number; addedBytes: number };

/** A line of `restic backup --json`; undefined for all others. */
export function parseBackupLine(line: string): ResticLine | undefined {
  const value = parseJson(line);
  if (!isJsonObject(value)) return undefined;
  if (value.message_type === "status") return { type: "progress", bytes: count(value.bytes_done) };
  if (value.message_type !== "summary") return undefined;
  return {
    type: "summary",
    readBytes: count(value.total_bytes_processed),
    addedBytes: count(value.data_added),
  };
}

/** Full ids of `restic snapshots --json`, oldest first. */
export function parseSnapshotIds(text: string): string[] {
  const value = parseJson(text);
  if (!Array.isArray(value)) return [];
  return value.flatMap((one) => (isJsonObject(one) && typeof one.id === "string" ? [one.id] : []));
}

/** The id in `restic cat config`; undefined when that is something else. */
export function parseRepositoryId(text: string): string | undefined {
  const value = parseJson(text);
  return isJsonObject(value) && typeof value.id === "string" ? value.id : undefined;
}

interface Known {
  pattern: RegExp;
  code: ErrorCode;
  message: string;
}

/** First match wins. */
const knownFailures: readonly Known[] = [
  {
    pattern: /wrong password or no key found/i,
    code: "Forbidden",
    message: "the key does not open the repository",
  },
  {
    pattern: /AccessDenied|Access Denied|InvalidAccessKeyId|SignatureDoesNotMatch|403 Forbidden/i,
    code: "Forbidden",
    message: "the S3 service refuses the access key",
  },
  {
    pattern: /no space left on device|disk quota exceeded/i,
    code: "Unavailable",
    message: "there is no space left where the repository is",
  },
  {
    pattern: /repository is already locked/i,
    code: "Unavailable",
    message: "somebody else is working on the repository",
  },
  {
    pattern:
      /connection refused|": Bad Gateway|no such host|i\/o timeout|network is unreachable|no route to host|(?<!unexpected )EOF$/im,
    code: "Unavailable",
    message: "the S3 service does not answer",
  },
  {
    pattern:
      /\b50[0-4] (?:Internal Server Error|Bad Gateway|Service Unavailable|Gateway Time)|InternalError|SlowDown/i,
    code: "Unavailable",
    message: "the S3 service fails",
  },
  {
    pattern: /\b30[1278] (?:Moved|Found|Temporary|Permanent)|PermanentRedirect|TemporaryRedirect/i,
    code: "Unavailable",
    message: "the S3 service says that it is elsewhere; check endpoint and region",
  },
  {
    pattern: /unable to open config file/i,
    code: "Unavailable",
    message: "there is no repository",
  },
  {
    pattern:
      /ciphertext verification failed|invalid data returned|does not match|is damaged|unexpected EOF|unexpected file size|repository contains errors|not found in (?:the )?index|no matching ID/i,
    code: "Internal",
    message: "the repository is damaged: `strata backup verify` says more",
  },
];

/** There is nothing where the repository should be. */
export function isMissing(stderr: string): boolean {
  return (
    /unable to open config file/i.test(stderr) &&
    /no such file|does not exist|NoSuchBucket|NoSuchKey/i.test(stderr)
  );
}

/** Snapshots need pieces that the index does not have, which is why nothing is pruned. */
export function isIncomplete(output: string): boolean {
  return /not found in (?:the )?index|index is not complete/i.test(output);
}

/** One clear error for what restic printed before it failed. */
export function explainFailure(doing: string, stderr: string): StrataError {
  const detail = stderr.trim().slice(-2000);
  const known = knownFailures.find(({ pattern }) => pattern.test(stderr));
  if (!known) return new StrataError("Internal", `cannot ${doing}: restic failed`, { detail });
  return new StrataError(known.code, `cannot ${doing}: ${known.message}`, { detail });
}

/** What `restic check` complains of, short enough for a status. */
export function findings(stderr: string, stdout: string): string {
  const lines = `${stderr}\n${stdout}`.split("\n").map((line) => line.trim());
  const telling = lines.filter((line) =>
    /error|damaged|does not match|failed|missing|unexpected/i.test(line),
  );
  const shown = telling.filter((line) => !/^Fatal: repository contains errors/i.test(line));
  return (shown.length > 0 ? shown : telling).slice(0, 3).join("; ").slice(0, 600);
}

function count(value: Json | undefined): number {
  return typeof value === "number" && Number.isSafeInteger(value) && value >= 0 ? value : 0;
}

function parseJson(text: string): Json | undefined {
  try {
    return JSON.parse(text) as Json;
  } catch {
    return undefined;
  }
}
