/**
 * Members follow `status.desired`. Pure: the same world and time give the same plan.
 *
 * Invariants: while an update or healing runs, no member that works leaves before as many as desired work without it; there
 * are at most `update.maxSurge` members more than desired, but for those that leave; a template whose members fail is tried
 * ever more seldom.
 */
import type { Instant } from "../../core/clock.ts";
import type { Group } from "../../kinds/group.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import { classify, type Member } from "./classify.ts";
import { isDrained } from "./drain.ts";
import { planServing } from "./plan-serving.ts";
import { planWarm } from "./plan-warm.ts";
import { reportOf } from "./report.ts";
import { setbackEnd } from "./setbacks.ts";
import { type Version, versionOf } from "./version.ts";
import type { GroupAction, GroupReport, GroupWorld } from "./world.ts";

/** What the parts of the plan look at. */
export interface Scene {
  group: Group;
  /** All that are not marked for deletion. */
  members: readonly Member[];
  version: Version;
  hasBalancer: boolean;
  /** Members that may be created now. */
  mayCreate: number;
  scarce: boolean;
  decided: number;
  /** Members failed, and until then no new one is made; `why` is of the last. */
  pause: { until: Instant; why: string } | undefined;
}

/** Members of a group that may be starting at once. */
const maxStarting = 50;

export function planGroup(world: GroupWorld, now: Instant): Plan<GroupAction, GroupReport> {
  const { group } = world;
  if (!group) return { status: undefined, actions: [] };
  const present = world.members.filter(({ instance }) => instance.metadata.deletedAt === undefined);
  const members = present.map((member) => classify(member, group, now));
  if (group.metadata.deletedAt !== undefined) return planEnd(world, group, members);
  const version = versionOf(group, members);
  const starting = members.filter((member) => member.health === "starting" && member.readyAt === undefined);
  const until = setbackEnd(world.setbacks);
  const pause = now < until ? { until, why: world.setbacks.why } : undefined;
  const scene: Scene = {
    group,
    members,
    version,
    hasBalancer: world.balancers.length > 0,
    mayCreate: pause ? 0 : Math.max(0, maxStarting - starting.length),
    scarce: world.scarce,
    decided: world.decided,
    pause,
  };
  const leaving = members.filter((member) => member.phase === "draining");
  const serving = planServing(scene);
  const returning = new Set(
    serving.actions.flatMap((one) => (one.type === "set-phase" && one.phase === "serving" ? one.member : [])),
  );
  const actions = [
    ...members.flatMap((member) => notesOn(member)),
    ...leaving.flatMap((member) =>
      returning.has(member.instance) ? [] : planLeaving(world, group, member, now),
    ),
    ...serving.actions,
    ...planWarm(scene, serving),
  ];
  const changes = [
    ...members.map((member) => member.changesAt),
    ...leaving.map((member) => member.phaseSince + group.spec.drainSeconds * 1000),
    until,
  ].filter((at) => at !== undefined && at > now);
  // What creates may be refused: everything else comes before.
  actions.sort((a, b) => Number(a.type === "create") - Number(b.type === "create"));
  return {
    status: reportOf(scene),
    actions,
    ...(changes.length === 0 ? {} : { recheckAfterMs: Math.min(...(changes as Instant[])) - now }),
  };
}

/** Everything the group owns goes, then the group. */
function planEnd(
  world: GroupWorld,
  group: Group,
  members: readonly Member[],
): Plan<GroupAction, GroupReport> {
  if (!group.metadata.finalizers.includes("group")) return { status: undefined, actions: [] };
  if (world.members.length === 0) return { status: undefined, actions: [{ type: "finalize", group }] };
  const {
    wanted: _,
    desired: _1,
    lent: _2,
    shortage: _3,
    scaledOutAt: _4,
    scaledInAt: _5,
    yieldedAt: _6,
    ...said
  } = group.status;
  const left = world.members.length;
  return {
    status: { ...said, state: "deleting", message: `${left} member${left === 1 ? "" : "s"} left` },
    actions: members.map(({ instance }) => removal(group, instance, "the group is deleted")),
  };
}

function notesOn({ instance, readyAt, revision }: Member): GroupAction[] {
  if (!instance.status.member) return [{ type: "adopt", member: instance, revision }];
  const noted = readyAt === undefined || instance.status.member.readyAt !== undefined;
  return noted ? [] : [{ type: "note-ready", member: instance }];
}

function planLeaving({ balancers }: GroupWorld, group: Group, member: Member, now: Instant): GroupAction[] {
  if (isDrained(member, balancers))
    return [removal(group, member.instance, "it has finished what it was doing")];
  const { drainSeconds } = group.spec;
  if (now < member.phaseSince + drainSeconds * 1000) return [];
  return [removal(group, member.instance, `the ${drainSeconds} s to finish what it was doing are over`)];
}

function removal(group: Group, member: Member["instance"], reason: string): GroupAction {
  return { type: "remove", group, member, reason, failed: false };
}
