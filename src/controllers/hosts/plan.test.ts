import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import { type Host, hostKind } from "../../kinds/host.ts";
import type { Lease } from "../../kinds/lease.ts";
import { planHost } from "./plan.ts";

const now = 1_700_000_000_000;
const metadata: Host["metadata"] = {
  name: "alpha",
  uid: "1".repeat(16) as Host["metadata"]["uid"],
  revision: 1,
  generation: 1,
  labels: {},
  createdAt: toTimestamp(now),
  finalizers: [],
};
const hostOf = (state: Host["status"]["state"], memoryMib = 1_000): Host => ({
  kind: "Host",
  metadata,
  spec: hostKind.spec.parse({}),
  status: { ...hostKind.initialStatus(), state, capacity: { cpus: 1, memoryMib, diskMib: 1 } },
});
const lease: Lease = {
  kind: "Lease",
  metadata,
  spec: { holder: "alpha", durationMs: 15_000, renewedAt: toTimestamp(now) },
  status: {},
};

test.each([
  ["ready, renewed", hostOf("ready"), lease, 5_000, undefined, 10_000],
  ["ready, lapsed", hostOf("ready"), lease, 15_000, "not-ready", undefined],
  ["not ready, lapsed", hostOf("not-ready"), lease, 20_000, undefined, undefined],
  ["not ready, renewed", hostOf("not-ready"), lease, 0, "ready", 15_000],
  ["registered, and its agent has not reported yet", hostOf("not-ready", 0), lease, 0, undefined, 15_000],
  ["ready, never a lease, for a short time", hostOf("ready"), undefined, 14_999, undefined, 1],
  ["ready, never a lease", hostOf("ready"), undefined, 15_000, "not-ready", undefined],
  ["gone", undefined, lease, 20_000, undefined, undefined],
] as const)("%s", (_name, host, lease_, agoMs, state, recheckAfterMs) => {
  const plan = planHost({ host, lease: lease_, seenAt: now - agoMs }, now);
  expect(plan.actions.map(({ status }) => status.state)).toEqual(state === undefined ? [] : [state]);
  expect(plan.recheckAfterMs).toBe(recheckAfterMs);
});
