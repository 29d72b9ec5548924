/**
 * From a guest's specification to QEMU's argument vector. Pure: the same input gives the same vector, held by golden
 * tests, because most of it cannot be seen to be right on a machine without KVM.
 *
 * QEMU is given no path of ours. Everything it uses (disks, seed, kernel, sockets, the console's log) is an open file
 * descriptor that it inherits: our directories stay closed to its user id, no file changes its owner, and a QEMU that
 * was taken over finds nothing to open. Disks are descriptor sets (`/dev/fdset/N`), which QEMU duplicates and locks;
 * the kernel and the initrd go through `/proc/self/fd/N`, because QEMU reads them with fopen().
 */
import { createHash } from "node:crypto";
import { assert } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { GuestNic, GuestSpec, GuestVolume } from "../driver.ts";
import type { QemuConfig } from "./qemu-config.ts";

const nicDriver = "virtio-net-pci-non-transitional";

export type Accelerator =
  | { type: "kvm" }
  /** `tscKhz`: the rate of the host's time stamp counter, which TCG hands to the guest as it is. */
  | { type: "tcg"; tscKhz: number };

/** One file of the root disk's chain. */
export interface DiskFile {
  fd: number;
  format: "qcow2" | "raw";
  /** Can the file be opened with O_DIRECT? tmpfs and some network file systems cannot. */
  direct: boolean;
}

export type VolumeFile = Omit<DiskFile, "format">;

/** The inherited descriptors' numbers. */
export interface Descriptors {
  qmp: number;
  /** For whoever listens to what happens, all the time. */
  events: number;
  console: number;
  agent: number;
  /** By slot, then in the order of execStreams. */
  exec: readonly number[];
  consoleLog: number;
  seed: number;
  /** The guest's own file first, then what it is based on. */
  disk: readonly [DiskFile, ...DiskFile[]];
  kernel?: number;
  initrd?: number;
  /** UEFI: its program, read-only, and the guest's own variables. */
  firmware?: { code: number; variables: number };
  /** In the order of the guest's volumes. */
  volumes?: readonly VolumeFile[];
  /** One a NIC where the host has /dev/vhost-net. */
  vhost: readonly number[];
}

/**
 * Of TCG's cache of translated code. QEMU would take a whole GiB, all of which counts against the guest's cgroup; a
 * full Debian boot translates less than this and flushes the cache once at most.
 */
export const translationCacheMib = 128;

/** Commands that may run in a guest at a time (see guest-exec.ts). */
export const execSlots = 4;
export const execStreams = ["in", "out", "err"] as const;
export type ExecStream = (typeof execStreams)[number];

/** Name of the character device, of its socket, and of the port in the machine that it is plugged into. */
export function execChardev(slot: number, stream: ExecStream): string {
  return `exec${slot}-${stream}`;
}

export const execChardevs: readonly string[] = Array.from({ length: execSlots }, (_, slot) =>
  execStreams.map((stream) => execChardev(slot, stream)),
).flat();

/** Fixed places on the PCI bus keep device names in the guest the same when a specification changes. */
const slots = {
  root: 0x3,
  seed: 0x4,
  random: 0x5,
  balloon: 0x6,
  serial: 0x7,
  memory: 0x8,
  ports: 0x9,
  disks: 0xa,
  firstNic: 0x10,
} as const;
/** PCI Express ports that further network cards are plugged into, at the start or later: as many as a slot has functions. */
export const cardPorts = 7;
export const maxNics = 1 + cardPorts;

/** Names of what belongs to the card at a place: 0 is the guest's own, others are the ports' numbers. */
export const cardIds = (place: number) => ({
  device: `nic${place}`,
  netdev: `net${place}`,
  bus: `plug${place}`,
});
/** The controller that volumes are plugged into: no PCI place for each, and no guest that must let go of one. */
export const scsiControllerId = "disks";

/** Names of what belongs to a volume; `opaque` is what its descriptor set is found by. */
export const diskNodes = (id: string) => ({
  node: `volume-${id}`,
  device: `disk-${id}`,
  opaque: `volume-${id}`,
});
export const hotMemoryId = "memory";
export const balloonId = "balloon";

/** The processors that a guest can be grown to; the kernel keeps about 200 KiB for each that may come. */
export function maxCpus(cpus: number): number {
  return Math.max(cpus, Math.min(240, Math.max(8, cpus * 4)));
}

/**
 * How much memory can come and go while the guest runs. The guest's kernel keeps the books about it in what it began
 * with, so that there must not be too much of it. Zero for a disk that boots by itself: what the kernel must know of it
 * beforehand (see kernelCommandLine) cannot be told.
 */
export function hotMemoryMib({ root, memoryMib }: Pick<GuestSpec, "root" | "memoryMib">): number {
  if (root.type !== "disk" || root.boot === undefined) return 0;
  const blockMib = 128;
  return Math.ceil(Math.max(1024, 3 * memoryMib) / blockMib) * blockMib;
}

/** Of a machine that is to go on from memory that was kept. */
export interface Waiting {
  /** Numbers of volumes' disks on their controller, by the volumes' ids. */
  targets: Readonly<Record<string, number>>;
}

export function qemuArguments(
  guest: GuestSpec<QemuConfig>,
  accelerator: Accelerator,
  fds: Descriptors,
  /** Of each card; the first one's is 0. */
  places: readonly number[] = guest.nics.keys().toArray(),
  /** The machine is made and does not begin. */
  waiting?: Waiting,
): string[] {
  return [
    ...(waiting ? ["-S"] : []),
    ...machine(guest, accelerator, fds.firmware !== undefined),
    ...identity(guest),
    ...control(fds),
    ...boot(guest, accelerator, fds),
    ...disks(guest, fds),
    ...volumes(guest, fds.volumes ?? [], waiting?.targets),
    ...cardPortDevices(),
    ...guest.nics.flatMap((nic, index) => network(nic, places[index] ?? index, fds.vhost[index])),
    ...auxiliaryDevices(),
    ...hotMemory(guest),
  ];
}

/**
 * The machine's UUID: stable for the guest's life, so machine ids derived from it are too. It begins with `ec2`, and the
 * serial number is the same: by that stock cloud-init knows a metadata service in the form of EC2, and only then it opens
 * a session there. (identify_aws in cloud-init's DataSourceEc2.py; AWS: "Detect whether a host is an EC2 instance")
 */
export function machineUuid(uid: Uid): string {
  const bytes = createHash("sha256").update(`strata guest ${uid}`).digest().subarray(0, 16);
  bytes[0] = 0xec;
  bytes[1] = ((bytes[1] ?? 0) & 0x0f) | 0x20;
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x80; // version 8: by a method of our own (RFC 9562)
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = bytes.toString("hex");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

function machine(guest: GuestSpec<QemuConfig>, accelerator: Accelerator, flash: boolean): string[] {
  const memory = `${guest.memoryMib}M`;
  const hotMib = hotMemoryMib(guest);
  return [
    "-nodefaults",
    "-no-user-config",
    ...["-display", "none"],
    // No SATA, USB, SMBus or keyboard controller: nothing uses them, guests wait for them, and each is attack surface.
    ...[
      "-machine",
      `q35,memory-backend=ram,sata=off,smbus=off,usb=off,i8042=off,vmport=off,dump-guest-core=off${flash ? ",pflash0=firmware,pflash1=variables" : ""}`,
    ],
    ...acceleration(guest, accelerator),
    ...[
      "-smp",
      `cpus=${guest.cpus},maxcpus=${maxCpus(guest.cpus)},sockets=1,cores=${maxCpus(guest.cpus)},threads=1`,
    ],
    ...["-m", hotMib === 0 ? memory : `size=${memory},maxmem=${guest.memoryMib + hotMib}M`],
    // merge=off: pages are never shared between guests (KSM), which would let one measure what another has in memory.
    ...["-object", `memory-backend-ram,id=ram,size=${memory},merge=off,dump=off`],
    ...["-rtc", "base=utc,driftfix=slew"],
    // A suspended guest could not be woken by anything that we have.
    ...["-global", "ICH9-LPC.disable_s3=1"],
    ...["-global", "ICH9-LPC.disable_s4=1"],
    ...["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"],
    // QEMU's exit status tells how the guest ended: 0 power-off, 1 kernel panic (see confinement.ts).
    ...["-action", "reboot=reset,shutdown=poweroff,panic=exit-failure"],
    ...["-msg", "timestamp=on"],
  ];
}

function acceleration(guest: GuestSpec<QemuConfig>, accelerator: Accelerator): string[] {
  if (accelerator.type === "kvm") return ["-accel", "kvm", "-cpu", guest.config.cpuModel ?? "host"];
  // 5-level paging only makes the emulated page walks longer.
  return ["-accel", `tcg,thread=multi,tb-size=${translationCacheMib}`, "-cpu", "max,la57=off"];
}

function identity(guest: GuestSpec<QemuConfig>): string[] {
  const uuid = machineUuid(guest.uid);
  return [
    ...["-name", `guest=${optionValue(guest.title)},debug-threads=on`],
    ...["-uuid", uuid],
    ...["-smbios", `type=1,manufacturer=Strata,product=Virtual Machine,serial=${uuid},uuid=${uuid}`],
  ];
}

/** Sockets are bound by us and inherited listening, so they can be connected to before QEMU is ready. */
function control(fds: Descriptors): string[] {
  return [
    ...["-chardev", `socket,id=qmp,fd=${fds.qmp},server=on,wait=off`],
    ...["-mon", "chardev=qmp,mode=control"],
    ...["-chardev", `socket,id=events,fd=${fds.events},server=on,wait=off`],
    ...["-mon", "chardev=events,mode=control"],
    ...descriptorSet(fds.consoleLog),
    ...[
      "-chardev",
      `socket,id=console,fd=${fds.console},server=on,wait=off,logfile=/dev/fdset/${fds.consoleLog},logappend=on`,
    ],
    ...["-serial", "chardev:console"],
    ...["-chardev", `socket,id=agent,fd=${fds.agent},server=on,wait=off`],
    ...execChardevs.flatMap((id, index) => [
      "-chardev",
      `socket,id=${id},fd=${fds.exec[index]},server=on,wait=off`,
    ]),
  ];
}

function boot(guest: GuestSpec<QemuConfig>, accelerator: Accelerator, fds: Descriptors): string[] {
  const { root } = guest;
  assert(root.type === "disk", "a virtual machine's root is a disk");
  if (root.boot === undefined) return ["-boot", "strict=on", ...flash(fds)];
  assert(fds.kernel !== undefined, "a direct boot has a descriptor for its kernel");
  return [
    ...["-kernel", `/proc/self/fd/${fds.kernel}`],
    ...(fds.initrd === undefined ? [] : ["-initrd", `/proc/self/fd/${fds.initrd}`]),
    ...["-append", kernelCommandLine(root.boot.commandLine, guest.hostname, accelerator)],
  ];
}

/** UEFI lies in two flash chips: the program, shared by all guests, and the variables, which the guest may change. */
function flash({ firmware }: Descriptors): string[] {
  if (firmware === undefined) return [];
  const chip = (name: string, fd: number, readOnly: boolean) => [
    ...descriptorSet(fd),
    "-blockdev",
    JSON.stringify({
      "node-name": name,
      driver: "raw",
      "read-only": readOnly,
      file: { driver: "file", filename: `/dev/fdset/${fd}`, "read-only": readOnly },
    }),
  ];
  return [...chip("firmware", firmware.code, true), ...chip("variables", firmware.variables, false)];
}

/** What the image wants, then what it takes to be seen and to boot reliably; the image's own values win. */
export function kernelCommandLine(commandLine: string, hostname: string, accelerator: Accelerator): string {
  const words = commandLine.split(/\s+/).filter((word) => word !== "");
  const add = (word: string) => {
    const key = word.split("=", 1)[0];
    if (!words.some((other) => other.split("=", 1)[0] === key)) words.push(word);
  };
  add("console=ttyS0");
  // Known from the first instruction on, before cloud-init has read its seed. Kernels before 6.0 ignore it.
  add(`hostname=${hostname}`);
  // Memory that may come lies above 4 GiB, for which the kernel would set 64 MiB aside to copy through: for devices with
  // shorter addresses than any of ours has. What comes is used at once, and in such a way that it can go again.
  add("swiotlb=noforce");
  add("memhp_default_state=online_movable");
  if (accelerator.type === "tcg") {
    // The kernel measures the TSC against emulated timers and, on a busy host, now and then waits for them for ever.
    add(`tsc_early_khz=${accelerator.tscKhz}`);
    add("no_timer_check");
    // The kernel tests its ciphers at boot, which costs an emulated processor a sixth of the whole boot.
    if (!words.includes("fips=1")) add("cryptomgr.notests");
  }
  return words.join(" ");
}

/**
 * The guest's own file bypasses the host's page cache (cache.direct) and every flush of the guest reaches the disk
 * before it is answered (the default, cache.no-flush=off): what a guest has synced survives a power cut, and its
 * caching is charged to its own memory. Base files stay in the page cache: all guests of an image share them. aio=threads, because
 * the file is sparse and io_submit() blocks while the file system allocates.
 */
function disks(guest: GuestSpec<QemuConfig>, fds: Descriptors): string[] {
  const [own, ...bases] = fds.disk;
  const base = bases.reduceRight<object | null>((below, file) => fileNode(file, below), null);
  const root = {
    "node-name": "root",
    discard: "unmap",
    ...formatOptions(own, base),
    file: {
      driver: "file",
      filename: `/dev/fdset/${own.fd}`,
      aio: "threads",
      discard: "unmap",
      cache: { direct: own.direct },
    },
  };
  const seed = {
    "node-name": "seed",
    driver: "raw",
    "read-only": true,
    file: { driver: "file", filename: `/dev/fdset/${fds.seed}`, "read-only": true },
  };
  const bootIndex = guest.root.type === "disk" && guest.root.boot === undefined ? ",bootindex=0" : "";
  return [
    ...fds.disk.flatMap(({ fd }) => descriptorSet(fd)),
    ...descriptorSet(fds.seed),
    ...["-blockdev", JSON.stringify(root)],
    ...["-blockdev", JSON.stringify(seed)],
    ...[
      "-device",
      `virtio-blk-pci-non-transitional,drive=root,serial=root,werror=enospc,rerror=report,addr=${hex(slots.root)}${bootIndex}`,
    ],
    ...["-device", `virtio-blk-pci-non-transitional,drive=seed,serial=seed,addr=${hex(slots.seed)}`],
  ];
}

function volumes(guest: GuestSpec, files: readonly VolumeFile[], targets: Waiting["targets"] = {}): string[] {
  const plugged = (guest.volumes ?? []).flatMap((volume, index) => {
    const { id } = volume;
    const file = files[index];
    assert(file !== undefined, "each volume has an open file");
    const { node, device } = hotDisk(volume, { set: file.fd, direct: file.direct });
    const target = targets[id];
    const placed = target === undefined ? device : { ...device, "scsi-id": target };
    return [
      ...["-add-fd", `fd=${file.fd},set=${file.fd},opaque=${diskNodes(id).opaque}`],
      ...["-blockdev", JSON.stringify(node)],
      ...["-device", JSON.stringify(placed)],
    ];
  });
  const controller = `virtio-scsi-pci-non-transitional,id=${scsiControllerId},addr=${hex(slots.disks)}`;
  return ["-device", controller, ...plugged];
}

/**
 * A volume as blockdev-add and device_add take it. Like the root disk it bypasses the host's page cache, and a write that
 * finds no space on the host pauses the guest.
 */
export function hotDisk(
  volume: GuestVolume,
  { set, direct }: { set: number; direct: boolean },
): { node: JsonObject; device: JsonObject } {
  const { id } = volume;
  const names = diskNodes(id);
  const discard = volume.type === "disk" && volume.keepsSpace ? "ignore" : "unmap";
  const file = { driver: "file", filename: `/dev/fdset/${set}`, aio: "threads", discard };
  return {
    node: {
      "node-name": names.node,
      driver: "raw",
      discard,
      cache: { direct },
      file: { ...file, cache: { direct } },
    },
    device: {
      driver: "scsi-hd",
      id: names.device,
      bus: `${scsiControllerId}.0`,
      drive: names.node,
      serial: id,
      werror: "enospc",
      rerror: "report",
    },
  };
}

function fileNode(file: DiskFile, base: object | null): object {
  return {
    ...formatOptions(file, base),
    "read-only": true,
    file: {
      driver: "file",
      filename: `/dev/fdset/${file.fd}`,
      "read-only": true,
      cache: { direct: false },
    },
  };
}

/** The base is always named, null included: what a header says is never followed. */
function formatOptions(file: DiskFile, base: object | null): object {
  return file.format === "qcow2" ? { driver: "qcow2", backing: base } : { driver: "raw" };
}

/** Without a range of port addresses, which no device of ours needs and of which there are few. */
function cardPortDevices(): string[] {
  return Array.from({ length: cardPorts }, (_, index) => index + 1).flatMap((place) => {
    const multifunction = place === 1 ? ",multifunction=on" : "";
    const address = `${hex(slots.ports)}.${hex(place - 1)}${multifunction}`;
    return [
      "-device",
      `pcie-root-port,id=${cardIds(place).bus},chassis=${place},slot=${place},io-reserve=0,addr=${address}`,
    ];
  });
}

function network(nic: GuestNic, place: number, vhost: number | undefined): string[] {
  const acceleration = vhost === undefined ? "" : `,vhost=on,vhostfd=${vhost}`;
  const { device, netdev, bus } = cardIds(place);
  const address = place === 0 ? `addr=${hex(slots.firstNic)}` : `bus=${bus}`;
  return [
    ...["-netdev", `tap,id=${netdev},ifname=${optionValue(nic.port)},script=no,downscript=no${acceleration}`],
    ...[
      "-device",
      `${nicDriver},id=${device},netdev=${netdev},mac=${optionValue(nic.macAddress)},host_mtu=${nic.mtu},romfile=,${address}`,
    ],
  ];
}

/** The same for a machine that runs: arguments of netdev_add and device_add. */
export function hotCard(nic: GuestNic, place: number): { netdev: JsonObject; device: JsonObject } {
  const { device, netdev, bus } = cardIds(place);
  return {
    netdev: { type: "tap", id: netdev, ifname: nic.port, script: "no", downscript: "no" },
    device: {
      driver: nicDriver,
      id: device,
      netdev,
      mac: nic.macAddress,
      host_mtu: nic.mtu,
      romfile: "",
      bus,
    },
  };
}

/** Addresses only: nothing is taken from the host before the guest is given some of it. */
function hotMemory(guest: GuestSpec): string[] {
  const sizeMib = hotMemoryMib(guest);
  if (sizeMib === 0) return [];
  return [
    ...["-object", `memory-backend-ram,id=hot,size=${sizeMib}M,merge=off,dump=off,reserve=off`],
    ...[
      "-device",
      `virtio-mem-pci,id=${hotMemoryId},memdev=hot,block-size=2M,requested-size=0,addr=${hex(slots.memory)}`,
    ],
  ];
}

function auxiliaryDevices(): string[] {
  return [
    ...["-object", "rng-builtin,id=random"],
    ...["-device", `virtio-rng-pci-non-transitional,rng=random,addr=${hex(slots.random)}`],
    // Memory that the guest frees goes back to the host without anybody asking for it.
    ...[
      "-device",
      `virtio-balloon-pci-non-transitional,id=${balloonId},free-page-reporting=on,deflate-on-oom=on,addr=${hex(slots.balloon)}`,
    ],
    ...["-device", `virtio-serial-pci-non-transitional,id=ports,addr=${hex(slots.serial)}`],
    ...["-device", "virtserialport,id=agent,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0"],
    ...["-device", "pvpanic"],
  ];
}

function descriptorSet(fd: number): string[] {
  return ["-add-fd", `fd=${fd},set=${fd}`];
}

/** In QEMU's option lists a comma ends a value unless it is doubled. */
function optionValue(text: string): string {
  return text.replaceAll(",", ",,");
}

function hex(value: number): string {
  return `0x${value.toString(16)}`;
}
