import type { Instant } from "../../core/clock.ts";
import type { Host, HostStatus } from "../../kinds/host.ts";
import type { Plan } from "../../reconcile/reconciler.ts";
import type { HostWorld } from "./observe.ts";

export interface HostAction {
  type: "report";
  host: Host;
  status: HostStatus;
}

/** For a host without a lease: how long its agent may take to renew one. */
const unleasedMs = 15_000;

/**
 * A host whose lease has lapsed is not ready: nothing new is placed there. What runs there is left alone, and is not
 * started elsewhere, for a silent host may well be running it.
 */
export function planHost({ host, lease, seenAt }: HostWorld, now: Instant): Plan<HostAction, never> {
  if (!host) return { status: undefined, actions: [] };
  const lapsesInMs = seenAt + (lease?.spec.durationMs ?? unleasedMs) - now;
  if (lapsesInMs <= 0) return { status: undefined, actions: notReady(host, lease?.spec.renewedAt) };
  return { status: undefined, actions: lease ? readyAgain(host) : [], recheckAfterMs: lapsesInMs };
}

function notReady(host: Host, renewedAt: string | undefined): HostAction[] {
  const { status } = host;
  if (status.state === "not-ready") return [];
  const since = renewedAt === undefined ? "" : ` since ${renewedAt}`;
  const message = `no sign of life from its agent${since}; see whether the daemon runs there and reaches the API`;
  return [{ type: "report", host, status: { ...status, state: "not-ready", message } }];
}

function readyAgain(host: Host): HostAction[] {
  const { status } = host;
  const reported = status.capacity.memoryMib > 0;
  if (status.state === "ready" || !reported) return [];
  return [{ type: "report", host, status: { ...status, state: "ready", message: "" } }];
}
