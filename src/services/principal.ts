import { StrataError } from "../core/errors.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import type { Role } from "../kinds/token.ts";

/**
 * Who may do what. The rules are few and closed: what is not allowed here is refused.
 *
 * | principal              | own project                        | other projects | cluster kinds                    |
 * |------------------------|------------------------------------|----------------|----------------------------------|
 * | admin, no project      | everything                         | everything     | everything, status, finalizers   |
 * | admin of a project     | reads, writes, tokens of it        | do not exist   | reads its own project            |
 * | member of a project    | reads, writes                      | do not exist   | reads its own project            |
 * | viewer of a project    | reads                              | do not exist   | reads its own project            |
 * | others, no project     | reads                              | reads          | reads all but tokens             |
 *
 * Kinds marked internal are written by cluster admins only: that is Strata itself, over the Unix socket.
 */
export interface Principal {
  /** For logs and messages. */
  name: string;
  role: Role;
  /** The only project it may see; absent: no such bound. */
  project?: string;
}

/** Strata itself: controllers, and whoever may open the Unix socket. */
export const systemPrincipal: Principal = { name: "system", role: "admin" };

/** `operate` is what only controllers and agents do: statuses, finalizers, the sessions of a host. */
export type Access = "read" | "write" | "operate";

export function isClusterAdmin(principal: Principal): boolean {
  return principal.role === "admin" && principal.project === undefined;
}

/**
 * Checks everything that can be said before a resource is read; `visible` decides on the resource itself.
 * `project` is absent for kinds of cluster scope and for lists across projects.
 * @throws Forbidden; NotFound for a project that the principal must not learn of.
 */
export function authorize(
  principal: Principal,
  access: Access,
  kind: Pick<Kind, "name" | "plural" | "scope" | "internal">,
  project?: string,
): void {
  if (isClusterAdmin(principal)) return;
  if (access === "operate") throw forbidden(principal, `change the status of ${kind.plural}`);
  if (kind.scope === "project") {
    authorizeInProject(principal, access, kind, project);
    return;
  }
  const allowed =
    kind.name === "Token"
      ? principal.role === "admin"
      : access === "read" &&
        (kind.name === "Project" ||
          ((kind.name === "Host" || kind.name === "StoragePool") && principal.project === undefined));
  if (!allowed) throw forbidden(principal, `${access} ${kind.plural}`);
}

function authorizeInProject(
  principal: Principal,
  access: Access,
  kind: Pick<Kind, "plural" | "internal">,
  project: string | undefined,
): void {
  if (principal.project !== undefined && project !== undefined && principal.project !== project) {
    throw noSuchProject(project);
  }
  if (access === "read") return;
  if (kind.internal) {
    throw new StrataError(
      "Forbidden",
      `cannot write ${kind.plural}: only Strata itself creates and changes them`,
    );
  }
  requireMember(principal, `write ${kind.plural}`);
}

/** As writing: for what a member may do with a resource of its project beyond changing it. @throws as authorize. */
export function authorizeAction(
  principal: Principal,
  kind: Pick<Kind, "name" | "plural" | "scope" | "internal">,
  project: string,
  action: string,
): void {
  authorize(principal, "read", kind, project);
  if (!isClusterAdmin(principal)) requireMember(principal, action);
}

function requireMember(principal: Principal, action: string): void {
  if (principal.role === "viewer" || principal.project === undefined) throw forbidden(principal, action);
}

/** May the principal, allowed to read this kind, see this resource of it? What is not visible is NotFound. */
export function visible(principal: Principal, resource: Resource): boolean {
  if (principal.project === undefined) return true;
  const { name, project } = resource.metadata;
  if (project !== undefined) return project === principal.project;
  if (resource.kind === "Project") return name === principal.project;
  if (resource.kind === "Token") return (resource.spec as { project?: string }).project === principal.project;
  return false;
}

/** The same for a project that does not exist and for one that the principal must not learn of. */
export function noSuchProject(project: string): StrataError {
  return new StrataError("NotFound", `there is no project "${project}"`);
}

/** @throws Forbidden unless the principal may operate: for verbs that belong to no kind. */
export function requireOperator(principal: Principal, action: string): void {
  if (!isClusterAdmin(principal)) throw forbidden(principal, action);
}

/** @throws Forbidden unless the principal may write somewhere. */
export function requireWriter(principal: Principal, action: string): void {
  if (!isClusterAdmin(principal)) requireMember(principal, action);
}

function forbidden(principal: Principal, action: string): StrataError {
  const bound = principal.project === undefined ? "" : ` of project "${principal.project}"`;
  return new StrataError(
    "Forbidden",
    `the role ${principal.role}${bound} may not ${action}; ask an administrator, or use a token of a higher role`,
  );
}
