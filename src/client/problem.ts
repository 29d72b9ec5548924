import { type ErrorCode, errorCodes, type FieldError, StrataError } from "../core/errors.ts";
import { isJsonObject, type Json } from "../core/json.ts";

const codes: ReadonlySet<string> = new Set(errorCodes);

/** A problem (RFC 9457) as the error it was; what is no problem of ours becomes Internal, saying where it came from. */
export function fromProblem(problem: Json | undefined, status: number, request: string): StrataError {
  if (isJsonObject(problem) && typeof problem.code === "string" && codes.has(problem.code)) {
    const message = typeof problem.detail === "string" ? problem.detail : `${request} failed`;
    const requestId = typeof problem.requestId === "string" ? problem.requestId : "unknown";
    return new StrataError(problem.code as ErrorCode, message, {
      fields: fieldsOf(problem.fields),
      detail: `${request}, request ${requestId}`,
    });
  }
  return new StrataError(
    status === 502 || status === 503 || status === 504 ? "Unavailable" : "Internal",
    `${request} was answered with HTTP status ${status}, and not by Strata; is something else listening there?`,
  );
}

function fieldsOf(fields: Json | undefined): FieldError[] {
  if (!Array.isArray(fields)) return [];
  return fields.flatMap((field) => {
    if (!isJsonObject(field)) return [];
    const { path, message, allowed } = field;
    if (typeof path !== "string" || typeof message !== "string") return [];
    return [typeof allowed === "string" ? { path, message, allowed } : { path, message }];
  });
}
