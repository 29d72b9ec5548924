import type { z } from "zod";
import { type FieldError, StrataError } from "../core/errors.ts";
import { closest } from "../core/spelling.ts";

/**
 * Turns what a user wrote into a value of a schema, or into errors that name the place in the user's own words
 * (`spec.memoryMib`), say what is wrong and what would be right. Messages written in a schema come first.
 */

/** At most this many errors are told at once. */
const maxFieldErrors = 20;
/** Of a value that a message repeats. */
const shownValueLength = 64;

type Issue = z.core.$ZodIssue;
type Schema = z.core.$ZodType;

/**
 * @param path where the value stands: `spec`, `metadata.labels`.
 * @throws Invalid naming every wrong field; `action` is what fails: `create instance "web"`.
 */
export function parseWith<T>(schema: z.ZodType<T>, value: unknown, path: string, action: string): T {
  const parsed = schema.safeParse(value, { error: describe });
  if (parsed.success) return parsed.data;
  throw invalid(action, fieldErrors(parsed.error.issues, schema, value, path));
}

/** Invalid with all fields; the message tells the first. */
export function invalid(action: string, fields: readonly FieldError[]): StrataError {
  return refusal("Invalid", action, fields);
}

/** The same for what would be right by itself, but not beside what there is. */
export function conflict(action: string, field: FieldError): StrataError {
  return refusal("Conflict", action, [field]);
}

function refusal(code: "Invalid" | "Conflict", action: string, fields: readonly FieldError[]): StrataError {
  const [first] = fields;
  const more = fields.length > 1 ? ` (and ${fields.length - 1} more)` : "";
  const where = first ? `: ${first.path} ${first.message}` : "";
  return new StrataError(code, `cannot ${action}${where}${more}`, {
    fields: fields.slice(0, maxFieldErrors),
  });
}

function fieldErrors(issues: readonly Issue[], schema: Schema, value: unknown, prefix: string): FieldError[] {
  const errors: FieldError[] = [];
  // What is wrong within a list that is too long is not worth telling.
  const tooLong = issues.filter((issue) => issue.code === "too_big" && issue.origin === "array");
  const told = issues.filter((issue) => !tooLong.some(({ path }) => isBelow(issue.path, path)));
  for (const issue of told.slice(0, maxFieldErrors)) {
    if (issue.code === "unrecognized_keys") errors.push(...unknownKeys(issue, schema, value, prefix));
    else errors.push(fieldError(issue, valueAt(value, issue.path), prefix));
  }
  return errors.slice(0, maxFieldErrors);
}

function fieldError(issue: Issue, value: unknown, prefix: string): FieldError {
  const path = joinPath(prefix, issue.path);
  const allowed = allowedBy(issue);
  const names = allowedNames(issue);
  const near = typeof value === "string" && names.length > 0 ? closest(value, names) : undefined;
  const message = messageOf(issue, value) + (near === undefined ? "" : `; did you mean "${near}"?`);
  return allowed === undefined ? { path, message } : { path, message, allowed };
}

function messageOf(issue: Issue, value: unknown): string {
  if (issue.code === "invalid_key") return `has a key that ${issue.issues[0]?.message ?? "is not allowed"}`;
  const { message } = issue;
  // A schema's own rule does not know the value; long texts (user data, keys) are not repeated.
  const short = typeof value === "number" || (typeof value === "string" && value.length <= shownValueLength);
  const isRule = issue.code === "custom" && short && message.startsWith("must ");
  return isRule ? `is ${describeValue(value)}, but ${message}` : message;
}

function isBelow(path: readonly PropertyKey[], list: readonly PropertyKey[]): boolean {
  return path.length > list.length && list.every((part, index) => part === path[index]);
}

function unknownKeys(
  issue: z.core.$ZodIssueUnrecognizedKeys,
  schema: Schema,
  value: unknown,
  prefix: string,
): FieldError[] {
  const known = keysAt(schema, value, issue.path);
  return issue.keys.map((key) => {
    const near = closest(key, known);
    const hint = near === undefined ? "" : `; did you mean "${near}"?`;
    return {
      path: joinPath(prefix, [...issue.path, key]),
      message: `is not a known field${hint}`,
      allowed: known.join(", "),
    };
  });
}

/** Zod's own messages in ours; undefined where a schema has one. */
function describe(issue: z.core.$ZodRawIssue): string {
  const { input } = issue;
  switch (issue.code) {
    case "invalid_type":
      if (input === undefined) return "is required";
      return `must be ${typeNames[String(issue.expected)] ?? issue.expected}, not ${describeValue(input)}`;
    case "invalid_value":
      if (input === undefined) return "is required";
      return `is ${describeValue(input)}, which is not allowed`;
    case "invalid_union":
      return "is not one of the known forms";
    case "too_small":
      return `must ${bound(issue.origin)} at least ${issue.minimum}${unitOf(issue.origin)}`;
    case "too_big":
      return `must ${bound(issue.origin)} at most ${issue.maximum}${unitOf(issue.origin)}`;
    case "invalid_format":
      return `is ${describeValue(input)}, which is not ${formatNames[String(issue.format)] ?? "of the right form"}`;
    default:
      return "is not allowed";
  }
}

const typeNames: Record<string, string> = {
  string: "text",
  number: "a number",
  int: "a whole number",
  boolean: "true or false",
  object: "an object",
  record: "an object",
  array: "a list",
};

const formatNames: Record<string, string> = {
  datetime: "a time such as 2030-01-31T12:00:00Z",
  url: "a URL",
};

function bound(origin: string): string {
  return origin === "string" || origin === "array" || origin === "set" ? "have" : "be";
}

function unitOf(origin: string): string {
  if (origin === "string") return " characters";
  return origin === "array" || origin === "set" ? " entries" : "";
}

function describeValue(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object") return "an object";
  if (typeof value === "string") return JSON.stringify(value.length > 80 ? `${value.slice(0, 80)}…` : value);
  return String(value);
}

function allowedBy(issue: Issue): string | undefined {
  const names = allowedNames(issue);
  if (names.length > 0) return names.join(", ");
  if (issue.code === "too_small") return `>= ${issue.minimum}`;
  if (issue.code === "too_big") return `<= ${issue.maximum}`;
  if (issue.code === "custom" && typeof issue.params?.allowed === "string") return issue.params.allowed;
  return undefined;
}

function allowedNames(issue: Issue): string[] {
  if (issue.code === "invalid_value") return issue.values.map(String);
  if (issue.code === "invalid_union" && "options" in issue && Array.isArray(issue.options)) {
    return issue.options.map(String);
  }
  return [];
}

function joinPath(prefix: string, path: readonly PropertyKey[]): string {
  return path.reduce<string>(
    (text, part) => (typeof part === "number" ? `${text}[${part}]` : `${text}.${String(part).slice(0, 80)}`),
    prefix,
  );
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>(
    (current, part) =>
      typeof current === "object" && current !== null
        ? (current as Record<PropertyKey, unknown>)[part]
        : undefined,
    value,
  );
}

/** The field names of the object schema at a path; empty where there is none. */
function keysAt(schema: Schema, value: unknown, path: readonly PropertyKey[]): string[] {
  let current: Schema | undefined = resolve(schema, value);
  for (const [depth, part] of path.entries()) {
    current = resolve(childOf(current, part), valueAt(value, path.slice(0, depth + 1)));
  }
  const def = (current as z.core.$ZodObject | undefined)?._zod.def;
  return def?.type === "object" ? Object.keys(def.shape) : [];
}

function childOf(schema: Schema | undefined, part: PropertyKey): Schema | undefined {
  const def = schema?._zod.def;
  if (def?.type === "object") return (def as z.core.$ZodObjectDef).shape[String(part)];
  if (def?.type === "array") return (def as z.core.$ZodArrayDef).element;
  if (def?.type === "record") return (def as z.core.$ZodRecordDef).valueType;
  return undefined;
}

/** Through defaults and options, and to the member of a union that the value's discriminator names. */
function resolve(schema: Schema | undefined, value: unknown): Schema | undefined {
  let current = schema;
  for (;;) {
    const def: { type: string; innerType?: Schema } | undefined = current?._zod.def;
    if (def?.innerType) current = def.innerType;
    else if (def?.type === "union") return memberOf(def as z.core.$ZodDiscriminatedUnionDef, value);
    else return current;
  }
}

function memberOf(def: z.core.$ZodDiscriminatedUnionDef, value: unknown): Schema | undefined {
  const { discriminator } = def;
  if (discriminator === undefined) return undefined;
  return def.options.find((option) => {
    const tag = (option as unknown as z.core.$ZodObject)._zod.def.shape[discriminator];
    return tag?._zod.values?.has(valueAt(value, [discriminator]) as string);
  });
}
