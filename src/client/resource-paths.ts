import { StrataError } from "../core/errors.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind } from "../kinds/kind.ts";
import type { ListOptions } from "./client.ts";

export function collectionPath(kind: Pick<Kind, "plural" | "scope">, project: string | undefined): string {
  return kind.scope === "project" && project !== undefined
    ? `/v1/projects/${encodeURIComponent(project)}/${kind.plural}`
    : `/v1/${kind.plural}`;
}

export function pathOf(kind: Pick<Kind, "name" | "plural" | "scope">, ref: Ref): string {
  if (kind.scope === "project" && ref.project === undefined) {
    throw new StrataError("Invalid", `name the project of ${kind.name} "${ref.name}"`);
  }
  return `${collectionPath(kind, ref.project)}/${encodeURIComponent(ref.name)}`;
}

export function listPath(
  kind: Kind<never, never> | Kind,
  options: ListOptions,
  extra: Readonly<Record<string, string | number | undefined>>,
): string {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(options.labels ?? {})) query.append("label", `${key}=${value}`);
  const { host, state } = options;
  for (const [name, value] of Object.entries({ host, state, ...extra })) {
    if (value !== undefined) query.set(name, String(value));
  }
  const text = query.toString();
  return `${collectionPath(kind, options.project)}${text === "" ? "" : `?${text}`}`;
}
