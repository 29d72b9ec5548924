/** What is there of a stack, read through the API. */
import type { Client } from "../../client/client.ts";
import { hasCode } from "../../core/errors.ts";
import { type Host, hostKind } from "../../kinds/host.ts";
import type { Kind } from "../../kinds/kind.ts";
import { projectKind } from "../../kinds/project.ts";
import { type Patience, retrying } from "../watching.ts";
import { type Existing, stackKinds } from "./plan-stack.ts";

/** The project, if there, and all resources of the stack's kinds in it. */
export async function readProject(client: Client, project: string, limits: Patience): Promise<Existing[]> {
  const options = { signal: limits.signal };
  const own = await retrying(() => client.get(projectKind, { name: project }, options), limits);
  if (!own) return [];
  const contents = await Promise.all(
    stackKinds
      .filter((kind) => kind.scope === "project")
      .map(async (kind) => {
        const page = await retrying(() => client.list(kind, { project }, options), limits).catch((error) => {
          if (hasCode(error, "NotFound")) return { items: [] }; // the project went away meanwhile
          throw error;
        });
        return page.items.map((resource): Existing => ({ kind, resource }));
      }),
  );
  return [{ kind: projectKind as Kind, resource: own }, ...contents.flat()];
}

/** All hosts, as far as the caller may see them. */
export async function readHosts(client: Client, limits: Patience): Promise<Host[]> {
  try {
    return (await retrying(() => client.list(hostKind, {}, { signal: limits.signal }), limits)).items;
  } catch (error) {
    if (hasCode(error, "Forbidden")) return [];
    throw error;
  }
}
