/**
 * The host agent: pulls what is wanted of this host through the API, makes it so with drivers and the host's own
 * tools, and reports what it sees. It keeps nothing of its own on disk: the API's statuses and the host itself are its
 * memory, so it may be killed and started again at any time, and guests do not notice.
 *
 * Invariants: it touches nothing before it has the whole picture from the API; a guest is started only after its
 * handle is recorded; a guest that runs is taken over as it is; what no resource knows is removed only when the API has
 * confirmed that.
 */

import { describeError } from "../core/errors.ts";
import type { Backups } from "../host/backups/backups.ts";
import { hostKind } from "../kinds/host.ts";
import { type RunnerOptions, runReconciler } from "../reconcile/runner.ts";
import { untilAborted } from "../reconcile/until-aborted.ts";
import type { AgentContext, AgentOptions } from "./agent-context.ts";
import { createBackupReconciler } from "./backups/backups.ts";
import { createBackupRepositoryReconciler } from "./backups/repositories.ts";
import { createBalancerReconciler } from "./balancers/balancers.ts";
import { DriverTable } from "./driver-table.ts";
import { EventRecorder } from "./event-recorder.ts";
import { createNetworkChecks } from "./health/network-checks.ts";
import { createFingerprintReconciler } from "./host/fingerprints.ts";
import { runHeartbeat } from "./host/heartbeat.ts";
import { createHostReconciler, registerHost } from "./host/host.ts";
import { createImageReconciler } from "./images/images.ts";
import { createInstanceReconciler } from "./instances/instances.ts";
import { GuestCards } from "./interfaces/guest-cards.ts";
import { createInterfaceReconciler } from "./interfaces/interfaces.ts";
import { thisMachine } from "./machine.ts";
import { serveMetadata } from "./metadata/serve-metadata.ts";
import { runMetrics } from "./metrics/metrics.ts";
import { NetworkAttachments } from "./networks/network-attachments.ts";
import { NetworkPolicies } from "./networks/network-policies.ts";
import { createNetworkReconciler } from "./networks/networks.ts";
import { createOrphanReconciler } from "./orphans/orphans.ts";
import { createPoolReconciler } from "./pools/pools.ts";
import { createAddressReconciler, createPortReconciler } from "./publishing/publishing.ts";
import { runSessions } from "./sessions/sessions.ts";
import { tcpConnect } from "./tcp-connect.ts";
import { createViews, feedsOf } from "./views.ts";
import { createAttachmentReconciler } from "./volumes/attachments.ts";
import { GuestVolumes } from "./volumes/guest-volumes.ts";
import { Rollbacks } from "./volumes/rollbacks.ts";
import { createSnapshotReconciler } from "./volumes/snapshots.ts";
import { runSpaceGuard, WaitingWriters } from "./volumes/space-guard.ts";
import { createVolumeReconciler } from "./volumes/volumes.ts";

export type { AgentOptions } from "./agent-context.ts";

export interface Agent {
  /** Works until the signal aborts, then ends what is under way. Guests go on. Rejects only when it cannot begin. */
  run(signal: AbortSignal): Promise<void>;
}

export function createAgent(options: AgentOptions): Agent {
  return {
    run: (signal) => runAgent(options, signal),
  };
}

async function runAgent(options: AgentOptions, outer: AbortSignal): Promise<void> {
  const abort = new AbortController();
  const stop = () => abort.abort(outer.reason);
  if (outer.aborted) return;
  outer.addEventListener("abort", stop, { once: true });
  const context = createContext(options, abort.signal);
  const { views, images, signal } = context;
  try {
    const feeds = feedsOf(views);
    const feeding = feeds.map((view) => view.run(signal));
    await images.recover();
    await context.disks.recover();
    await context.backups?.recover();
    await Promise.race([Promise.all(feeds.map((view) => view.whenSynced())), untilAborted(signal)]);
    await enterHost(context);
    if (!signal.aborted) await Promise.all(startRooms(context, options));
    await Promise.all(feeding);
  } finally {
    abort.abort(outer.reason);
    outer.removeEventListener("abort", stop);
  }
}

/**
 * Makes the host known, because other rooms name it, and takes over what its drivers had proven, so that a restarted
 * agent starts guests at once. What fails here, the host's reconciler does later.
 */
async function enterHost(context: AgentContext): Promise<void> {
  const { client, hostName, drivers, logger, signal } = context;
  try {
    const host = await client.get(hostKind, { name: hostName }, { signal });
    if (!host) await registerHost(context, signal);
    for (const [name, fingerprint] of Object.entries(host?.status.drivers ?? {})) {
      if (fingerprint.available) drivers.assume(name, fingerprint);
    }
  } catch (error) {
    if (!signal.aborted) logger.warn({ error: describeError(error) }, "the host was not registered at once");
  }
}

function startRooms(context: AgentContext, options: AgentOptions): Promise<void>[] {
  const { signal, clock, random, logger } = context;
  const shared: RunnerOptions = { clock, random, logger, ...(options.hooks ? { hooks: options.hooks } : {}) };
  const host = createHostReconciler(context);
  const instances = createInstanceReconciler(context);
  const fingerprints = createFingerprintReconciler(context, () => {
    host.driversKnown();
    instances.driversKnown();
  });
  return [
    runReconciler(host, shared, signal),
    runReconciler(fingerprints, shared, signal),
    runReconciler(createNetworkReconciler(context), shared, signal),
    runReconciler(createInterfaceReconciler(context), shared, signal),
    runReconciler(createAddressReconciler(context), shared, signal),
    runReconciler(createPortReconciler(context), shared, signal),
    runReconciler(
      instances,
      { ...shared, backoff: { minMs: 1_000, maxMs: 60_000 }, resyncMs: 5 * 60_000 },
      signal,
    ),
    runReconciler(
      createImageReconciler(context),
      { ...shared, concurrency: 2, backoff: { minMs: 5_000, maxMs: 300_000 } },
      signal,
    ),
    runReconciler(createVolumeReconciler(context), shared, signal),
    runReconciler(createAttachmentReconciler(context), shared, signal),
    runReconciler(createSnapshotReconciler(context), shared, signal),
    ...(context.pools ? [runReconciler(createPoolReconciler(context, context.pools), shared, signal)] : []),
    ...(context.backups ? startBackups(context, context.backups, shared) : []),
    ...(context.balancers
      ? [runReconciler(createBalancerReconciler(context, context.balancers), shared, signal)]
      : []),
    runReconciler(createOrphanReconciler(context), shared, signal),
    runSpaceGuard(context),
    runHeartbeat(context),
    runSessions(context),
    ...(options.measurements ? [runMetrics(context, options.measurements)] : []),
  ];
}

/** They take long: a failure waits longer, and few go on at a time. */
function startBackups(context: AgentContext, backups: Backups, shared: RunnerOptions): Promise<void>[] {
  const options = { ...shared, concurrency: 2, backoff: { minMs: 2_000, maxMs: 300_000 } };
  return [
    runReconciler(createBackupRepositoryReconciler(context, backups), options, context.signal),
    runReconciler(createBackupReconciler(context), options, context.signal),
  ];
}

function createContext(options: AgentOptions, signal: AbortSignal): AgentContext {
  const {
    drivers,
    machine,
    measurements: _,
    metadata,
    connect,
    checks,
    removeUnusedImages = false,
    ...rest
  } = options;
  const logger = options.logger.child({ host: options.hostName });
  const { client, clock, random } = options;
  const views = createViews(options);
  const networks = metadata
    ? serveMetadata({ networks: options.networks, views, ...metadata, clock, random, logger }, signal)
    : options.networks;
  const attachments = new NetworkAttachments(networks);
  return {
    ...rest,
    networks,
    logger,
    signal,
    drivers: new DriverTable(drivers),
    attachments,
    policies: new NetworkPolicies({ views, networks, attachments, signal }),
    guestCards: new GuestCards(),
    guestVolumes: new GuestVolumes(),
    rollbacks: new Rollbacks(),
    waiting: new WaitingWriters(),
    events: new EventRecorder({ client, clock, random, logger }, signal),
    views,
    removeUnusedImages,
    connect: connect ?? tcpConnect(clock),
    checks: checks ?? createNetworkChecks(clock),
    machine: machine ?? thisMachine(),
  };
}
