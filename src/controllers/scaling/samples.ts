import { Hints } from "../../core/hints.ts";
import { groupKind } from "../../kinds/group.ts";
import type { Sample } from "../../metrics/metric-store.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { subjectOf } from "./signals.ts";

const sampleMs = 10_000;

/** Records how many members groups have and should have. */
export function createGroupSamples({
  caches,
  clock,
  metrics,
}: ControllerContext): Reconciler<Sample[], Sample[], never> {
  const start = new Hints();
  let sampledAt = Number.NEGATIVE_INFINITY;
  return {
    name: "group-samples",
    watches: [{ name: "start", keys: (signal) => start.keys(signal, ["groups"]) }],
    async observe() {
      const at = clock.now();
      if (at - sampledAt < sampleMs) return [];
      return [...caches.groups.values()].flatMap((group) => {
        const subject = subjectOf(groupKind, group);
        const { members, desired } = group.status;
        return [
          { ...subject, metric: "members", at, value: members },
          { ...subject, metric: "desired", at, value: desired },
        ];
      });
    },
    plan: (samples) => ({
      status: undefined,
      actions: samples.length === 0 ? [] : [samples],
      recheckAfterMs: sampleMs,
    }),
    async execute(samples) {
      metrics.record(samples);
      sampledAt = clock.now();
    },
  };
}
