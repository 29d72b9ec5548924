import type { JsonObject } from "../../core/json.ts";
import type { ObservedGuest, Resize } from "../../drivers/driver.ts";
import type { Image } from "../../kinds/image.ts";
import type { HealthCheck, Instance, InstanceStatus } from "../../kinds/instance.ts";
import type { Network } from "../../kinds/network.ts";
import type { Subnet } from "../../kinds/subnet.ts";
import type { Volume } from "../../kinds/volume.ts";
import type { Tally } from "../health/tally.ts";

/** Everything a plan for one instance may look at. */
export interface InstanceWorld {
  key: string;
  hostName: string;
  instance: Instance | undefined;
  /** The image that spec names, by its name now. */
  image: Image | undefined;
  network: Network | undefined;
  /** Of its own network card. */
  subnet: Subnet | undefined;
  /** Names of further network cards that are on their way to be recorded as its own. */
  unclaimedCards: readonly string[];
  /** Names of volumes that are on their way to be recorded as its own. */
  unclaimedVolumes: readonly string[];
  /** Its root volume. */
  volume: Volume | undefined;
  /** Name of a snapshot that disks of it are being put back to: it must not run before that. */
  hold: string | undefined;
  /** Of spec.keyPairs, those that exist: their public keys by name. */
  publicKeys: ReadonlyMap<string, string>;
  driver: DriverChoice;
  guest: PlacedGuest | undefined;
  attempt: StartAttempt | undefined;
  probe: ProbeState | undefined;
  check: CheckState | undefined;
  sizing: Sizing;
}

export interface Size {
  cpus: number;
  memoryMib: number;
}

/** What can be done about the size of the running guest. */
export interface Sizing {
  /** What this process has given the guest since its start. */
  applied: Size | undefined;
  /** What the guest's driver can change while it runs; undefined: nothing. */
  live: Resize<JsonObject>["live"] | undefined;
  /** A size that this guest cannot have without a restart, and why. */
  refused: { size: Size; message: string } | undefined;
}

/** The driver for the instance here, or why there is none. */
export type DriverChoice = { name: string } | { missing: string };

export interface PlacedGuest {
  driver: string;
  observed: ObservedGuest<JsonObject>;
}

/**
 * How far this process has brought the start of a guest. Lost with the process; then the start begins anew, which is
 * safe because every step may be repeated.
 */
export type StartAttempt =
  | {
      stage: "prepared";
      driver: string;
      handle: JsonObject;
      imageDigest: string;
      /** The `spec.rebuilds` that its root was made for. */
      rebuilds: number;
      size: Size;
    }
  | { stage: "started" };

/** What is known of the services of one run of the guest. */
export interface ProbeState {
  /** The run and the services it speaks of. */
  target: string;
  /** `unknown`: the first answer is awaited. */
  result: "unknown" | "ready" | "waiting";
  /** Of spec.services, those that do not accept connections yet: `web (port 80)`. */
  waitingFor: readonly string[];
}

/** What the health check of one run of the guest has found. `target`: the run and the check it speaks of. */
export type CheckState = Tally & { target: string };

/** What is reported in one go: the status, and what is worth telling in events. */
export interface InstanceReport {
  status: InstanceStatus;
  events: readonly InstanceEvent[];
}

export interface InstanceEvent {
  severity: "normal" | "warning";
  reason: string;
  message: string;
}

export type InstanceAction =
  | {
      /** Networks, cards, disk and guest, ready to start. */
      type: "prepare";
      key: string;
      instance: Instance;
      network: Network;
      volume: Volume;
      imageDigest: string;
      driver: string;
      publicKeys: readonly string[];
    }
  | { type: "start"; uid: string; driver: string; handle: JsonObject }
  | { type: "stop"; driver: string; handle: JsonObject; graceMs: number }
  | { type: "destroy"; driver: string; handle: JsonObject }
  | { type: "resize"; uid: string; driver: string; handle: JsonObject; size: Size }
  /** Its cards go out of force. */
  | { type: "release"; instance: Instance }
  | { type: "remove-disk"; volume: Volume }
  | { type: "finalize"; instance: Instance; volume: Volume | undefined }
  | {
      /** Begins to look whether the services answer; returns at once. */
      type: "probe";
      key: string;
      uid: string;
      target: string;
      /** Uid of the network that the address is in. */
      network: string;
      address: string;
      services: readonly { name: string; port: number }[];
    }
  | {
      /** Begins to check its health, on and on; returns at once. */
      type: "check";
      key: string;
      uid: string;
      target: string;
      network: string;
      address: string;
      driver: string;
      handle: JsonObject;
      check: HealthCheck;
    };
