import { toTimestamp } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import { newUid, shortId } from "../../core/ids.ts";
import type { Group } from "../../kinds/group.ts";
import { closingKey, resourceKey } from "../../kinds/keys.ts";
import { type ScalingDecision, scalingDecisionKind } from "../../kinds/scaling-decision.ts";
import { fromStored, toStored } from "../../kinds/stored.ts";
import type { Write } from "../../store/store.ts";
import type { ControllerContext } from "../context.ts";
import type { ScalingReport } from "./plan.ts";

/** The group's other controller writes its status too: who comes second reads it again. */
const maxAttempts = 5;

/**
 * The group's new numbers and, when they change its size, the decision, in one commit.
 * @throws Conflict when others keep writing the group.
 */
export async function writeVerdict(
  context: ControllerContext,
  group: Group,
  { status, decision }: ScalingReport,
): Promise<void> {
  const { store, caches } = context;
  const key = caches.groups.keyOf(group);
  let cause: unknown;
  for (let attempt = 0; attempt < maxAttempts; attempt++) {
    const entry = await store.get(key);
    const current = entry && fromStored<Group>(entry);
    if (current?.metadata.uid !== group.metadata.uid || current.metadata.deletedAt !== undefined) return;
    const { shortage: _, ...rest } = current.status;
    const next = { ...current, status: { ...rest, ...status } };
    const writes: Write[] = [{ put: key, value: toStored(next), ifRevision: current.metadata.revision }];
    if (decision) writes.push(...newDecision(context, group, decision));
    try {
      const revision = await store.commit(writes);
      return caches.groups.learn(key, { ...next, metadata: { ...next.metadata, revision } });
    } catch (error) {
      if (!hasCode(error, "Conflict")) throw error;
      cause = error;
    }
  }
  const { name } = group.metadata;
  throw new StrataError("Conflict", `the size of group "${name}" was not written: others wrote it`, {
    cause,
  });
}

/** Names of one project sort by time. */
function newDecision(
  { clock, random }: ControllerContext,
  { metadata: { project = "" } }: Group,
  spec: ScalingDecision["spec"],
): Write[] {
  const now = clock.now();
  const uid = newUid(random);
  const name = `d${now.toString(36).padStart(9, "0")}-${shortId(uid)}`;
  const resource: ScalingDecision = {
    kind: scalingDecisionKind.name,
    metadata: {
      name,
      project,
      uid,
      revision: 0,
      generation: 1,
      labels: {},
      createdAt: toTimestamp(now),
      finalizers: [],
    },
    spec,
    status: {},
  };
  return [
    { put: resourceKey(scalingDecisionKind, { project, name }), value: toStored(resource), ifRevision: 0 },
    { delete: closingKey(project), ifRevision: 0 },
  ];
}
