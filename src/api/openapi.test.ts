import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { isJsonObject, type Json, type JsonObject } from "../core/json.ts";
import { kinds } from "../kinds/registry.ts";
import { buildOpenApi, openApiText } from "./openapi.ts";
import { startTestApi } from "./testing.ts";

test("the committed specification is current; node tools/write-openapi.ts writes it anew", () => {
  const path = fileURLToPath(new URL("../../openapi/strata.json", import.meta.url));
  expect(readFileSync(path, "utf8") === openApiText()).toBe(true);
});

test("every reference leads somewhere, and operation ids are unique", () => {
  const document = buildOpenApi();
  const ids: string[] = [];
  walk(document, (value) => {
    const { $ref, operationId } = value;
    if (typeof operationId === "string") ids.push(operationId);
    if (typeof $ref !== "string" || !$ref.startsWith("#/components/")) return;
    const target = $ref
      .slice(2)
      .split("/")
      .reduce<Json | undefined>((at, part) => (isJsonObject(at) ? at[part] : undefined), document);
    expect(target, $ref).toBeDefined();
  });
  expect(ids.length).toBeGreaterThan(kinds.length * 6);
  expect(new Set(ids).size).toBe(ids.length);
});

test("all that the API answers to is described, and nothing else", async () => {
  const running = await startTestApi();
  await running.close();
  const described = Object.entries(buildOpenApi().paths as JsonObject).flatMap(([path, item]) =>
    Object.keys(item as JsonObject).map((method) => `${method.toUpperCase()} ${path}`),
  );
  const answered = running.api.routes.map((route) => route.replaceAll(/:([a-z]+)/gi, "{$1}"));
  expect(described.sort()).toEqual(answered.toSorted());
});

test("a spec's bounds, enums and defaults are in the specification", () => {
  const text = JSON.stringify(buildOpenApi().components);
  expect(text).toContain('"enum":["vm","container"]');
  expect(text).toContain('"minimum":16');
  expect(text).toContain('"default":512');
});

function walk(value: Json, visit: (object: { [key: string]: Json }) => void): void {
  if (Array.isArray(value)) for (const item of value) walk(item, visit);
  else if (isJsonObject(value)) {
    visit(value);
    for (const item of Object.values(value)) walk(item, visit);
  }
}
