/**
 * Decides how many members each group is to have, whenever something it depends on changes: its spec, a sample, a held
 * request, the hosts' capacity, a boundary of its calendar. The look at all groups is taken only while they do not fit.
 */
import type { Instant } from "../../core/clock.ts";
import { Hints } from "../../core/hints.ts";
import type { Group } from "../../kinds/group.ts";
import type { Host } from "../../kinds/host.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { noSignals } from "../../kinds/scaling/signals.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import { untilAborted } from "../../reconcile/until-aborted.ts";
import type { ControllerContext } from "../context.ts";
import { type GroupState, groupKeyOf } from "../groups/state.ts";
import { Forecasts } from "./forecasts.ts";
import { Ledger } from "./ledger.ts";
import { planScaling, type ScalingReport, type ScalingWorld } from "./plan.ts";
import { RecentWishes } from "./recent-wishes.ts";
import { readSignals } from "./signals.ts";
import { subjectsOfGroups } from "./subjects.ts";
import { writeVerdict } from "./write.ts";

export interface Scaling {
  reconciler: Reconciler<ScalingWorld, never, ScalingReport>;
  /** Do groups lack capacity? Then nobody keeps warm members. */
  isScarce(): boolean;
}

/** Created before its caches are filled, because the ledger counts along. */
export function createScaling(context: ControllerContext, state: GroupState): Scaling {
  const { caches, clock, metrics } = context;
  const { groups, hosts, instances, loadBalancers } = caches;
  const ledger = new Ledger(caches);
  const forecasts = new Forecasts(metrics);
  const wishes = new Map<string, RecentWishes>();
  const waiting = new Set<string>();
  const hints = new Hints();
  let wasScarce = false;
  const everybody = () => {
    for (const key of groups.keys()) hints.hint(key);
  };

  groups.onChange((key, next, previous) => {
    if (previous && next?.metadata.uid !== previous.metadata.uid) {
      forecasts.forget(previous.metadata.uid);
      wishes.delete(previous.metadata.uid);
      waiting.delete(key);
    }
    if (next && next.metadata.deletedAt === undefined) return;
    ledger.remove(key);
    if (wasScarce) everybody();
  });
  hosts.onChange((_key, next, previous) => {
    if (roomChanged(next, previous)) everybody();
  });
  instances.onChange((_key, next, previous) => {
    // Capacity came free, or was taken by somebody else.
    const taken = next?.status.host !== previous?.status.host || next?.spec !== previous?.spec;
    if (taken && (wasScarce || (!next && waiting.size > 0))) for (const key of waiting) hints.hint(key);
  });
  loadBalancers.onChange((_key, next, previous) => {
    if (next && (next.status.held !== (previous?.status.held ?? 0) || !previous)) hintOf(hints, next);
  });

  const observe = (key: string, group: Group): ScalingWorld => {
    const now = clock.now();
    const measured = { group, members: state.membersOf(group), balancers: state.balancersOf(key) };
    const known = wishes.get(group.metadata.uid);
    return {
      key,
      group,
      signals: readSignals(metrics, measured, forecasts.of(measured, now), now),
      // After a restart, what it wanted before is not known: it may have been as much as it has.
      recentWanted: known?.all() ?? [{ at: startedAt, members: group.status.desired }],
      judge: (claim) => ledger.judge(claim),
    };
  };
  const startedAt = clock.now();

  return {
    isScarce: () => wasScarce,
    reconciler: {
      name: "scaling",
      watches: [
        { name: "groups", urgent: true, keys: (signal) => groups.watchKeys(signal) },
        { name: "capacity", urgent: true, keys: (signal) => hints.keys(signal) },
        { name: "metrics", keys: (signal) => sampledGroups(context, signal) },
      ],
      async observe(key) {
        await Promise.all([groups, hosts, instances, loadBalancers].map((cache) => cache.whenSynced()));
        const group = groups.get(key);
        if (!group || group.metadata.deletedAt !== undefined) return gone(key);
        return observe(key, group);
      },
      plan: planScaling,
      async execute() {},
      async report(key, { group }, report) {
        if (!group) return;
        remember(wishes, group, report, startedAt);
        ledger.set(report.claim);
        if (report.waits) waiting.add(key);
        else waiting.delete(key);
        if (differs(group, report)) {
          await writeVerdict(context, group, report);
          state.hints.hint(key);
        }
        state.decide(group);
        tellOthers(key);
      },
    },
  };

  /** A claim may change what the others get. */
  function tellOthers(key: string): void {
    const scarce = ledger.isScarce;
    if (scarce !== wasScarce) {
      wasScarce = scarce;
      for (const other of groups.keys()) {
        state.hints.hint(other);
        if (other !== key) hints.hint(other);
      }
      return;
    }
    if (!scarce) return;
    const grants = ledger.share();
    for (const [other, claim] of ledger.claims()) {
      const granted = grants.get(other)?.granted ?? 0;
      if (other !== key && granted !== claim.desired && !waiting.has(other)) hints.hint(other);
    }
  }
}

function gone(key: string): ScalingWorld {
  const judge = () => ({ granted: 0, lent: 0, now: 0 });
  return { key, group: undefined, signals: noSignals, recentWanted: [], judge };
}

function remember(
  wishes: Map<string, RecentWishes>,
  { metadata, spec, status }: Group,
  { wish }: ScalingReport,
  startedAt: Instant,
): void {
  const windowMs = spec.behavior.inStabilizationSeconds * 1000;
  let known = wishes.get(metadata.uid);
  if (!known) {
    known = new RecentWishes();
    known.add({ at: startedAt, members: status.desired }, windowMs);
    wishes.set(metadata.uid, known);
  }
  known.add(wish, windowMs);
}

function differs({ status }: Group, { status: next }: ScalingReport): boolean {
  return (
    next.wanted !== status.wanted ||
    next.desired !== status.desired ||
    next.lent !== status.lent ||
    next.shortage !== status.shortage
  );
}

function hintOf(hints: Hints, balancer: LoadBalancer): void {
  const group = groupKeyOf(balancer);
  if (group !== undefined) hints.hint(group);
}

function roomChanged(next: Host | undefined, previous: Host | undefined): boolean {
  const room = (host: Host | undefined) =>
    host &&
    JSON.stringify([
      host.spec,
      host.status.state,
      host.status.allocatable.cpus,
      host.status.allocatable.memoryMib,
    ]);
  return room(next) !== room(previous);
}

/** Groups with a policy that looks at what was just recorded. */
async function* sampledGroups(
  { metrics, caches }: ControllerContext,
  signal: AbortSignal,
): AsyncGenerator<string> {
  const hints = new Hints();
  await Promise.race([caches.groups.whenSynced(), untilAborted(signal)]);
  const stop = metrics.onRecord((subjects) => {
    for (const key of subjectsOfGroups(caches, subjects)) hints.hint(key);
  });
  try {
    yield* hints.keys(signal);
  } finally {
    stop();
  }
}
