/**
 * Decides how many members each group is to have, whenever something it depends on changes: its spec, a sample, a held
 * request, the hosts' capacity, a boundary of its calendar. The look at all groups is taken only while they do not fit.
 */
import type { Instant } from "../../core/clock.ts";
import { Hints } from "../../core/hints.ts";
import type { Group } from "../../kinds/group.ts";
import type { Host } from "../../kinds/host.ts";
import { imageKind } from "../../kinds/image.ts";
import type { Instance } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";
import { noSignals } from "../../kinds/scaling/signals.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import { untilAborted } from "../../reconcile/until-aborted.ts";
import type { ControllerContext } from "../context.ts";
import { type GroupState, groupKeyOf, ownerOf } from "../groups/state.ts";
import { Forecasts } from "./forecasts.ts";
import { type GroupClaim, Ledger } from "./ledger.ts";
import { planScaling, type ScalingReport, type ScalingWorld, standingClaim } from "./plan.ts";
import { RecentWishes } from "./recent-wishes.ts";
import { readSignals } from "./signals.ts";
import { subjectsOfGroups } from "./subjects.ts";
import { writeVerdict } from "./write.ts";

export interface Scaling {
  reconciler: Reconciler<ScalingWorld, never, ScalingReport>;
  /**
   * Does the group's host lack capacity for all that groups want of it? Then nobody there keeps warm members. To be asked once
   * groups, hosts, images and instances are known.
   */
  isScarce(groupKey: string): boolean;
}

/** Created before its caches are filled, because the ledger counts along. */
export function createScaling(context: ControllerContext, state: GroupState): Scaling {
  const { caches, clock, metrics } = context;
  const { groups, hosts, images, instances, loadBalancers } = caches;
  const ledger = new Ledger(caches);
  const forecasts = new Forecasts(metrics);
  const startedAt = clock.now();
  const wishes = new Map<string, RecentWishes>();
  /** Groups that wait for capacity which others give back, or until they may have some again. */
  const waiting = new Set<string>();
  /** Hosts that are short. */
  const scarce = new Set<string>();
  const hints = new Hints();
  const hintAll = (keys: Iterable<string>) => {
    for (const key of keys) hints.hint(key);
  };

  groups.onChange((key, next, previous) => {
    if (previous && next?.metadata.uid !== previous.metadata.uid) {
      forecasts.forget(previous.metadata.uid);
      wishes.delete(previous.metadata.uid);
    }
    if (next && next.metadata.deletedAt === undefined) return;
    const host = ledger.hostOf(key);
    ledger.remove(key);
    waiting.delete(key);
    if (host !== undefined && scarce.has(host)) hintAll(ledger.claimsOn(host).keys());
  });
  hosts.onChange((_key, next, previous) => {
    const { name = "" } = (next ?? previous)?.metadata ?? {};
    if (roomChanged(next, previous)) hintAll(ledger.claimsOn(name).keys());
  });
  images.onChange((_key, next, previous) => {
    if (next?.status.host !== previous?.status.host) hintAll(groups.keys());
  });
  instances.onChange((_key, next, previous) => {
    const taken = next?.status.host !== previous?.status.host || next?.spec !== previous?.spec;
    if (!taken) return;
    // Capacity came free, or was taken by somebody who is of no group.
    for (const host of [next?.status.host, previous?.status.host]) {
      if (host === undefined || !scarce.has(host)) continue;
      if (!ownerOf((next ?? previous) as Instance)) hintAll(ledger.claimsOn(host).keys());
    }
    if (!next) hintAll(waiting);
  });
  loadBalancers.onChange((_key, next, previous) => {
    if (next && next.status.held !== (previous?.status.held ?? 0)) hintOf(hints, next);
  });

  const hostFor = ({ metadata: { project = "" }, spec }: Group) =>
    images.get(resourceKey(imageKind, { project, name: spec.template.image }))?.status.host;

  let standing = false;
  const knowStanding = () => {
    if (standing) return;
    standing = true;
    for (const claim of standingClaims(groups, hostFor, clock.now())) ledger.set(claim);
    for (const { metadata } of hosts.values()) if (ledger.isScarce(metadata.name)) scarce.add(metadata.name);
  };

  const observe = (key: string, group: Group): ScalingWorld => {
    const now = clock.now();
    knowStanding();
    const measured = { group, members: state.membersOf(group), balancers: state.balancersOf(key) };
    const { uid } = group.metadata;
    return {
      key,
      group,
      host: hostFor(group),
      signals: readSignals(metrics, measured, forecasts.of(measured, now), now),
      // After a restart, what it wanted before is not known: it may have been as much as it has.
      recentWanted: wishes.get(uid)?.all() ?? [{ at: startedAt, members: group.status.desired }],
      judge: (claim) => ledger.judge(claim),
    };
  };

  /** A claim may change what the others on its host get. */
  const tellOthers = (key: string, host: string) => {
    const isScarce = ledger.isScarce(host);
    const claims = ledger.claimsOn(host);
    if (isScarce !== scarce.has(host)) {
      if (isScarce) scarce.add(host);
      else scarce.delete(host);
      for (const one of claims.keys()) state.hints.hint(one);
      return hintAll([...claims.keys()].filter((other) => other !== key));
    }
    // Most hosts are not, and may have many groups.
    if (!isScarce) return;
    const grants = ledger.share(host);
    for (const other of claims.values()) {
      if (other.key === key) continue;
      const more = (grants.get(other.key)?.granted ?? 0) - other.desired;
      // Who waits looks again as soon as something is given back, and when its time has come.
      if (more < 0 || (more > 0 && !waiting.has(other.key))) hints.hint(other.key);
    }
  };

  return {
    isScarce(key) {
      knowStanding();
      return scarce.has(ledger.hostOf(key) ?? "");
    },
    reconciler: {
      name: "scaling",
      watches: [
        { name: "groups", urgent: true, keys: (signal) => groups.watchKeys(signal) },
        { name: "capacity", urgent: true, keys: (signal) => hints.keys(signal) },
        { name: "metrics", keys: (signal) => sampledGroups(context, signal) },
      ],
      async observe(key) {
        await Promise.all(
          [groups, hosts, images, instances, loadBalancers].map((cache) => cache.whenSynced()),
        );
        const group = groups.get(key);
        return group && group.metadata.deletedAt === undefined ? observe(key, group) : gone(key);
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
        if (report.claim.host !== undefined) tellOthers(key, report.claim.host);
      },
    },
  };
}

/**
 * What groups have is theirs before any of them is judged: who is looked at first after a start would otherwise find the hosts
 * empty, and one that does not lend would keep what it then takes from the others' minimums.
 */
function* standingClaims(
  groups: ControllerContext["caches"]["groups"],
  hostFor: (group: Group) => string | undefined,
  now: Instant,
): Generator<GroupClaim> {
  for (const key of groups.keys()) {
    const group = groups.get(key);
    if (group && group.metadata.deletedAt === undefined) yield standingClaim(key, hostFor(group), group, now);
  }
}

function gone(key: string): ScalingWorld {
  const judge = () => ({ granted: 0, lent: 0, now: 0 });
  return { key, group: undefined, host: undefined, signals: noSignals, recentWanted: [], judge };
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
