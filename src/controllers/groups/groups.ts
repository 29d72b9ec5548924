/**
 * Keeps the members of groups as many, as new and as healthy as they shall be. What it decides is in plan.ts; how many are
 * desired is the scaling controller's business.
 */
import { describeError, hasCode, StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { jsonEquals } from "../../core/json.ts";
import { groupKind } from "../../kinds/group.ts";
import { refOfKey } from "../../kinds/keys.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { executeGroupAction } from "./execute.ts";
import { planGroup } from "./plan.ts";
import { noSetbacks } from "./setbacks.ts";
import type { GroupState } from "./state.ts";
import type { GroupAction, GroupReport, GroupWorld } from "./world.ts";

/** Created before its caches are filled, because the state counts along. `scarce`: does its host lack capacity? */
export function createGroupReconciler(
  context: ControllerContext,
  state: GroupState,
  scarce: (groupKey: string) => boolean,
): Reconciler<GroupWorld, GroupAction, GroupReport> {
  const { groups, hosts, images, instances, loadBalancers } = context.caches;
  const patch = async (world: GroupWorld, status: JsonObject) => {
    const { group } = world;
    if (!group) return;
    try {
      const ref = refOfKey(groupKind, groups.keyOf(group));
      const next = await context.verbs.patchStatus(groupKind, ref, group.metadata.uid, status);
      groups.learn(groups.keyOf(group), next);
    } catch (error) {
      if (!hasCode(error, "NotFound")) throw error;
    }
  };
  return {
    name: "groups",
    watches: [
      { name: "groups", urgent: true, keys: (signal) => groups.watchKeys(signal) },
      { name: "members", keys: (signal) => state.hints.keys(signal) },
    ],
    async observe(key) {
      // Whether capacity is scarce is known once hosts and images are.
      await Promise.all([groups, hosts, images, instances, loadBalancers].map((cache) => cache.whenSynced()));
      const group = groups.get(key);
      if (!group || state.isGone(group)) return nothing;
      const members = state.membersOf(group);
      return {
        group,
        members: members.map((instance) => ({
          instance,
          begunAt: state.begunAt(instance),
          lostAt: state.lostAt(instance),
        })),
        balancers: state.balancersOf(key),
        setbacks: state.setbacksOf(group, members),
        decided: state.decidedOf(group),
        scarce: scarce(key),
      };
    },
    plan: planGroup,
    execute: (action) => executeGroupAction(context, state, action),
    async report(_key, world, status) {
      const { group } = world;
      const { failedRevision, ...rest } = status;
      const next: JsonObject = { ...(rest as unknown as JsonObject), failedRevision: failedRevision ?? null };
      if (group && !saysTheSame(group.status as unknown as JsonObject, next)) await patch(world, next);
    },
    async failed(_key, { world, error }) {
      const message = error instanceof StrataError ? error.message : describeError(error);
      if (!world?.group || hasCode(error, "Conflict") || world.group.metadata.deletedAt !== undefined) return;
      await patch(world, { state: "short", message: message.slice(0, 1024) });
    },
  };
}

const nothing: GroupWorld = {
  group: undefined,
  members: [],
  balancers: [],
  setbacks: noSetbacks,
  decided: 0,
  scarce: false,
};

function saysTheSame(status: JsonObject, next: JsonObject): boolean {
  return Object.entries(next).every(([key, value]) => jsonEquals(status[key] ?? null, value));
}
