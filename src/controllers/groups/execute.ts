import { toTimestamp } from "../../core/clock.ts";
import { hasCode } from "../../core/errors.ts";
import { encodeBase32 } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { type Ref, resourceKey } from "../../kinds/keys.ts";
import type { ControllerContext } from "../context.ts";
import type { GroupState } from "./state.ts";
import type { GroupAction } from "./world.ts";

/** On every member: the name of its group. */
const groupLabel = "strata/group";

/** Members made at once; each is a commit, and the store takes several together. */
const createdTogether = 16;

export async function executeGroupAction(
  context: ControllerContext,
  state: GroupState,
  action: GroupAction,
): Promise<void> {
  const now = toTimestamp(context.clock.now());
  switch (action.type) {
    case "create":
      return createMembers(context, state, action, now);
    case "adopt":
      return patchMember(context, action.member, { revision: action.revision, phase: "serving", since: now });
    case "note-ready":
      return patchMember(context, action.member, { readyAt: now });
    case "set-phase":
      await patchMember(context, action.member, { phase: action.phase, since: now });
      return tell(context, action.group, action.member, `is ${action.phase} now: ${action.reason}`);
    case "remove":
      if (action.failed) state.setback(action.group, `${action.member.metadata.name}: ${action.reason}`);
      await removeMember(context, action.member);
      return tell(context, action.group, action.member, `is deleted: ${action.reason}`);
    case "finalize": {
      const { uid } = action.group.metadata;
      await context.verbs.removeFinalizer(groupKind, refOf(action.group), uid, "group");
      return state.letGo(action.group);
    }
  }
}

type Create = Extract<GroupAction, { type: "create" }>;

async function createMembers(
  context: ControllerContext,
  state: GroupState,
  { group, count, phase, revision, template }: Create,
  since: string,
): Promise<void> {
  const { name, project = "", uid } = group.metadata;
  const create = async () => {
    const member = `${name.slice(0, 57)}-${encodeBase32(context.random.bytes(4)).slice(0, 5)}`;
    const created = state.expect(group, resourceKey(instanceKind, { project, name: member }));
    try {
      const draft = {
        name: member,
        project,
        labels: { ...group.metadata.labels, [groupLabel]: name },
        spec: template,
      };
      const owner = { kind: groupKind.name, name, uid };
      created(
        await context.verbs.create(instanceKind, draft, {
          owner,
          status: { member: { revision, phase, since } },
        }),
      );
    } catch (error) {
      created(undefined);
      // Somebody has a thing of that name: the next round takes another one.
      if (!hasCode(error, "AlreadyExists")) throw error;
    }
  };
  for (let left = count; left > 0; left -= createdTogether) {
    const ends = await Promise.allSettled(Array.from({ length: Math.min(left, createdTogether) }, create));
    const refused = ends.find((end) => end.status === "rejected");
    if (refused) throw refused.reason;
  }
}

/** A member that is gone needs nothing any more. */
async function patchMember(context: ControllerContext, member: Instance, patch: JsonObject): Promise<void> {
  try {
    const { instances } = context.caches;
    const next = await context.verbs.patchStatus(instanceKind, refOf(member), member.metadata.uid, {
      member: patch,
    });
    instances.learn(instances.keyOf(next), next);
  } catch (error) {
    if (!hasCode(error, "NotFound")) throw error;
  }
}

async function removeMember({ caches, verbs }: ControllerContext, member: Instance): Promise<void> {
  const { instances } = caches;
  const key = instances.keyOf(member);
  try {
    // Another one of its name, which a user made after it, stays.
    const known = instances.get(key);
    if (known && known.metadata.uid !== member.metadata.uid) return;
    const left = await verbs.delete(instanceKind, refOf(member));
    if (left) instances.learn(key, left as Instance);
    else instances.delete(key, member.metadata.uid);
  } catch (error) {
    if (!hasCode(error, "NotFound")) throw error;
    instances.delete(key, member.metadata.uid);
  }
}

async function tell(
  { verbs }: ControllerContext,
  group: Group,
  { metadata: { name } }: Instance,
  what: string,
): Promise<void> {
  await verbs.recordEvent(group, { severity: "normal", reason: "Member", message: `${name} ${what}` });
}

function refOf({ metadata: { project = "", name } }: Group | Instance): Ref {
  return { project, name };
}
