/** Opens what a guest's QEMU needs and starts it, detached from this process in every way. */
import { type ChildProcess, spawn } from "node:child_process";
import { constants } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { placesOf } from "./card-places.ts";
import {
  type Accelerator,
  type Descriptors,
  type DiskFile,
  execChardevs,
  qemuArguments,
  type VolumeFile,
  type Waiting,
} from "./command-line.ts";
import { type Confinement, confinedCommand, firstInheritedFd } from "./confinement.ts";
import type { ChainFile } from "./disk-chain.ts";
import { type GuestFiles, type GuestRecord, type SocketName, socketNames } from "./guest-files.ts";
import { type ListeningSocket, listenAt } from "./listening-sockets.ts";
import { ensureUefi } from "./uefi-firmware.ts";

export const qemuProgram = "qemu-system-x86_64";
const vhostDevice = "/dev/vhost-net";

export interface Launch {
  files: GuestFiles;
  record: GuestRecord;
  accelerator: Accelerator;
  confinement: Confinement;
  /** It is made and does not begin: it goes on from memory. */
  waiting?: Waiting | undefined;
}

/**
 * Starts the keeper and QEMU. Both go on when this process ends; neither holds a pipe to it.
 * @throws Unavailable when a file cannot be opened.
 */
export async function launchQemu(launch: Launch): Promise<ChildProcess> {
  const inheritance = new Inheritance();
  const { record } = launch;
  try {
    const fds = await openDescriptors(launch, inheritance);
    const { O_WRONLY, O_CREAT, O_TRUNC, O_APPEND } = constants;
    const status = await inheritance.openOnly(launch.files.status, O_WRONLY | O_CREAT | O_TRUNC);
    const log = await inheritance.openOnly(launch.files.log, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND);
    const { accelerator, waiting } = launch;
    const command = [qemuProgram, ...qemuArguments(record.spec, accelerator, fds, placesOf(record), waiting)];
    const [program = "", ...args] = confinedCommand(launch.confinement, command);
    const child = spawn(program, args, {
      cwd: "/",
      detached: true,
      env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
      stdio: ["ignore", log, log, status, "ignore", ...inheritance.fds],
    });
    child.unref();
    return child;
  } finally {
    await inheritance.close();
  }
}

/** Descriptors in the order in which a child inherits them, and all that must be closed here afterwards. */
class Inheritance {
  readonly fds: number[] = [];
  readonly #handles: FileHandle[] = [];
  readonly #sockets: ListeningSocket[] = [];

  async openOnly(path: string, flags: number): Promise<number> {
    const handle = await open(path, flags, 0o600).catch((cause) => {
      throw new StrataError("Unavailable", "the guest's root disk or a file of its image cannot be opened", {
        detail: path,
        cause,
      });
    });
    this.#handles.push(handle);
    return handle.fd;
  }

  /** Returns the number that the child sees. */
  async open(path: string, flags: number): Promise<number> {
    return this.#inherit(await this.openOnly(path, flags));
  }

  async listen(path: string): Promise<number> {
    const socket = await listenAt(path);
    this.#sockets.push(socket);
    return this.#inherit(socket.fd);
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.close();
    for (const handle of this.#handles) await handle.close();
  }

  #inherit(fd: number): number {
    this.fds.push(fd);
    return firstInheritedFd + this.fds.length - 1;
  }
}

async function openDescriptors(launch: Launch, inheritance: Inheritance): Promise<Descriptors> {
  const { files, record, accelerator } = launch;
  const { O_RDONLY, O_RDWR, O_WRONLY, O_CREAT, O_APPEND } = constants;
  await files.makeRuntime();
  const sockets = {} as Record<SocketName, number>;
  for (const name of socketNames) {
    sockets[name] = await inheritance.listen(files.socket(name));
  }
  const exec: number[] = [];
  for (const name of execChardevs) {
    exec.push(await inheritance.listen(join(files.runtimeDirectory, `${name}.sock`)));
  }
  const root = record.spec.root.type === "disk" ? record.spec.root : undefined;
  const boot = root?.boot;
  const uefi = root?.firmware === "uefi" ? await ensureUefi(files.uefiVariables) : undefined;
  return {
    ...sockets,
    exec,
    // Appending, so that the log may be shortened while QEMU writes.
    consoleLog: await inheritance.open(files.consoleLog, O_WRONLY | O_CREAT | O_APPEND),
    seed: await inheritance.open(files.seed, O_RDONLY),
    disk: await openDisk(record.disk, inheritance),
    ...(boot === undefined ? {} : { kernel: await openReadable(boot.kernel, inheritance) }),
    ...(boot?.initrd === undefined ? {} : { initrd: await openReadable(boot.initrd, inheritance) }),
    ...(uefi && {
      firmware: {
        code: await inheritance.open(uefi.code, O_RDONLY),
        variables: await inheritance.open(files.uefiVariables, O_RDWR),
      },
    }),
    volumes: await openVolumes(record, inheritance),
    vhost: accelerator.type === "kvm" ? await openVhost(record.spec.nics.length, inheritance) : [],
  };
}

async function openDisk(
  chain: readonly [ChainFile, ...ChainFile[]],
  inheritance: Inheritance,
): Promise<[DiskFile, ...DiskFile[]]> {
  const [own, ...bases] = chain;
  const first: DiskFile = {
    fd: await inheritance.open(own.path, constants.O_RDWR),
    format: own.format,
    direct: await supportsDirect(own.path),
  };
  const rest: DiskFile[] = [];
  for (const { path, format } of bases) {
    rest.push({ fd: await inheritance.open(path, constants.O_RDONLY), format, direct: false });
  }
  return [first, ...rest];
}

async function openVolumes({ spec }: GuestRecord, inheritance: Inheritance): Promise<VolumeFile[]> {
  const files: VolumeFile[] = [];
  for (const { path } of spec.volumes ?? []) {
    const fd = await inheritance.open(path, constants.O_RDWR);
    files.push({ fd, direct: await supportsDirect(path) });
  }
  return files;
}

export async function supportsDirect(path: string): Promise<boolean> {
  try {
    await (await open(path, constants.O_RDONLY | constants.O_DIRECT)).close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "EINVAL") return false;
    throw error;
  }
}

/** QEMU opens it once more, by way of /proc/self/fd, as its own user. */
async function openReadable(path: string, inheritance: Inheritance): Promise<number> {
  const found = await stat(path).catch(() => undefined);
  if (found !== undefined && (found.mode & 0o004) === 0) {
    throw new StrataError("Unavailable", "the image's kernel and initrd must be readable by everyone", {
      detail: path,
    });
  }
  return inheritance.open(path, constants.O_RDONLY);
}

/** The kernel's own network back end, where the host has it; QEMU's is the fallback. */
async function openVhost(count: number, inheritance: Inheritance): Promise<number[]> {
  const fds: number[] = [];
  for (let index = 0; index < count; index++) {
    try {
      fds.push(await inheritance.open(vhostDevice, constants.O_RDWR));
    } catch {
      return [];
    }
  }
  return fds;
}
