/** Lets a project go once everything in it is gone. */

import { Hints } from "../../core/hints.ts";
import { resourceKey } from "../../kinds/keys.ts";
import { projectKind } from "../../kinds/project.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { executeProjectAction } from "./execute.ts";
import { observeProject, type ProjectWorld } from "./observe.ts";
import { type ProjectAction, planProject } from "./plan.ts";

export function createProjectReconciler(
  context: ControllerContext,
): Reconciler<ProjectWorld, ProjectAction, never> {
  const { projects, instances, images } = context.caches;
  /** Something of the project is gone. */
  const emptier = new Hints();
  for (const cache of [instances, images]) {
    cache.onChange(
      (_key: string, next: unknown, previous: { metadata: { project?: string | undefined } } | undefined) => {
        const name = previous?.metadata.project;
        if (!next && name !== undefined) emptier.hint(resourceKey(projectKind, { name }));
      },
    );
  }
  /** Those let go; what the cache still shows of them is old. */
  const gone = new Set<string>();
  projects.onChange((_key, next, previous) => {
    if (previous && next?.metadata.uid !== previous.metadata.uid) gone.delete(previous.metadata.uid);
  });
  return {
    name: "projects",
    watches: [
      { name: "projects", urgent: true, keys: (signal) => projects.watchKeys(signal) },
      { name: "contents", keys: (signal) => emptier.keys(signal) },
    ],
    async observe(key) {
      const world = await observeProject(context, key);
      return world.project && gone.has(world.project.metadata.uid) ? { ...world, project: undefined } : world;
    },
    plan: planProject,
    async execute(action) {
      await executeProjectAction(context, action);
      if (action.type === "finalize") gone.add(action.project.metadata.uid);
    },
  };
}
