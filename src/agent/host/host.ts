/**
 * Registers this host and tells what it has: its size, its disk space, what each driver has proven to be able to do.
 * Drivers are told one by one as their proof comes in, so that a slow one keeps nobody waiting.
 */
import { hasCode } from "../../core/errors.ts";
import { Hints } from "../../core/hints.ts";
import { type Fingerprint, type HostStatus, hostKind } from "../../kinds/host.ts";
import type { Reconciler, Watch } from "../../reconcile/reconciler.ts";
import type { AgentContext } from "../agent-context.ts";
import { statusPatch } from "../status-patch.ts";
import { type HostAction, type HostWorld, planHost } from "./plan.ts";

export interface HostReconciler extends Reconciler<HostWorld, HostAction, HostStatus> {
  /** More is known of the drivers. */
  driversKnown(): void;
}

const beingProbed: Fingerprint = {
  available: false,
  probing: true,
  message: "is being probed",
  version: "",
  types: [],
  abilities: [],
  facts: {},
};

export function createHostReconciler(context: AgentContext): HostReconciler {
  const { client, hostName, drivers, disks, machine } = context;
  const hints = new Hints();
  const watches: Watch[] = [{ name: "host", keys: (signal) => hints.keys(signal, [hostName]) }];
  return {
    name: "host",
    watches,
    driversKnown: () => hints.hint(hostName),
    async observe(_key, signal) {
      const [host, disk] = await Promise.all([
        client.get(hostKind, { name: hostName }, { signal }),
        disks.capacity(),
      ]);
      const fingerprints = [...drivers.all()].map(({ name }) => {
        return [name, drivers.fingerprint(name) ?? beingProbed] as const;
      });
      return { host, disk, machine, fingerprints };
    },
    plan: planHost,
    execute: (_action, signal) => registerHost(context, signal),
    async report(_key, { host }, status, signal) {
      const patch = host && statusPatch(host.status, status);
      if (!patch) return;
      await client.patchStatus(hostKind, { name: hostName }, host.metadata.uid, patch, { signal });
    },
  };
}

/** Idempotent. */
export async function registerHost({ client, hostName }: AgentContext, signal: AbortSignal): Promise<void> {
  try {
    await client.create(hostKind, { name: hostName, spec: {} }, { signal });
  } catch (error) {
    if (!hasCode(error, "AlreadyExists")) throw error;
  }
}
