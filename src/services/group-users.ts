import { groupKind, type MemberTemplate } from "../kinds/group.ts";
import type { Resource } from "../kinds/kind.ts";
import type { World } from "./hooks.ts";
import { usersInMessage } from "./references.ts";

/** Groups whose template names the resource, a few: for the message of a refused deletion. */
export async function groupsNaming(
  { metadata: { name, project } }: Resource,
  world: World,
  namesOf: (template: MemberTemplate) => readonly string[] | string | undefined,
): Promise<string[]> {
  const users: string[] = [];
  for await (const { metadata, spec } of world.scan(groupKind, project)) {
    const names = namesOf(spec.template);
    if (typeof names === "string" ? names !== name : !names?.includes(name)) continue;
    users.push(`group "${metadata.name}"`);
    if (users.length > usersInMessage) break;
  }
  return users;
}
