/**
 * The contract between Strata and a substrate. A driver turns a GuestSpec into a running guest and knows nothing of
 * projects, images or the API: disks are prepared and networks exist before it is called. Every driver passes
 * `driverConformance`.
 *
 * Invariants: every verb may be repeated after a crash of the caller at any line; guests outlive the caller; what the
 * driver makes is found again by `list` alone, also when no handle was ever recorded; guests are confined (their own
 * ids, cgroup, limits) from their first instruction.
 */
import type { Duplex, Readable, Writable } from "node:stream";
import type { z } from "zod";
import type { Uid } from "../core/ids.ts";
import type { JsonObject } from "../core/json.ts";
import type { DriftReading, RootEntry, RootListing } from "../kinds/drift.ts";
import type { Fingerprint } from "../kinds/host.ts";

/** The root file system, ready to use. */
export type GuestRoot =
  | {
      type: "tree";
      /** A mounted, writable tree whose owners are shifted by idBase. Belongs to this guest alone. */
      path: string;
      /** Guest id 0 is host id idBase; idCount ids follow. */
      idBase: number;
      idCount: number;
      /** Times that it was made anew: with another number it is another root in the same place. Default 0. */
      generation?: number;
      /** Where it is an overlay: the directory that has what the guest wrote, and the image's tree below it. */
      layers?: { upper: string; lower: string };
    }
  | {
      type: "disk";
      /** A disk file that belongs to this guest alone; its backing files are read-only. */
      path: string;
      format: "qcow2" | "raw";
      /** Direct kernel boot; without it the disk boots by itself (firmware and boot loader). */
      boot?: { kernel: string; initrd?: string; commandLine: string };
      /** As above. */
      generation?: number;
      /** Which firmware, where the disk boots by itself; left out: BIOS. */
      firmware?: "bios" | "uefi";
    }
  | {
      type: "image";
      /** Of the image; the same digest is the same content for ever. */
      digest: string;
      /** The image's root tree, shared and read-only: the driver makes a root of the guest's own from it. */
      path: string;
      /** As above: with another number, a guest that does not run gets a new root, and keeps its volumes. */
      generation?: number;
      /** Owners in the tree are shifted by this; idCount ids follow. */
      idBase: number;
      idCount: number;
    };

/** One network card. The port exists nowhere before `start` and goes away with the guest. */
export interface GuestNic {
  /** Name inside containers; VMs name their own. */
  name: string;
  macAddress: string;
  ipAddress: string;
  prefixLength: number;
  gateway: string;
  ipv6?: { address: string; prefixLength: number; gateway: string };
  mtu: number;
  /** Path of the network's namespace, such as /run/netns/NAME. */
  netns: string;
  /** The bridge in that namespace to join. */
  bridge: string;
  /** Name for the bridge port in that namespace, at most 15 characters, unique there. */
  port: string;
}

/** A NoCloud seed for cloud-init: the files' texts. */
export interface Seed {
  metaData: string;
  userData: string;
  /** What the user's data may override. */
  vendorData?: string;
  networkConfig: string;
}

/** A volume, prepared on the host; it goes on existing when the guest does not. */
export type GuestVolume =
  | {
      type: "disk";
      /** Unique among the guest's volumes; the serial number that the guest finds the disk by. */
      id: Uid;
      /** A raw file that nothing else on the host uses. */
      path: string;
      /** What the guest discards stays allocated. Default: it goes back to the host. */
      keepsSpace?: boolean;
    }
  | {
      type: "mount";
      id: Uid;
      /** A mounted file system whose owners are shifted as the guest's own root's are. */
      path: string;
      /** The directory inside; made where it is missing. */
      target: string;
    };

export interface GuestSpec<Config = JsonObject> {
  uid: Uid;
  /** For people and process titles: PROJECT/NAME. */
  title: string;
  hostname: string;
  type: "vm" | "container";
  cpus: number;
  memoryMib: number;
  /** Containers only: processes and threads. */
  maxProcesses: number;
  root: GuestRoot;
  nics: GuestNic[];
  /** Default: none. */
  volumes?: readonly GuestVolume[];
  seed: Seed;
  config: Config;
}

/** How a guest ended: by its own orderly shutdown, by a request of ours, or any other way. */
export type ExitReason = "poweroff" | "requested" | "crash";

export interface ObservedGuest<Handle> {
  uid: Uid;
  handle: Handle;
  /** `created`: never started since its creation. */
  state: "created" | "running" | "stopped";
  /** When stopped. */
  exit?: { reason: ExitReason; message: string };
  /** Identifies one run of the guest: another value means that it was restarted. */
  runId?: string;
  /** The main process on the host, while running. */
  pid?: number;
  /** While running, of guests that have a health check of the driver's. */
  health?: "starting" | "healthy" | "unhealthy";
  /**
   * Of memory that was put back: it waits for the next start, or that start made the last run of it. `message`: why it booted.
   * Absent after any other start.
   */
  memory?: { id: string; state: "waiting" | "resumed" | "booted"; message: string };
}

export interface ExecRequest {
  command: readonly string[];
  env: Readonly<Record<string, string>>;
  /** With a terminal of that size: `stderr` stays empty. Needs the ability `exec-tty`. */
  tty?: { columns: number; rows: number };
}

export interface ExecSession {
  stdin: Writable;
  stdout: Readable;
  stderr: Readable;
  /** Does nothing without a terminal. */
  resize(columns: number, rows: number): void;
  /** The command's exit status (128 + signal number when killed by one). */
  exit: Promise<number>;
}

export interface Exec<Handle> {
  /** Runs a command as root in the running guest. The signal kills it. @throws Unavailable when it cannot be reached. */
  run(handle: Handle, request: ExecRequest, signal: AbortSignal): Promise<ExecSession>;
}

export interface Console<Handle> {
  /** Attaches to the serial console until the stream is destroyed. One at a time. @throws Conflict when taken. */
  attach(handle: Handle, signal: AbortSignal): Promise<Duplex>;
  /** What the console printed: the last `tailBytes`, then, with `follow`, what comes until the signal aborts. */
  log(
    handle: Handle,
    options: { tailBytes: number; follow: boolean },
    signal: AbortSignal,
  ): AsyncIterable<Uint8Array>;
}

/**
 * Changes of a running guest's size, kept over restarts until `create` brings another specification. A guest that does
 * not run takes any size with its next start.
 */
export interface Resize<Handle> {
  /** What can change without a restart; the rest takes effect with the next start. */
  readonly live: { cpus: boolean; memory: "no" | "grow" | "both" };
  /**
   * Idempotent. @throws Unsupported, with nothing changed, for a change that this guest needs a restart for; Conflict
   * when the guest uses more memory than it would have left, or does not give it back; NotFound.
   */
  apply(handle: Handle, size: { cpus: number; memoryMib: number }, signal: AbortSignal): Promise<void>;
}

/**
 * Network cards that come and go while a guest runs, beyond the first of its specification. They are part of the
 * recorded specification: kept over restarts until `create` brings another one. The caller makes one change of a guest
 * at a time.
 */
export interface Cards<Handle> {
  /**
   * Idempotent by `nic.port`. A guest that does not run has the card from its next start.
   * @throws NotFound; Unavailable with what is missing; CapacityExceeded when the guest has no place for another card.
   */
  attach(handle: Handle, nic: GuestNic, signal: AbortSignal): Promise<void>;
  /**
   * Absent is success. The card has lost its network when this returns; a guest that does not answer may go on seeing
   * it, dead, until it restarts.
   */
  detach(
    handle: Handle,
    nic: Pick<GuestNic, "netns" | "port" | "macAddress">,
    signal: AbortSignal,
  ): Promise<void>;
}

/**
 * Volumes that come and go while a guest runs. They are part of the recorded specification: kept over restarts until
 * `create` brings another one. The caller makes one change of a guest at a time.
 */
export interface Volumes<Handle> {
  /** What its guests take a volume as. */
  readonly takes: GuestVolume["type"];
  /**
   * Idempotent by `volume.id`. A guest that does not run has it from its next start. A disk that has become larger since
   * it was attached shows its new size. @throws NotFound; Unavailable with what is missing; Unsupported for a guest that
   * was started without a place for disks.
   */
  attach(handle: Handle, volume: GuestVolume, signal: AbortSignal): Promise<void>;
  /**
   * Absent is success. Nothing of the guest uses the volume when this returns.
   * @throws Conflict, with nothing changed, while a program in the guest does.
   */
  detach(handle: Handle, volume: Pick<GuestVolume, "id">, signal: AbortSignal): Promise<void>;
}

/** What a guest's root is compared with. */
export interface DriftRequest {
  /** As `create` was given it. */
  root: GuestRoot;
  /** All paths of the image's tree, by path. */
  original: ReadonlyMap<string, RootEntry>;
}

/**
 * Reads what a guest's root has become since it was made from its image. Changes nothing, and follows nothing that the
 * guest wrote: what lies outside its root is never read.
 */
export interface Drift<Handle> {
  /**
   * Each directory in which anything may differ from the original, and the root itself; whether the guest runs or not.
   * @throws NotFound; Unsupported for a root that cannot be read, with the reason; Unavailable.
   */
  read(handle: Handle, request: DriftRequest, signal: AbortSignal): Promise<DriftReadout>;
}

export interface DriftReadout {
  listings: readonly RootListing[];
  reading: DriftReading;
}

/**
 * All disks of a guest, its root included, can be copied as they are at one moment. `host`: they are file systems that
 * the host has mounted and keeps still by itself. `driver`: the guest has them as disks, and the driver keeps it still.
 */
export type Snapshots<Handle> =
  | { readonly keptStillBy: "host" }
  | {
      readonly keptStillBy: "driver";
      /**
       * Runs `use` once, while the guest writes to none of its disks. `frozen`: the guest's own file systems were brought
       * in order before; `paused`: they could not be; `idle`: it does not run. The guest goes on afterwards, also when
       * `use` failed or the caller was killed in the middle. @throws what `use` throws.
       */
      whileStill<Result>(
        handle: Handle,
        use: () => Promise<Result>,
        signal: AbortSignal,
      ): Promise<{ result: Result; guest: "frozen" | "paused" | "idle" }>;
      /** Absent: disks are copied by the caller, while the guest is kept still. */
      readonly copies?: DiskCopies<Handle>;
    };

/** A disk of a guest, and the file that it is copied into; the driver makes that file. */
export interface DiskCopy {
  from: string;
  to: string;
}

export interface DiskCopyRequest {
  /** Names the copies for the verbs below: the uid of what they are made for. */
  id: Uid;
  disks: readonly DiskCopy[];
  /**
   * Runs once, in the very moment that the copies are of: `others` are those among `disks` that this guest does not have.
   */
  meanwhile(others: readonly DiskCopy[], signal: AbortSignal): Promise<void>;
  /**
   * A file that the driver makes for the guest's memory and devices in that moment; only where `DiskCopies.memory` is there.
   * What else belongs to it lies beside it, under names that begin with its own. All of it is on disk or goes with the guest.
   */
  memory?: { to: string };
}

/** What became of memory that was asked for: bytes taken on the host, or why there is none of it. */
export type KeptMemory = { sizeBytes: number } | { missing: string };

/**
 * Guests that go on where they were when their memory was kept, rather than boot.
 *
 * A guest's memory knows what is on its disks. Loaded over disks that were written to since, it destroys them: so memory
 * is used once at most, by the first start after `putBack`, and only if nothing has written to the disks since then.
 */
export interface GuestMemory<Handle> {
  /**
   * Its next start goes on from the memory that was kept at `path`, if it would be set up just as it was then; otherwise, or
   * when that fails, it boots. `inspect` tells which, with this `id`. The guest does not run, and all the disks that it had then
   * are as they were. Replaces what was put back earlier. @throws NotFound; Conflict while it runs.
   */
  putBack(handle: Handle, memory: { id: string; path: string }, signal: AbortSignal): Promise<void>;
  /** Its next start is an ordinary one. Absent is success. Before disks are changed by anything but the guest. */
  leave(handle: Handle, signal: AbortSignal): Promise<void>;
}

/**
 * Copies of a running guest's disks, all as they are at one moment, made while the guest goes on: it is kept still only
 * until that moment is fixed. They go on without the caller, for as long as the guest runs.
 */
export interface DiskCopies<Handle> {
  /**
   * `idle`: it does not run, and nothing was begun. What was begun earlier under the same id is given up first. A failure
   * leaves nothing going on. @throws what `meanwhile` throws; Unavailable.
   */
  begin(
    handle: Handle,
    request: DiskCopyRequest,
    signal: AbortSignal,
  ): Promise<{ guest: "frozen" | "paused"; stillMs: number; memory?: KeptMemory } | { guest: "idle" }>;
  /** Absent: memory of its guests cannot be kept, and is not asked for. */
  readonly memory?: GuestMemory<Handle>;
  /**
   * Waits until all of them are complete and closed; again after that is success, until `forget`. False: nothing of that
   * id is known. @throws Unavailable when they are cut off, because the guest has ended or a disk cannot be read or written.
   */
  complete(id: Uid, signal: AbortSignal): Promise<boolean>;
  /** Nothing of them goes on afterwards; the files are the caller's. Absent is success. */
  forget(id: Uid): Promise<void>;
}

export interface GuestDriver<Config = JsonObject, Handle extends JsonObject = JsonObject> {
  readonly name: string;
  readonly config: z.ZodType<Config>;
  /**
   * `image`: its guests get a root of that type and keep what they write by themselves; such a driver is used only for
   * instances that name it. Default: a root of their own, prepared before `create`.
   */
  readonly root?: "image";
  /** Written into each handle as `version`; a driver reads its own and the one before. */
  readonly handleVersion: number;
  /** What this host can really do, proven by doing it. */
  fingerprint(signal: AbortSignal): Promise<Fingerprint>;
  /** All guests of this driver's name space on this host, orphans included. */
  list(): Promise<ObservedGuest<Handle>[]>;
  /** One guest by uid, or undefined; as cheap as can be. */
  inspect(uid: Uid): Promise<ObservedGuest<Handle> | undefined>;
  /**
   * Makes the guest without running it. Idempotent by uid: what is there already is completed and its handle returned;
   * a guest that is not running takes over a changed spec.
   */
  create(guest: GuestSpec<Config>, signal: AbortSignal): Promise<Handle>;
  /** Runs it; already running is success. @throws with a message for people when it cannot start. */
  start(handle: Handle, signal: AbortSignal): Promise<void>;
  /**
   * Asks the guest to shut down and kills it after `graceMs` (0: at once). Not running is success. Afterwards
   * `inspect` says stopped with exit reason `requested`.
   */
  stop(handle: Handle, options: { graceMs: number }, signal: AbortSignal): Promise<void>;
  /** Kills it if need be and removes all that `create` and `start` made (not the root disk). Absent is success. */
  destroy(handle: Handle, signal: AbortSignal): Promise<void>;
  /** Hints that a guest changed, within 1 s of the change: a reason to inspect, never the truth. */
  events(signal: AbortSignal): AsyncIterable<{ uid: Uid }>;
  readonly exec?: Exec<Handle>;
  readonly console?: Console<Handle>;
  readonly resize?: Resize<Handle>;
  readonly cards?: Cards<Handle>;
  readonly volumes?: Volumes<Handle>;
  readonly drift?: Drift<Handle>;
  readonly snapshots?: Snapshots<Handle>;
}
