import { type ErrorCode, StrataError, toStrataError } from "../core/errors.ts";
import type { JsonObject } from "../core/json.ts";
import { STATUS_CODES } from "../core/node-http.ts";

/** Errors as HTTP answers: problem details (RFC 9457), told apart by `code`. */

export const problemType = "application/problem+json";

const forms = {
  NotFound: { status: 404, title: "Not found" },
  AlreadyExists: { status: 409, title: "Already exists" },
  Conflict: { status: 409, title: "Conflict" },
  Invalid: { status: 400, title: "Invalid request" },
  Unauthenticated: { status: 401, title: "Not authenticated" },
  Forbidden: { status: 403, title: "Forbidden" },
  QuotaExceeded: { status: 403, title: "Quota exceeded" },
  CapacityExceeded: { status: 503, title: "Capacity exceeded" },
  Unsupported: { status: 422, title: "Not supported" },
  Unavailable: { status: 503, title: "Unavailable" },
  Timeout: { status: 504, title: "Timed out" },
  Compacted: { status: 410, title: "History is gone" },
  Internal: { status: 500, title: "Internal error" },
} satisfies Record<ErrorCode, { status: number; title: string }>;

/** Where HTTP has a more exact word than the code: the error stays the same for programs that look at `code`. */
export class HttpError extends StrataError {
  readonly status: number;

  constructor(status: number, code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(code, message, options);
    this.status = status;
  }
}

export interface Problem {
  status: number;
  body: JsonObject;
}

/** The answer for anything thrown. What is not ours to tell becomes Internal without a reason. */
export function toProblem(error: unknown, requestId: string): Problem {
  const known = fromFastify(error) ?? toStrataError(error, "the request");
  const status = known instanceof HttpError ? known.status : forms[known.code].status;
  const body: JsonObject = {
    type: `urn:strata:problem:${known.code}`,
    title:
      known instanceof HttpError
        ? (STATUS_CODES[status] ?? forms[known.code].title)
        : forms[known.code].title,
    status,
    code: known.code,
    detail: known.message,
    requestId,
  };
  if (known.fields.length > 0) body.fields = known.fields.map((field) => ({ ...field }));
  return { status, body };
}

/** Fastify's own refusals carry a status and a text for the client. */
function fromFastify(error: unknown): HttpError | undefined {
  if (error instanceof StrataError || !(error instanceof Error)) return undefined;
  const { statusCode, code } = error as { statusCode?: number; code?: string };
  if (statusCode === undefined || statusCode < 400 || statusCode > 499 || !code?.startsWith("FST_"))
    return undefined;
  if (statusCode === 415) {
    return new HttpError(
      415,
      "Invalid",
      "the body's Content-Type is not understood; send JSON with Content-Type: application/json",
    );
  }
  return new HttpError(statusCode, "Invalid", error.message, { cause: error });
}

export const errorCodesToStatus: Readonly<Record<ErrorCode, number>> = Object.fromEntries(
  Object.entries(forms).map(([code, form]) => [code, form.status]),
) as Record<ErrorCode, number>;
