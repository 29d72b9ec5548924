import type { Client } from "../client/client.ts";
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import type { GuestDriver } from "../drivers/driver.ts";
import type { Backups } from "../host/backups/backups.ts";
import type { Balancers } from "../host/balancers/balancers.ts";
import type { Disks } from "../host/disks/disks.ts";
import type { ImageStore } from "../host/images/image-store.ts";
import type { Measurements } from "../host/measurements/measurements.ts";
import type { Networks } from "../host/networks/networks.ts";
import type { Pools } from "../host/pools/pools.ts";
import type { RunnerHooks } from "../reconcile/runner.ts";
import type { DriverTable } from "./driver-table.ts";
import type { EventRecorder } from "./event-recorder.ts";
import type { NetworkChecks } from "./health/network-checks.ts";
import type { Connect } from "./instances/probes.ts";
import type { GuestCards } from "./interfaces/guest-cards.ts";
import type { Machine } from "./machine.ts";
import type { NetworkAttachments } from "./networks/network-attachments.ts";
import type { NetworkPolicies } from "./networks/network-policies.ts";
import type { AgentViews } from "./views.ts";
import type { GuestVolumes } from "./volumes/guest-volumes.ts";
import type { Rollbacks } from "./volumes/rollbacks.ts";
import type { WaitingWriters } from "./volumes/space-guard.ts";

/** What the agent is given: the API and the host. */
export interface AgentOptions {
  /** Name of the Host resource. */
  hostName: string;
  client: Client;
  /** In the order of preference. */
  drivers: readonly GuestDriver[];
  images: ImageStore;
  disks: Disks;
  /** Absent: the host has no storage pools. */
  pools?: Pools;
  /** Absent: no backups are taken. */
  backups?: Backups;
  networks: Networks;
  /** Default: nothing is measured. */
  measurements?: Measurements;
  /** Absent: the host takes no load balancers. */
  balancers?: Balancers;
  /** Guests may ask for metadata, in sessions signed with this key. Default: nobody answers them. */
  metadata?: { key: Uint8Array };
  /** What this machine has. Default: what the operating system says. */
  machine?: Machine;
  /** Default: TCP. */
  connect?: Connect;
  /** Default: over the network. */
  checks?: NetworkChecks;
  clock: Clock;
  random: Random;
  logger: Logger;
  /**
   * True: what no image and no instance of this daemon refers to is removed from the image store. Not for a store that
   * other daemons share. Default false.
   */
  removeUnusedImages?: boolean;
  hooks?: RunnerHooks;
}

/** What the agent's rooms share while it runs. */
export interface AgentContext
  extends Omit<
    AgentOptions,
    "drivers" | "machine" | "measurements" | "metadata" | "connect" | "checks" | "removeUnusedImages"
  > {
  /** Aborts when the agent stops. */
  signal: AbortSignal;
  drivers: DriverTable;
  attachments: NetworkAttachments;
  policies: NetworkPolicies;
  guestCards: GuestCards;
  guestVolumes: GuestVolumes;
  rollbacks: Rollbacks;
  waiting: WaitingWriters;
  events: EventRecorder;
  views: AgentViews;
  removeUnusedImages: boolean;
  connect: Connect;
  checks: NetworkChecks;
  machine: Machine;
}
