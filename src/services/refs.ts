import { StrataError } from "../core/errors.ts";
import { namePattern, nameRule } from "../core/ids.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { findKind } from "../kinds/registry.ts";
import type { Revision } from "../store/store.ts";

/** What can be said of a name or a revision without knowing the kind. */

/**
 * To be called before a key is made of a ref: what is no name must not become part of a path.
 * @throws Invalid
 */
export function checkRef(kind: Kind, ref: Ref): void {
  if (!namePattern.test(ref.name)) throw malformed("metadata.name", ref.name, kind.name);
  if (kind.scope === "cluster") {
    if (ref.project === undefined) return;
    throw new StrataError("Invalid", `${kind.plural} belong to no project; leave the project out`);
  }
  if (ref.project === undefined) {
    throw new StrataError("Invalid", `${kind.plural} belong to a project; name it`, {
      fields: [{ path: "metadata.project", message: "is required" }],
    });
  }
  if (!namePattern.test(ref.project)) throw malformed("metadata.project", ref.project, "Project");
}

function malformed(path: string, name: string, kind: string): StrataError {
  const shown = JSON.stringify(String(name).slice(0, 80));
  const message = `must be ${nameRule}`;
  return new StrataError("Invalid", `${shown} is no name for a ${kind}: it ${message}`, {
    fields: [{ path, message, allowed: nameRule }],
  });
}

/** `instance "web" in project "default"`. */
export function describe(kind: Kind, ref: Ref): string {
  const words = kind.name.replace(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter}`).toLowerCase();
  return `${words} "${ref.name}"${ref.project === undefined ? "" : ` in project "${ref.project}"`}`;
}

/** @throws Conflict when the resource has another revision than asked for. */
export function checkRevision(action: string, current: Resource, options: { ifRevision?: Revision }): void {
  const { ifRevision } = options;
  if (ifRevision === undefined || ifRevision === current.metadata.revision) return;
  throw wrongRevision(action, ifRevision, current.metadata.revision);
}

export function wrongRevision(action: string, expected: Revision, actual: Revision): StrataError {
  const found = actual === 0 ? "it does not exist" : `it is at revision ${actual} now`;
  const wanted = expected === 0 ? "only if it does not exist" : `only at revision ${expected}`;
  return new StrataError("Conflict", `cannot ${action}: asked for ${wanted}, but ${found}; read it again`);
}

export function kindOf(resource: Resource): Kind {
  const kind = findKind(resource.kind);
  if (!kind) throw new StrataError("Internal", `a stored resource has the unknown kind ${resource.kind}`);
  return kind;
}
