/**
 * From a guest's spec to the text of its LXC configuration. Pure. Every value that comes from outside is checked
 * against a pattern without white space or control characters, so no value can add a line of its own.
 *
 * What confines the guest: a user namespace with shifted ids, its own pid, mount, network, IPC, UTS and cgroup
 * namespaces, a cgroup below one that holds the limits and that it cannot reach, no devices but the harmless ones,
 * LXC's seccomp list, AppArmor where the host has it, read-only /proc/sys and /sys.
 */
import { isIPv4, isIPv6 } from "node:net";
import { StrataError } from "../../core/errors.ts";
import { isUid } from "../../core/ids.ts";
import type { GuestNic, GuestSpec } from "../driver.ts";

/** What the configuration needs to know beside the spec. */
export interface LxcPlace {
  /** Directory with the seed's files, readable for the shifted root and writable for the host's root only. */
  seedDir: string;
  /** The console's log; bounded, with one predecessor in `PATH.1`. */
  consoleLog: string;
  /** Group that holds the limits; the guest lives in `payload` below it. */
  guestGroup: string;
  /** Group of LXC's own process. */
  monitorGroup: string;
  /** plug-cards.sh, the directory of the cards' texts, and the guest's group in each hierarchy. */
  plugCards: { script: string; cardsDir: string; groupDirs: readonly string[] };
  /** AppArmor's profile, or `unconfined` where the host has no AppArmor. */
  apparmorProfile: string;
  /** LXCFS runs: the guest sees its own memory, processors and load in /proc. */
  lxcfs: boolean;
  /** How many files a process of the daemon may open; a guest cannot be given more. */
  maxOpenFiles: number;
  /** LXC's list of system calls to refuse; left out where the host does not have it. */
  seccompProfile?: string;
}

/** What systemd gives its services. */
const openFiles = 524_288;
const cpuPeriodMicros = 100_000;
export const lxcfsPath = "/var/lib/lxcfs";
const lxcfsFiles = ["cpuinfo", "diskstats", "loadavg", "meminfo", "stat", "swaps", "uptime"].map(
  (name) => `proc/${name}`,
);
const consoleLogBytes = 1024 * 1024;

const pathPattern = /^\/[A-Za-z0-9._/+@=:-]*$/;
const interfacePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/;
const hostnamePattern =
  /^(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/;
const ipv6Pattern = /^[0-9a-f:]+$/i;
const macPattern = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i;

/** Character devices that do no harm: null, zero, full, random, urandom, tty, console, ptmx, pts. */
const allowedDevices = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0", "5:1", "5:2", "136:*"];

/** @throws Unsupported for what containers cannot do; Invalid for values that no configuration may hold. */
export function checkGuest(guest: GuestSpec): void {
  if (guest.type !== "container" || guest.root.type !== "tree") {
    throw new StrataError(
      "Unsupported",
      `the lxc driver runs containers from a root tree, not a ${guest.type}`,
    );
  }
  expectValue("uid", guest.uid, isUid(guest.uid));
  expectValue("cpus", guest.cpus, guest.cpus > 0 && guest.cpus <= 4096);
  expectValue("memoryMib", guest.memoryMib, isWhole(guest.memoryMib, 1, 2 ** 30));
  expectValue("maxProcesses", guest.maxProcesses, isWhole(guest.maxProcesses, 1, 2 ** 22));
  expectValue("hostname", guest.hostname, hostnamePattern.test(guest.hostname));
  expectValue("root.path", guest.root.path, pathPattern.test(guest.root.path));
  const volumes = guest.volumes ?? [];
  for (const volume of volumes) {
    expectValue("volume", volume.type, volume.type === "mount");
    if (volume.type !== "mount") continue;
    expectValue("volume's path", volume.path, pathPattern.test(volume.path));
    expectValue("volume's target", volume.target, isTarget(volume.target));
  }
  const targets = volumes.map((volume) => (volume.type === "mount" ? volume.target : volume.id));
  expectValue("volumes' targets", targets, new Set(targets).size === targets.length);
  const { idBase, idCount } = guest.root;
  expectValue("root.idBase", idBase, Number.isSafeInteger(idBase) && idBase > 0);
  expectValue("root.idCount", idCount, Number.isSafeInteger(idCount) && idCount >= 65_536);
  guest.nics.forEach(checkNic);
  for (const key of ["name", "port"] as const) {
    const values = guest.nics.map((nic) => nic[key]);
    expectValue(`nics' ${key}s`, values, new Set(values).size === values.length);
  }
}

/** @throws Invalid for values that no text for `ip` may hold. */
export function checkNic(nic: GuestNic, index: number): void {
  const at = (name: string) => `nics[${index}].${name}`;
  expectValue(at("name"), nic.name, interfacePattern.test(nic.name));
  expectValue(at("macAddress"), nic.macAddress, macPattern.test(nic.macAddress));
  expectValue(at("ipAddress"), nic.ipAddress, isIPv4(nic.ipAddress));
  expectValue(at("gateway"), nic.gateway, isIPv4(nic.gateway));
  expectValue(at("prefixLength"), nic.prefixLength, isWhole(nic.prefixLength, 1, 31));
  if (nic.ipv6 !== undefined) {
    const { address, prefixLength, gateway } = nic.ipv6;
    // Without a zone, which isIPv6 takes for a part of the address.
    expectValue(at("ipv6.address"), address, isIPv6(address) && ipv6Pattern.test(address));
    expectValue(at("ipv6.gateway"), gateway, isIPv6(gateway) && ipv6Pattern.test(gateway));
    expectValue(at("ipv6.prefixLength"), prefixLength, isWhole(prefixLength, 1, 128));
  }
  expectValue(at("mtu"), nic.mtu, isWhole(nic.mtu, 576, 65_535));
  expectValue(at("netns"), nic.netns, pathPattern.test(nic.netns));
  expectValue(at("bridge"), nic.bridge, interfacePattern.test(nic.bridge));
  expectValue(at("port"), nic.port, interfacePattern.test(nic.port));
}

/** The configuration of a guest that passed `checkGuest`. */
export function lxcConfig(guest: GuestSpec, place: LxcPlace): string {
  checkGuest(guest);
  const { script, cardsDir, groupDirs } = place.plugCards;
  for (const path of [place.seedDir, place.consoleLog, script, cardsDir, ...groupDirs]) {
    expectValue("state directory", path, pathPattern.test(path));
  }
  const lines = [
    ...identity(guest),
    ...confinement(place),
    ...cgroups(place),
    ...limits(guest),
    ...mounts(place),
    ...terminals(place),
    ...network(place),
  ];
  return `${lines.join("\n")}\n`;
}

function identity(guest: GuestSpec): string[] {
  const { root } = guest;
  if (root.type !== "tree") return [];
  return [
    `lxc.uts.name = ${guest.hostname}`,
    `lxc.rootfs.path = dir:${root.path}`,
    `lxc.idmap = u 0 ${root.idBase} ${root.idCount}`,
    `lxc.idmap = g 0 ${root.idBase} ${root.idCount}`,
  ];
}

function confinement(place: LxcPlace): string[] {
  return [
    `lxc.apparmor.profile = ${place.apparmorProfile}`,
    ...(place.seccompProfile === undefined ? [] : [`lxc.seccomp.profile = ${place.seccompProfile}`]),
    "lxc.cap.drop = mac_admin mac_override sys_time sys_module sys_rawio",
    // Node raises it for itself, and programs that count up to the limit would take long.
    `lxc.prlimit.nofile = 1024:${Math.max(1024, Math.min(openFiles, place.maxOpenFiles))}`,
    // The monitor is protected from the host's OOM killer, the guest is not.
    "lxc.proc.oom_score_adj = 0",
  ];
}

function cgroups(place: LxcPlace): string[] {
  const devices = (version: string) => [
    `lxc.${version}.devices.deny = a`,
    `lxc.${version}.devices.allow = c *:* m`,
    `lxc.${version}.devices.allow = b *:* m`,
    ...allowedDevices.map((device) => `lxc.${version}.devices.allow = c ${device} rwm`),
  ];
  return [
    `lxc.cgroup.dir.container = ${place.guestGroup}/payload`,
    `lxc.cgroup.dir.monitor = ${place.monitorGroup}/monitor`,
    `lxc.cgroup.dir.monitor.pivot = ${place.monitorGroup}/pivot`,
    ...devices("cgroup"),
    ...devices("cgroup2"),
  ];
}

/**
 * The limits hold in the group above, which the guest can neither see nor change. They are repeated in its own, where
 * programs look for them to size themselves.
 */
function limits(guest: GuestSpec): string[] {
  const bytes = guest.memoryMib * 1024 ** 2;
  const quota = Math.round(guest.cpus * cpuPeriodMicros);
  return [
    `lxc.cgroup.memory.limit_in_bytes = ${bytes}`,
    `lxc.cgroup.cpu.cfs_period_us = ${cpuPeriodMicros}`,
    `lxc.cgroup.cpu.cfs_quota_us = ${quota}`,
    `lxc.cgroup.pids.max = ${guest.maxProcesses}`,
    `lxc.cgroup2.memory.max = ${bytes}`,
    `lxc.cgroup2.cpu.max = ${quota} ${cpuPeriodMicros}`,
    `lxc.cgroup2.pids.max = ${guest.maxProcesses}`,
  ];
}

function mounts(place: LxcPlace): string[] {
  const views = place.lxcfs ? lxcfsFiles : [];
  return [
    "lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed",
    ...views.map((name) => `lxc.mount.entry = ${lxcfsPath}/${name} ${name} none bind,optional 0 0`),
    `lxc.mount.entry = ${place.seedDir} var/lib/cloud/seed/nocloud none bind,ro,nosuid,nodev,noexec,create=dir 0 0`,
  ];
}

function terminals(place: LxcPlace): string[] {
  return [
    "lxc.pty.max = 1024",
    // The console itself is only logged: LXC's monitor blocks on a slow reader. People get /dev/tty1.
    "lxc.tty.max = 1",
    // Where systemd finds it: the console is the first pseudo terminal inside, tty1 the second.
    "lxc.environment = container_ttys=pts/1",
    `lxc.console.logfile = ${place.consoleLog}`,
    `lxc.console.size = ${consoleLogBytes}`,
    "lxc.console.rotate = 1",
  ];
}

/** LXC itself makes loopback only: the cards come from the hook. */
function network(place: LxcPlace): string[] {
  const { script, cardsDir, groupDirs } = place.plugCards;
  return [
    "lxc.net.0.type = empty",
    "lxc.net.0.flags = up",
    `lxc.hook.start-host = /bin/sh ${[script, cardsDir, ...groupDirs].join(" ")}`,
  ];
}

function isTarget(path: string): boolean {
  return pathPattern.test(path) && path !== "/" && !/\/\.{0,2}(\/|$)/.test(path);
}

function isWhole(value: number, from: number, to: number): boolean {
  return Number.isInteger(value) && value >= from && value <= to;
}

function expectValue(name: string, value: unknown, valid: boolean): void {
  if (valid) return;
  const shown = JSON.stringify(value)?.slice(0, 80);
  throw new StrataError("Invalid", `the guest's ${name} is ${shown}, which a container cannot have`);
}
