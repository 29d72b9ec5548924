import type { FieldError } from "../core/errors.ts";
import { type Json, jsonEquals } from "../core/json.ts";
import type { Group, GroupSpec, GroupStatus } from "../kinds/group.ts";
import { type KeyPair, keyPairKind } from "../kinds/key-pair.ts";
import type { Write } from "../store/store.ts";
import type { Capacity } from "./capacity.ts";
import { takeCounts } from "./count-quota.ts";
import { groupsNaming } from "./group-users.ts";
import type { KindHooks, World } from "./hooks.ts";
import { findParts } from "./instances.ts";
import { invalid } from "./parse.ts";
import { closeReferences, References, refuseWhileUsed } from "./references.ts";

/**
 * What a group's template names must exist when it is written and stay while it is named, because members are made from it
 * at any time. Quota and addresses are taken by each member.
 */
export function groupHooks(capacity: Capacity): KindHooks<GroupSpec, GroupStatus> {
  return {
    async admit(group, world, action) {
      const counts = await takeCounts(world, group.metadata.project ?? "", { groups: 1 }, action);
      return { writes: [...(await checkTemplate(capacity, group, world, action)), ...counts] };
    },
    async admitUpdate(next, previous, world, action) {
      const same = jsonEquals(
        next.spec.template as unknown as Json,
        previous.spec.template as unknown as Json,
      );
      return same ? [] : checkTemplate(capacity, next, world, action);
    },
    closing: closeReferences,
    // Who changed it by hand said more lately than a file that does not name it.
    keptByApply: ["desired"],
  };
}

/** A key pair that a template names has to stay: new members get it. */
export const keyPairHooks: KindHooks<KeyPair["spec"], KeyPair["status"]> = {
  closing: closeReferences,
  async checkDelete(keyPair, world, mode) {
    if (mode.withProject) return;
    const users = await groupsNaming(keyPair, world, (template) => template.keyPairs);
    refuseWhileUsed(`key pair "${keyPair.metadata.name}"`, users, "take it out of their templates first");
  },
};

/** @throws Invalid, CapacityExceeded */
async function checkTemplate(
  capacity: Capacity,
  group: Group,
  world: World,
  action: string,
): Promise<readonly Write[]> {
  const { template } = group.spec;
  const references = new References(world, group.metadata.project ?? "");
  await findParts(template, references, world);
  for (const [index, name] of template.keyPairs.entries()) {
    await references.find(keyPairKind, name, `spec.keyPairs[${index}]`);
  }
  if (references.errors.length > 0) throw invalid(action, references.errors.map(ofTemplate));
  await capacity.check(world, template, action);
  return references.writes();
}

function ofTemplate(error: FieldError): FieldError {
  return { ...error, path: error.path.replace(/^spec\b/, "spec.template") };
}
