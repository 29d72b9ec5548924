/**
 * What the driver keeps of one guest on disk: `STATE/qemu/UID/` with
 *
 * - guest.json  the specification and QEMU's user id; written by `create`
 * - seed.iso    the cloud-init seed
 * - uefi.fd     the variables of the guest's UEFI firmware, where it has one
 * - run.json    the last run: its id, whether its end was asked for, how it ended; absent before the first start
 * - status      QEMU's exit status, written by the keeper (see confinement.ts)
 * - console.log what the serial console printed, of all runs
 * - qemu.log    QEMU's standard error, of the last run
 * - memory.json memory that its next start goes on from, and memory.layer while it is opened (see resume.ts)
 * - copy-ID     its disks are being copied for ID, or were and nobody has asked to forget it (see disk-copies.ts)
 *
 * and `RUN/qemu/UID/` with the sockets. The directory in STATE is made first and removed last, so it alone says which
 * guests there are. All of it belongs to root: QEMU gets open descriptors.
 */
import { mkdir, open, readdir, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import { isUid, type Uid } from "../../core/ids.ts";
import type { HostConfig } from "../../host/host-config.ts";
import type { GuestNic, GuestSpec } from "../driver.ts";
import type { ChainFile } from "./disk-chain.ts";
import type { QemuConfig } from "./qemu-config.ts";

export interface GuestRecord {
  spec: GuestSpec<QemuConfig>;
  /** The files of its disk, the guest's own first. */
  disk: readonly [ChainFile, ...ChainFile[]];
  /** QEMU's user id on the host. */
  processUid: number;
  /** Where each card is plugged in, by its port (see card-places.ts). Absent in records of earlier versions. */
  places?: CardPlaces;
  /** Cards that are being taken out of the machine that runs; their places are not free yet. */
  leaving?: readonly LeavingCard[];
}

export type CardPlaces = Readonly<Record<string, number>>;
export type LeavingCard = Pick<GuestNic, "netns" | "port"> & { place: number };

/** What a machine began with; processors and memory may have come since. */
export const launchedSchema = z.object({
  cpus: z.number(),
  memoryMib: z.number(),
  accelerator: z.enum(["kvm", "tcg"]),
});
export type Launched = z.infer<typeof launchedSchema>;

const runSchema = z.object({
  runId: z.string(),
  /** Of the host, to tell a run of before its restart. */
  bootId: z.string(),
  /** QEMU's; absent until it is known to run. Only meaningful while the guest's cgroup is populated. */
  pid: z.number().optional(),
  stopRequested: z.boolean(),
  /** Absent in records of earlier versions. */
  launched: launchedSchema.optional(),
  /**
   * Of a run that was to go on from memory. `loading`: the machine was made and must not begin before all of it is loaded.
   * `frozen`: its file systems may be frozen in it.
   */
  memory: z
    .object({
      id: z.string(),
      state: z.enum(["loading", "resumed", "booted"]),
      message: z.string(),
      frozen: z.boolean(),
    })
    .optional(),
  /** Present once the run is over and nothing of it is left. */
  exit: z.object({ reason: z.enum(["poweroff", "requested", "crash"]), message: z.string() }).optional(),
});
export type RunRecord = z.infer<typeof runSchema>;

const putBackSchema = z.object({
  /** Of the caller's. */
  id: z.string(),
  /** Of the memory. */
  path: z.string(),
  /** The last run at that time: it is for the one that follows. */
  after: z.string().optional(),
  /** What the disks' files looked like then, by their paths. */
  disks: z.record(z.string(), z.string()),
  /** It is not used, any more or at all, and why. */
  refused: z.string().optional(),
});
export type PutBack = z.infer<typeof putBackSchema>;

export const socketNames = ["qmp", "events", "console", "agent"] as const;
export type SocketName = (typeof socketNames)[number];

export class GuestFiles {
  readonly uid: Uid;
  readonly directory: string;
  readonly runtimeDirectory: string;

  constructor(host: Pick<HostConfig, "stateDir" | "runDir">, uid: Uid) {
    this.uid = uid;
    this.directory = join(guestsDirectory(host), uid);
    this.runtimeDirectory = join(host.runDir, "qemu", uid);
  }

  get seed(): string {
    return join(this.directory, "seed.iso");
  }
  get uefiVariables(): string {
    return join(this.directory, "uefi.fd");
  }
  get status(): string {
    return join(this.directory, "status");
  }
  get consoleLog(): string {
    return join(this.directory, "console.log");
  }
  get log(): string {
    return join(this.directory, "qemu.log");
  }

  socket(name: SocketName): string {
    return join(this.runtimeDirectory, `${name}.sock`);
  }

  async make(): Promise<void> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
  }

  async makeRuntime(): Promise<void> {
    await mkdir(this.runtimeDirectory, { recursive: true, mode: 0o700 });
  }

  async removeRuntime(): Promise<void> {
    await rm(this.runtimeDirectory, { recursive: true, force: true });
  }

  async remove(): Promise<void> {
    await this.removeRuntime();
    // In two steps: a directory that is half removed must not look like a guest that was created only.
    const doomed = join(this.directory, "..", `.${this.uid}.removed`);
    await rename(this.directory, doomed).catch(ignoreMissing);
    await rm(doomed, { recursive: true, force: true });
  }

  /** Undefined when `create` did not get that far. */
  async readGuest(): Promise<GuestRecord | undefined> {
    return (await this.#read("guest.json")) as GuestRecord | undefined;
  }

  async writeGuest(record: GuestRecord): Promise<void> {
    await writeDurably(join(this.directory, "guest.json"), record);
  }

  async readRun(): Promise<RunRecord | undefined> {
    const value = await this.#read("run.json");
    return value === undefined ? undefined : runSchema.parse(value);
  }

  async writeRun(record: RunRecord): Promise<void> {
    await writeDurably(join(this.directory, "run.json"), record);
  }

  async removeRun(): Promise<void> {
    await rm(join(this.directory, "run.json"), { force: true });
  }

  async readPutBack(): Promise<PutBack | undefined> {
    const value = await this.#read("memory.json");
    return value === undefined ? undefined : putBackSchema.parse(value);
  }

  /** On the disk before it returns, its name as well. */
  async writePutBack(putBack: PutBack): Promise<void> {
    await writeDurably(join(this.directory, "memory.json"), putBack);
    await this.#syncDirectory();
  }

  async removePutBack(): Promise<void> {
    await rm(join(this.directory, "memory.json"), { force: true });
    await this.#syncDirectory();
  }

  async #syncDirectory(): Promise<void> {
    const directory = await open(this.directory, "r").catch(ignoreMissing);
    await directory?.sync();
    await directory?.close();
  }

  /** What the keeper wrote, or undefined. */
  async readStatus(): Promise<number | undefined> {
    const text = await readFile(this.status, "utf8").catch(ignoreMissing);
    return text !== undefined && /^\d+\n$/.test(text) ? Number(text) : undefined;
  }

  /** The end of QEMU's standard error. */
  async readLog(): Promise<string> {
    const text = await readFile(this.log, "utf8").catch(ignoreMissing);
    return text?.slice(-4096) ?? "";
  }

  async #read(name: string): Promise<unknown> {
    const path = join(this.directory, name);
    const text = await readFile(path, "utf8").catch(ignoreMissing);
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new StrataError("Internal", `the driver's record ${name} of guest ${this.uid} is damaged`, {
        detail: path,
        cause,
      });
    }
  }
}

export function guestsDirectory(host: Pick<HostConfig, "stateDir">): string {
  return join(host.stateDir, "qemu");
}

/** Uids of all guests that have a directory. Completes removals that were interrupted. */
export async function listGuests(host: Pick<HostConfig, "stateDir">): Promise<Uid[]> {
  const directory = guestsDirectory(host);
  const entries = (await readdir(directory).catch(ignoreMissing)) ?? [];
  for (const entry of entries) {
    if (entry.endsWith(".removed")) await rm(join(directory, entry), { recursive: true, force: true });
  }
  return entries.filter(isUid);
}

/** By rename, and on the disk before it returns: a record is the old one or the new one, also after a power cut. */
export async function writeDurably(path: string, value: unknown): Promise<void> {
  const temporary = `${path}.new`;
  const file = await open(temporary, "w", 0o600);
  try {
    await file.writeFile(JSON.stringify(value));
    await file.sync();
  } finally {
    await file.close();
  }
  await rename(temporary, path);
}

function ignoreMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== "ENOENT") throw error;
  return undefined;
}
