import * as z from "zod";
import { namePattern } from "../core/ids.ts";
import type { Json, JsonObject } from "../core/json.ts";

/** What the OpenAPI document is put together from. */

export function jsonSchema(schema: z.ZodType, io: "input" | "output"): JsonObject {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, { io, unrepresentable: "any" });
  return rest as JsonObject;
}

export function ref(name: string): JsonObject {
  return { $ref: `#/components/schemas/${name}` };
}

export function pathParameter(name: string): JsonObject {
  return { name, in: "path", required: true, schema: { type: "string", pattern: namePattern.source } };
}

export function queryParameter(name: string, schema: JsonObject, description?: string): JsonObject {
  return { name, in: "query", ...(description === undefined ? {} : { description }), schema };
}

export function headerParameter(name: string, description: string): JsonObject {
  return { name, in: "header", description, schema: { type: "string" } };
}

export function parameters(...names: string[]): JsonObject[] {
  return names.map((name) => ({ $ref: `#/components/parameters/${name}` }));
}

export interface Operation {
  id: string;
  summary: string;
  parameters?: Json[];
  body?: JsonObject;
  bodyType?: string;
  /** Schema by status; null: no body. */
  answers: Readonly<Record<number, JsonObject | null>>;
  tag: string;
}

export function operation(parts: Operation): JsonObject {
  const { id, summary, tag, body, bodyType = "application/json" } = parts;
  const responses: JsonObject = { default: { $ref: "#/components/responses/Problem" } };
  for (const [status, schema] of Object.entries(parts.answers)) {
    const content = schema === null ? {} : { content: { "application/json": { schema } } };
    responses[status] = { description: answerNames[status] ?? "Done.", ...content };
  }
  return {
    operationId: id,
    summary,
    tags: [tag],
    ...(parts.parameters ? { parameters: parts.parameters } : {}),
    ...(body ? { requestBody: { required: true, content: { [bodyType]: { schema: body } } } } : {}),
    responses,
  };
}

const answerNames: Readonly<Record<string, string>> = {
  200: "As it is now.",
  201: "Created.",
  202: "Marked for deletion; it goes when all that belongs to it is cleaned up.",
  204: "Gone.",
};
