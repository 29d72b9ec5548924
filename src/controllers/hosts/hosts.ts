/** Tells which hosts are alive, by the leases that their agents renew. */

import { Hints } from "../../core/hints.ts";
import { hostKind } from "../../kinds/host.ts";
import { resourceKey } from "../../kinds/keys.ts";
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { executeHostAction } from "./execute.ts";
import { type HostWorld, observeHost, Sightings } from "./observe.ts";
import { type HostAction, planHost } from "./plan.ts";

export function createHostReconciler(context: ControllerContext): Reconciler<HostWorld, HostAction, never> {
  const { hosts, leases } = context.caches;
  const sightings = new Sightings(context.clock);
  const renewed = new Hints();
  leases.onChange((_key, next) => {
    if (next) renewed.hint(resourceKey(hostKind, { name: next.metadata.name }));
  });
  hosts.onChange((_key, next, previous) => {
    if (previous && !next) sightings.forget(previous.metadata.name);
  });
  return {
    name: "hosts",
    watches: [
      { name: "hosts", keys: (signal) => hosts.watchKeys(signal) },
      { name: "leases", keys: (signal) => renewed.keys(signal) },
    ],
    async observe(key) {
      await leases.whenSynced();
      return observeHost(context.caches, sightings, key);
    },
    plan: planHost,
    execute: (action) => executeHostAction(context, action),
  };
}
