import { resourcePrefix } from "../../kinds/keys.ts";
import type { Kind } from "../../kinds/kind.ts";
import type { Project } from "../../kinds/project.ts";
import { kinds } from "../../kinds/registry.ts";
import type { ControllerContext } from "../context.ts";

export interface ProjectWorld {
  project: Project | undefined;
  /** What is left in a project that is being deleted: names by the plural of their kind, a few of each. */
  left: ReadonlyMap<string, readonly string[]>;
}

const namesOfEach = 3;

export async function observeProject(
  { caches, store }: ControllerContext,
  key: string,
): Promise<ProjectWorld> {
  const project = caches.projects.get(key);
  const left = new Map<string, string[]>();
  if (project?.metadata.deletedAt === undefined) return { project, left };
  for (const kind of kinds as readonly Kind[]) {
    if (kind.scope !== "project") continue;
    const prefix = resourcePrefix(kind, project.metadata.name);
    const page = await store.list(prefix, { limit: namesOfEach });
    const names = page.entries.map((entry) => entry.key.slice(prefix.length));
    if (names.length > 0) left.set(kind.plural, names);
  }
  return { project, left };
}
