import { projectKind } from "../../kinds/project.ts";
import type { ControllerContext } from "../context.ts";
import type { ProjectAction } from "./plan.ts";

/** @throws Conflict when the project was written meanwhile, or is not empty after all. */
export async function executeProjectAction(
  { caches, verbs }: ControllerContext,
  action: ProjectAction,
): Promise<void> {
  const { project } = action;
  if (action.type === "explain") {
    const status = { state: "deleting" as const, message: action.message };
    return caches.projects.replace(project, { ...project, status });
  }
  const { name, uid } = project.metadata;
  await verbs.removeFinalizer(projectKind, { name }, uid, "contents");
}
