import type { Kind } from "./kind.ts";

/** Names one resource: `project` for kinds of project scope only. */
export interface Ref {
  project?: string;
  name: string;
}

/** The store's key of a resource: `/instances/PROJECT/NAME` or `/hosts/NAME`. */
export function resourceKey(kind: Pick<Kind, "plural" | "scope">, ref: Ref): string {
  return `${resourcePrefix(kind, ref.project)}${ref.name}`;
}

/** The prefix of all resources of a kind, in one project or in all. Ends with `/`. */
export function resourcePrefix(kind: Pick<Kind, "plural" | "scope">, project?: string): string {
  return kind.scope === "project" && project !== undefined
    ? `/${kind.plural}/${project}/`
    : `/${kind.plural}/`;
}

/** The reverse of resourceKey, for keys under `/PLURAL/`. */
export function refOfKey(kind: Pick<Kind, "plural" | "scope">, key: string): Ref {
  const [first = "", second = ""] = key.slice(kind.plural.length + 2).split("/");
  return kind.scope === "project" ? { project: first, name: second } : { name: first };
}

/**
 * The store's key of what a host has promised: compared and rewritten by every commit that promises an instance room on
 * it, with `{ to }`, the key of that instance.
 */
export function promisesKey(host: string): string {
  return `/allocations/hosts/${host}`;
}

/** The store's key that is there from the commit that marks a project for deletion: nothing is created in it any more. */
export function closingKey(project: string): string {
  return `/closing/${project}`;
}
