/** What a host and its groups look like when something does not hold, for whoever has to find out why. */
import type { Instant } from "../../src/core/clock.ts";
import { eventKind } from "../../src/kinds/event.ts";
import { type Group, groupKind } from "../../src/kinds/group.ts";
import type { Instance } from "../../src/kinds/instance.ts";
import { resourcePrefix } from "../../src/kinds/keys.ts";
import type { Kind } from "../../src/kinds/kind.ts";
import { type ScalingDecision, scalingDecisionKind } from "../../src/kinds/scaling-decision.ts";
import { fromStored } from "../../src/kinds/stored.ts";
import type { Store } from "../../src/store/store.ts";

const shownLast = 8;
/** Of the decisions about all groups of the host, those of so long before the last one are shown. */
const shownMs = 3_600_000;

/** Of the hosts that the groups named in `problem` are on; empty when none is named. */
export async function portraitOf(
  store: Store,
  instances: readonly Instance[],
  problem: string,
): Promise<string> {
  const groups = await listed<Group>(store, groupKind as unknown as Kind);
  const named = new Set(problem.match(/group-\d+/g));
  const images = new Set(
    groups.filter(({ metadata }) => named.has(metadata.name)).map(({ spec }) => spec.template.image),
  );
  if (images.size === 0) return "";
  const neighbours = groups.filter(({ spec }) => images.has(spec.template.image));
  const uids = new Set<string>(neighbours.map(({ metadata }) => metadata.uid));
  const names = new Set(neighbours.map(({ metadata }) => metadata.name));
  const decisions = await listed<ScalingDecision>(store, scalingDecisionKind as unknown as Kind);
  const since = Math.max(...decisions.map(decidedAt)) - shownMs;
  const events = await listed<{ spec?: unknown }>(store, eventKind as unknown as Kind);
  return [
    ...neighbours.map((group) => lineOf(group)),
    ...instances
      .filter(({ spec, metadata }) => images.has(spec.image) || uids.has(metadata.owner?.uid ?? ""))
      .map((instance) => memberLine(instance)),
    ...decisions
      .filter((one) => decidedAt(one) >= since && names.has(one.spec.group.name))
      .map((one) => decisionLine(one)),
    ...events
      .map((event) => JSON.stringify(event))
      .filter((text) => [...named].some((name) => text.includes(`"${name}"`)))
      .slice(-shownLast),
  ].join("\n  ");
}

function lineOf({ metadata: { name }, spec, status }: Group): string {
  const { min, max, priority, lends, warm: keepsWarm } = spec;
  const { stable: _, conditions: _1, ...said } = status as Group["status"] & { conditions?: unknown };
  return `${name} ${JSON.stringify({ min, max, priority, lends, keepsWarm, ...said })}`;
}

function memberLine({ metadata, status }: Instance): string {
  const { name, createdAt, deletedAt, finalizers } = metadata;
  const { state, reason, message, host, member } = status;
  const ready = status.conditions.find(({ type }) => type === "Ready")?.status;
  return JSON.stringify({
    name,
    createdAt,
    deletedAt,
    finalizers,
    state,
    reason,
    message,
    host,
    ready,
    member,
  });
}

function decidedAt({ metadata }: ScalingDecision): Instant {
  return Date.parse(metadata.createdAt);
}

function decisionLine({ metadata, spec }: ScalingDecision): string {
  const { group, from, to, wants, limits } = spec;
  const wishes = wants.map(({ policy, members }) => `${policy} ${members ?? "-"}`).join(", ");
  return `${metadata.createdAt} ${group.name} ${from} → ${to} (${wishes}) ${limits.join("; ")}`;
}

async function listed<R>(store: Store, kind: Kind): Promise<R[]> {
  const page = await store.list(resourcePrefix(kind), { limit: 1_000 });
  return page.entries.map((entry) => fromStored(entry) as R);
}
