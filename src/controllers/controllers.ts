/**
 * The control plane's own reconcilers: they decide what no host can decide alone. They read the store through caches
 * and write it with compared commits; whatever a verb of the API also does (removing what is marked for deletion)
 * goes through the verbs, which are passed in.
 */
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import { backupKind } from "../kinds/backup.ts";
import { backupScheduleKind } from "../kinds/backup-schedule.ts";
import { certificateKind } from "../kinds/certificate.ts";
import { eventKind, eventRetention } from "../kinds/event.ts";
import { groupKind } from "../kinds/group.ts";
import { hostKind } from "../kinds/host.ts";
import { imageKind } from "../kinds/image.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { Resource } from "../kinds/kind.ts";
import { leaseKind } from "../kinds/lease.ts";
import { loadBalancerKind } from "../kinds/load-balancer.ts";
import { networkKind } from "../kinds/network.ts";
import { projectKind } from "../kinds/project.ts";
import { decisionRetention, scalingDecisionKind } from "../kinds/scaling-decision.ts";
import { tokenKind } from "../kinds/token.ts";
import type { MetricStore } from "../metrics/metric-store.ts";
import { type RunnerHooks, type RunnerOptions, runReconciler } from "../reconcile/runner.ts";
import type { Store } from "../store/store.ts";
import { createBootTestReconciler } from "./backups/boot-tests.ts";
import { createScheduleReconciler } from "./backups/schedules.ts";
import { createBalancerReconciler } from "./balancers/balancers.ts";
import { createCertificateReconciler } from "./certificates/certificates.ts";
import type { ControllerCaches, ControllerContext, ControllerVerbs } from "./context.ts";
import { createGroupReconciler } from "./groups/groups.ts";
import { GroupState } from "./groups/state.ts";
import { createHostReconciler } from "./hosts/hosts.ts";
import { createPlacementReconciler } from "./placement/placement.ts";
import { createProjectReconciler } from "./projects/projects.ts";
import { createGroupSamples } from "./scaling/samples.ts";
import { createScaling } from "./scaling/scaling.ts";
import { StoreCache } from "./store-cache.ts";
import { createHistoryTidying } from "./tidy/history.ts";
import { createRetention } from "./tidy/retention.ts";
import { createTokenExpiry } from "./tidy/tokens.ts";

export interface ControllerOptions {
  store: Store;
  metrics: MetricStore;
  clock: Clock;
  random: Random;
  logger: Logger;
  signal: AbortSignal;
  verbs: ControllerVerbs;
  hooks?: RunnerHooks;
}

/** Runs all controllers until the signal aborts; resolves when what is under way has ended. */
export async function startControllers(options: ControllerOptions): Promise<void> {
  const { store, metrics, clock, random, signal, verbs, hooks } = options;
  const logger = options.logger.child({ room: "controllers" });
  const caches = createCaches({ store, clock, random, logger });
  const context: ControllerContext = { store, metrics, clock, random, logger, caches, verbs };
  const shared: RunnerOptions = { clock, random, logger, ...(hooks ? { hooks } : {}) };
  const groupState = new GroupState(caches, clock);
  const scaling = createScaling(context, groupState);
  const rooms = [
    runReconciler(createPlacementReconciler(context), { ...shared, concurrency: 1 }, signal),
    runReconciler(createGroupReconciler(context, groupState, scaling.isScarce), shared, signal),
    runReconciler(scaling.reconciler, shared, signal),
    runReconciler(createGroupSamples(context), shared, signal),
    runReconciler(createHostReconciler(context), shared, signal),
    runReconciler(createBalancerReconciler(context), shared, signal),
    runReconciler(
      createCertificateReconciler(context),
      // Authorities limit how often one may fail.
      { ...shared, backoff: { minMs: 5_000, maxMs: 3_600_000 } },
      signal,
    ),
    runReconciler(createScheduleReconciler(context), shared, signal),
    runReconciler(createBootTestReconciler(context), shared, signal),
    runReconciler(createProjectReconciler(context), shared, signal),
    runReconciler(createRetention(context, "events", eventRetention), shared, signal),
    runReconciler(createRetention(context, "scalingDecisions", decisionRetention), shared, signal),
    runReconciler(createTokenExpiry(context), shared, signal),
    runReconciler(createHistoryTidying(context), shared, signal),
  ];
  const feeds = Object.values(caches).map((cache) => cache.run(signal));
  await Promise.all([...rooms, ...feeds]);
}

/** Also for simulations that run some of the controllers only. */
export function createCaches(
  parts: Omit<ControllerContext, "metrics" | "caches" | "verbs">,
): ControllerCaches {
  return {
    instances: new StoreCache({ ...parts, kind: instanceKind, relevant: unplacedChanged }),
    groups: new StoreCache({ ...parts, kind: groupKind, relevant: specChanged }),
    scalingDecisions: new StoreCache({ ...parts, kind: scalingDecisionKind }),
    images: new StoreCache({ ...parts, kind: imageKind, relevant: unplacedChanged }),
    hosts: new StoreCache({ ...parts, kind: hostKind }),
    leases: new StoreCache({ ...parts, kind: leaseKind }),
    projects: new StoreCache({ ...parts, kind: projectKind }),
    tokens: new StoreCache({ ...parts, kind: tokenKind }),
    events: new StoreCache({ ...parts, kind: eventKind }),
    certificates: new StoreCache({ ...parts, kind: certificateKind, relevant: specChanged }),
    loadBalancers: new StoreCache({ ...parts, kind: loadBalancerKind, relevant: specOrHostChanged }),
    networks: new StoreCache({ ...parts, kind: networkKind, relevant: () => false }),
    backups: new StoreCache({ ...parts, kind: backupKind, relevant: () => false }),
    backupSchedules: new StoreCache({ ...parts, kind: backupScheduleKind, relevant: specChanged }),
  };
}

/** What the controllers of groups write themselves is no reason to look again. */
function specChanged(next: Resource, previous: Resource): boolean {
  return (
    next.metadata.generation !== previous.metadata.generation ||
    next.metadata.deletedAt !== previous.metadata.deletedAt
  );
}

/** Once placed, an instance or image is its host's business. */
function unplacedChanged(
  next: Resource<unknown, { host?: string | undefined }>,
  previous: Resource,
): boolean {
  return next.status.host === undefined && next.metadata.generation !== previous.metadata.generation;
}

/** What the host reports is no reason to look again. */
function specOrHostChanged(
  next: Resource<unknown, { host?: string | undefined }>,
  previous: Resource<unknown, { host?: string | undefined }>,
): boolean {
  return (
    next.metadata.generation !== previous.metadata.generation ||
    next.metadata.deletedAt !== previous.metadata.deletedAt ||
    next.status.host !== previous.status.host
  );
}
