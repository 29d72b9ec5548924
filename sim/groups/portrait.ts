/** What a host and its groups look like when something does not hold, for whoever has to find out why. */
import { eventKind } from "../../src/kinds/event.ts";
import { type Group, groupKind } from "../../src/kinds/group.ts";
import type { Instance } from "../../src/kinds/instance.ts";
import { resourcePrefix } from "../../src/kinds/keys.ts";
import type { Kind } from "../../src/kinds/kind.ts";
import { scalingDecisionKind } from "../../src/kinds/scaling-decision.ts";
import { fromStored } from "../../src/kinds/stored.ts";
import type { Store } from "../../src/store/store.ts";

const shownLast = 8;

/** Of the host that the first group named in `problem` is on; empty when none is named. */
export async function portraitOf(
  store: Store,
  instances: readonly Instance[],
  problem: string,
): Promise<string> {
  const groups = await listed<Group>(store, groupKind as unknown as Kind);
  const name = problem.match(/group-\d+/)?.[0];
  const subject = groups.find(({ metadata }) => metadata.name === name);
  if (!subject) return "";
  const { image } = subject.spec.template;
  const neighbours = groups.filter(({ spec }) => spec.template.image === image);
  const uids = new Set<string>(neighbours.map(({ metadata }) => metadata.uid));
  const decisions = await listed<{ spec: { group: { name: string } }; metadata: { createdAt: string } }>(
    store,
    scalingDecisionKind as unknown as Kind,
  );
  const events = await listed<{ spec?: unknown }>(store, eventKind as unknown as Kind);
  return [
    ...neighbours.map((group) => lineOf(group)),
    ...instances
      .filter(({ spec, metadata }) => spec.image === image || uids.has(metadata.owner?.uid ?? ""))
      .map((instance) => memberLine(instance)),
    ...decisions
      .filter(({ spec }) => spec.group.name === name)
      .slice(-shownLast)
      .map(({ spec, metadata }) => `${metadata.createdAt} ${JSON.stringify(spec)}`),
    ...events
      .map((event) => JSON.stringify(event))
      .filter((text) => text.includes(`"${name}"`))
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

async function listed<R>(store: Store, kind: Kind): Promise<R[]> {
  const page = await store.list(resourcePrefix(kind), { limit: 1_000 });
  return page.entries.map((entry) => fromStored(entry) as R);
}
