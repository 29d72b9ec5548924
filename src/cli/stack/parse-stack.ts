/** From the text of a stack file to a Stack, or to errors that name line and column. Pure. */
import { type Document, isAlias, isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from "yaml";
import type { z } from "zod";
import { type FieldError, StrataError } from "../../core/errors.ts";
import { closest } from "../../core/spelling.ts";
import { type Stack, stackLimits, stackSchema } from "./stack-schema.ts";

export type FieldPath = readonly (string | number)[];

/** Says where in the file something is: `campus.yaml:12:5: instances.lms.memory`. */
export type Locate = (path: FieldPath, which?: "key" | "value") => string;

export interface ParsedStack {
  stack: Stack;
  locate: Locate;
}

/** How often a file may refer to anchors; each reference can repeat what it names. */
const maxAliases = 100;
const maxErrors = 20;

/** @throws Invalid with a field for each error. */
export function parseStack(text: string, fileName: string): ParsedStack {
  if (Buffer.byteLength(text) > stackLimits.fileBytes) {
    throw new StrataError("Invalid", `${fileName} is larger than ${stackLimits.fileBytes} bytes`);
  }
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false, version: "1.2" });
  const at = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `${fileName}:${line}:${col}`;
  };
  const invalid = (fields: FieldError[]) =>
    new StrataError("Invalid", `${fileName} is not a valid stack; nothing was changed`, {
      fields: fields.slice(0, maxErrors),
    });
  if (document.errors.length > 0) {
    throw invalid(document.errors.map((error) => ({ path: at(error.pos[0]), message: yamlMessage(error) })));
  }
  let value: unknown;
  try {
    value = document.toJS({ maxAliasCount: maxAliases });
  } catch (cause) {
    throw new StrataError("Invalid", `${fileName} refers to anchors too often (at most ${maxAliases})`, {
      cause,
    });
  }
  const locate: Locate = (path, which = "value") => {
    const shown = path.length === 0 ? "" : `: ${formatPath(path)}`;
    return `${at(offsetOf(document, path, which))}${shown}`;
  };
  const result = stackSchema.safeParse(value ?? {}, { reportInput: true });
  if (!result.success) throw invalid(result.error.issues.flatMap((issue) => describeIssue(issue, locate)));
  return { stack: result.data, locate };
}

/** FieldErrors of zod's issue: what is wrong and what would be right. Also used for the kinds' own schemas. */
export function describeIssue(issue: z.core.$ZodIssue, locate: Locate): FieldError[] {
  const path = issue.path.map((part) => (typeof part === "symbol" ? String(part) : part));
  if (issue.code === "unrecognized_keys") {
    const allowed = keysAt(stackSchema, path);
    return issue.keys.map((key) => {
      const guess = closest(key, allowed);
      return {
        path: locate([...path, key], "key"),
        message: `unknown key${guess ? `; did you mean "${guess}"?` : ""}`,
        allowed: allowed.join(", "),
      };
    });
  }
  if (issue.input === undefined && (issue.code === "invalid_value" || issue.code === "invalid_type")) {
    const allowed = issue.code === "invalid_value" ? issue.values.join(", ") : issue.expected;
    return [{ path: locate(path), message: "is missing", allowed }];
  }
  if (issue.code === "invalid_value") {
    return [
      { path: locate(path), message: "is not one of the values allowed", allowed: issue.values.join(", ") },
    ];
  }
  return [{ path: locate(path), message: issue.message }];
}

function yamlMessage(error: { code: string; message: string }): string {
  if (error.code === "DUPLICATE_KEY") return "this key appears twice in the same place";
  return error.message.split("\n", 1)[0] ?? "is not YAML";
}

export function formatPath(path: FieldPath): string {
  return path
    .map((part, index) => (typeof part === "number" ? `[${part}]` : index === 0 ? part : `.${part}`))
    .join("");
}

/** Where the innermost part of the path that is really there begins. */
function offsetOf(document: Document.Parsed, path: FieldPath, which: "key" | "value"): number {
  let node: Node | null = document.contents;
  let offset = node?.range?.[0] ?? 0;
  for (const part of path) {
    if (isAlias(node)) node = node.resolve(document) ?? null;
    if (isMap(node)) {
      const pair = node.items.find((item) => isScalar(item.key) && String(item.key.value) === String(part));
      if (!pair || !isScalar(pair.key)) return offset;
      const value = pair.value as Node | null;
      offset = (which === "value" ? value?.range?.[0] : undefined) ?? pair.key.range?.[0] ?? offset;
      if (which === "value" && (isMap(value) || isSeq(value))) offset = pair.key.range?.[0] ?? offset;
      node = value;
    } else if (isSeq(node)) {
      node = (node.items[Number(part)] as Node | undefined) ?? null;
      offset = node?.range?.[0] ?? offset;
    } else return offset;
  }
  return offset;
}

/** The keys that an object at this place may have, read off the schema. */
function keysAt(schema: z.core.$ZodType, path: FieldPath): string[] {
  const def = (schema as z.ZodType).def as unknown as Record<string, unknown> & { type: string };
  const inner = def.innerType ?? def.out;
  if (inner) return keysAt(inner as z.core.$ZodType, path);
  const [head, ...rest] = path;
  if (def.type === "object") {
    const shape = def.shape as Record<string, z.core.$ZodType>;
    if (head === undefined) return Object.keys(shape);
    const next = shape[String(head)];
    return next ? keysAt(next, rest) : [];
  }
  if (def.type === "record" && head !== undefined) return keysAt(def.valueType as z.core.$ZodType, rest);
  if (def.type === "array" && head !== undefined) return keysAt(def.element as z.core.$ZodType, rest);
  return [];
}
