import type { Project } from "../../kinds/project.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import type { ProjectWorld } from "./observe.ts";

export type ProjectAction =
  | { type: "explain"; project: Project; message: string }
  | { type: "finalize"; project: Project };

/** Between looks at a project that is being deleted and not empty yet. */
const lookAgainMs = 500;

/** A project that is being deleted goes once it is empty. The verb that marked it also marked what is in it. */
export function planProject({ project, left }: ProjectWorld): Plan<ProjectAction, never> {
  if (!project || project.metadata.deletedAt === undefined) return { status: undefined, actions: [] };
  if (!project.metadata.finalizers.includes("contents")) return { status: undefined, actions: [] };
  if (left.size === 0) return { status: undefined, actions: [{ type: "finalize", project }] };
  const what = [...left].map(([plural, names]) => `${plural.replaceAll("-", " ")} (${names.join(", ")})`);
  const message = `goes once these are gone: ${what.join("; ")}`.slice(0, 1000);
  const told = project.status.state === "deleting" && project.status.message === message;
  return {
    status: undefined,
    actions: told ? [] : [{ type: "explain", project, message }],
    recheckAfterMs: lookAgainMs,
  };
}
