/**
 * Gives instances and images a host. One at a time, so that each decision sees the one before: a commit is taken over
 * by the cache before the next look. What no host can take waits, with the reasons in its status, until room comes up.
 */
import type { Reconciler } from "../../reconcile/reconciler.ts";
import type { ControllerContext } from "../context.ts";
import { executePlacement } from "./execute.ts";
import { observePlacement, type PlacementWorld } from "./observe.ts";
import { type PlacementAction, planPlacement } from "./plan.ts";
import { createPlacementState } from "./state.ts";

/** To be run with a concurrency of 1. Created before its caches are filled, because it counts along. */
export function createPlacementReconciler(
  context: ControllerContext,
): Reconciler<PlacementWorld, PlacementAction, never> {
  const { instances, images, hosts, groups } = context.caches;
  const state = createPlacementState({ instances, images, hosts, groups });
  return {
    name: "placement",
    watches: [
      { name: "images", urgent: true, keys: (signal) => images.watchKeys(signal) },
      { name: "instances", urgent: true, keys: (signal) => instances.watchKeys(signal) },
      { name: "room", keys: (signal) => state.hints.keys(signal) },
    ],
    async observe(key) {
      // A decision made before all instances are counted could promise memory twice.
      await Promise.all([instances, images, hosts, groups].map((cache) => cache.whenSynced()));
      return observePlacement(state, key);
    },
    plan: planPlacement,
    execute: (action) => executePlacement(context, action),
  };
}
