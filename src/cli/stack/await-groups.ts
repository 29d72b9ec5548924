/** Waits until groups have the members that they are to have. */
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import { follow, type Patience } from "../watching.ts";
import type { Reporter } from "./apply-stack.ts";
import { keyOf } from "./plan-stack.ts";

/** All that are desired are healthy, and of the version that it is to have. */
export function isComplete({ metadata, status }: Group): boolean {
  if (status.observedGeneration < metadata.generation) return false;
  const { state, ready, desired } = status;
  return (
    state === "steady" || (desired > 0 && ready >= desired && (state === "scaling" || state === "short"))
  );
}

/** In the order of their names as given. @throws Unavailable when an update fails, NotFound when one went away. */
export async function awaitGroups(
  client: Client,
  project: string,
  names: readonly string[],
  limits: Patience,
  reporter: Reporter,
): Promise<Group[]> {
  if (names.length === 0) return [];
  const complete = new Map<string, Group>();
  const look = (seen: ReadonlyMap<string, Group>) => {
    for (const name of names) {
      const group = seen.get(`${project}/${name}`);
      if (!group || group.metadata.deletedAt !== undefined) {
        throw new StrataError("NotFound", `the group "${name}" was deleted meanwhile`);
      }
      const { state, message, observedGeneration } = group.status;
      if (state === "stopped" && observedGeneration >= group.metadata.generation) {
        throw new StrataError("Unavailable", `the group "${name}" keeps its version: ${message}`);
      }
      if (isComplete(group)) complete.set(name, group);
      else complete.delete(name);
      reporter.progress(keyOf(groupKind, name), stateText(group), { settled: complete.has(name) });
    }
    return complete.size === names.length;
  };
  const waiting = () => `waiting for ${names.filter((name) => !complete.has(name)).join(", ")}`;
  await follow(client, groupKind, { project }, limits, look, waiting);
  return names.flatMap((name) => complete.get(name) ?? []);
}

function stateText(group: Group): string {
  const { state, message, ready, desired } = group.status;
  if (isComplete(group)) return `${ready} of ${desired} ready`;
  return message === "" ? state : `${state}: ${message}`;
}
