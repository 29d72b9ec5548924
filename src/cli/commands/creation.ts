/** Creating one resource from a command's options, and showing it. */
import type { Json, JsonObject } from "../../core/json.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import type { Call } from "../command.ts";
import type { Output } from "../output.ts";
import { asJson, type TableForm } from "../show.ts";

/** `spec`: what is undefined is left to its default. `name`: default, the first argument. */
export async function createResource<S, T>(
  call: Call,
  kind: Kind<S, T>,
  form: TableForm<Resource<S, T>>,
  spec: Readonly<Record<string, Json | undefined>>,
  name = call.args[0] ?? "",
): Promise<Output> {
  const { session } = call;
  const client = await session.startedClient();
  const draft = { name, project: session.project, spec: defined(spec) };
  const created = await client.create(kind, draft, { signal: session.signal });
  return tableOf(form, created);
}

export function defined(spec: Readonly<Record<string, Json | undefined>>): JsonObject {
  return Object.fromEntries(
    Object.entries(spec).filter((entry): entry is [string, Json] => entry[1] !== undefined),
  );
}

/** A table of one resource; the resource itself as JSON. */
export function tableOf<R extends Resource>(form: TableForm<R>, resource: R): Output {
  return {
    type: "table",
    columns: form.columns,
    rows: [form.row(resource)],
    empty: "",
    json: asJson(resource),
  };
}
