import type { Client } from "../client/client.ts";
import type { Clock } from "../core/clock.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import type { GuestDriver } from "../drivers/driver.ts";
import type { Disks } from "../host/disks/disks.ts";
import type { ImageStore } from "../host/images/image-store.ts";
import type { Networks } from "../host/networks/networks.ts";
import type { Image } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import type { KeyPair } from "../kinds/key-pair.ts";
import type { Resource } from "../kinds/kind.ts";
import type { Network } from "../kinds/network.ts";
import type { Volume } from "../kinds/volume.ts";
import type { CacheIndex } from "../reconcile/cache.ts";
import type { RunnerHooks } from "../reconcile/runner.ts";
import type { DriverTable } from "./driver-table.ts";
import type { EventRecorder } from "./event-recorder.ts";
import type { Connect } from "./instances/probes.ts";
import type { Machine } from "./machine.ts";
import type { NetworkAttachments } from "./network-attachments.ts";
import type { ResourceView } from "./resource-view.ts";

/** What the agent is given: the API and the host. */
export interface AgentOptions {
  /** Name of the Host resource. */
  hostName: string;
  client: Client;
  /** In the order of preference. */
  drivers: readonly GuestDriver[];
  images: ImageStore;
  disks: Disks;
  networks: Networks;
  /** What this machine has. Default: what the operating system says. */
  machine?: Machine;
  /** Default: TCP. */
  connect?: Connect;
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
  extends Omit<AgentOptions, "drivers" | "machine" | "connect" | "removeUnusedImages"> {
  /** Aborts when the agent stops. */
  signal: AbortSignal;
  drivers: DriverTable;
  attachments: NetworkAttachments;
  events: EventRecorder;
  views: AgentViews;
  removeUnusedImages: boolean;
  connect: Connect;
  machine: Machine;
}

/** What the agent knows of the API: instances, images and volumes of this host; all networks and key pairs. */
export interface AgentViews {
  instances: ViewFor<Instance>;
  images: ViewFor<Image>;
  networks: ViewFor<Network>;
  volumes: ViewFor<Volume>;
  keyPairs: ViewFor<KeyPair>;
  /** Keys of instances by the key of their network, and of their image. */
  instancesByNetwork: CacheIndex<Instance>;
  instancesByImage: CacheIndex<Instance>;
  /** Keys of volumes by the uid of their owner. */
  volumesByOwner: CacheIndex<Volume>;
}

type ViewFor<R> = R extends Resource<infer S, infer T> ? ResourceView<S, T> : never;
