/**
 * From a guest's spec to the Engine's description of its container. Pure.
 *
 * What confines the guest: Docker's namespaces, seccomp list and (where the host has it) AppArmor profile, Docker's
 * capabilities without raw sockets, no new privileges by set-user-id programs, limits of memory (never continued on
 * swap), processor time and processes, a bounded log. Its network is a namespace without anything but `lo`, into which
 * `start` puts the guest's cards. Docker never starts it again by itself: that is the agent's decision.
 */
import { createHash } from "node:crypto";
import { isIPv4, isIPv6 } from "node:net";
import { StrataError } from "../../core/errors.ts";
import { isUid } from "../../core/ids.ts";
import type { GuestNic } from "../driver.ts";
import type { ContainerInfo, ContainerOptions } from "./engine.ts";
import { busyboxPath, gateEntrypoint, gatePath } from "./gate.ts";
import type { DockerGuest, GuestRecord } from "./guest-record.ts";
import { imageTag, type Labels, labels, volumeName } from "./labels.ts";

/** What a description needs to know beside the spec. */
export interface ContainerPlace {
  namespace: string;
  handleVersion: number;
  record: Pick<GuestRecord, "path">;
  /** The host's static busybox. */
  busybox: string;
  /** The Engine refuses more than the host has. */
  hostCpus: number;
}

export interface Limits {
  NanoCpus: number;
  Memory: number;
  MemorySwap: number;
  PidsLimit: number;
}

export const initCommand: readonly string[] = ["/sbin/init"];
export const stopSignal = "SIGTERM";
/** Of the two files that keep what a container printed. */
const logFileSize = "1m";
const logFiles = "2";
const nanoseconds = 1_000_000_000;

const interfacePattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/;
const macPattern = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i;
const pathPattern = /^\/[A-Za-z0-9._/+@=:-]*$/;
const hostnamePattern =
  /^(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9-]{1,63})*$/;

/** @throws Unsupported for what a Docker container cannot be; Invalid for values that none may have. */
export function checkGuest(guest: DockerGuest): void {
  if (guest.type !== "container" || guest.root.type !== "image") {
    throw new StrataError(
      "Unsupported",
      `the docker driver runs containers from an image, not a ${guest.type} from a ${guest.root.type}`,
    );
  }
  expectValue("uid", guest.uid, isUid(guest.uid));
  expectValue("hostname", guest.hostname, hostnamePattern.test(guest.hostname));
  expectValue("root.digest", guest.root.digest, /^sha256:[0-9a-f]{64}$/.test(guest.root.digest));
  guest.nics.forEach(checkNic);
}

export function checkNic(nic: GuestNic, index: number): void {
  const at = (name: string) => `nics[${index}].${name}`;
  expectValue(at("name"), nic.name, interfacePattern.test(nic.name));
  expectValue(at("macAddress"), nic.macAddress, macPattern.test(nic.macAddress));
  expectValue(at("ipAddress"), nic.ipAddress, isIPv4(nic.ipAddress));
  expectValue(at("gateway"), nic.gateway, isIPv4(nic.gateway));
  expectValue(at("prefixLength"), nic.prefixLength, isWhole(nic.prefixLength, 1, 32));
  expectValue(at("mtu"), nic.mtu, isWhole(nic.mtu, 576, 65_535));
  expectValue(at("netns"), nic.netns, pathPattern.test(nic.netns));
  expectValue(at("bridge"), nic.bridge, interfacePattern.test(nic.bridge));
  expectValue(at("port"), nic.port, interfacePattern.test(nic.port));
  const { ipv6 } = nic;
  if (ipv6 === undefined) return;
  expectValue(at("ipv6.address"), ipv6.address, isIPv6(ipv6.address) && !ipv6.address.includes("%"));
  expectValue(at("ipv6.gateway"), ipv6.gateway, isIPv6(ipv6.gateway) && !ipv6.gateway.includes("%"));
  expectValue(at("ipv6.prefixLength"), ipv6.prefixLength, isWhole(ipv6.prefixLength, 1, 128));
}

/** The container of a guest that passed `checkGuest`, without its name. */
export function containerOptions(guest: DockerGuest, place: ContainerPlace): ContainerOptions {
  const { config, root } = guest;
  const application = config.command !== undefined;
  const digest = root.type === "image" ? root.digest : "";
  return {
    Image: imageTag(place.namespace, digest).name,
    Hostname: guest.hostname,
    Entrypoint: [...gateEntrypoint],
    Cmd: [...(config.command ?? initCommand)],
    Env: Object.entries(config.environment).map(([name, value]) => `${name}=${value}`),
    WorkingDir: config.workingDirectory,
    User: config.user ?? "",
    // An init gets what it takes for a console. An application reads an empty input, as with `docker run -d`.
    Tty: !application,
    OpenStdin: !application,
    StopSignal: stopSignal,
    Labels: containerLabels(guest, place),
    ...healthCheck(guest),
    HostConfig: {
      ...limitsOf(guest, place.hostCpus),
      NetworkMode: "none",
      RestartPolicy: { Name: "no" },
      CapDrop: ["NET_RAW"],
      SecurityOpt: ["no-new-privileges"],
      IpcMode: "private",
      LogConfig: { Type: "json-file", Config: { "max-size": logFileSize, "max-file": logFiles } },
      Mounts: mounts(guest, place, application),
    },
  };
}

function containerLabels(guest: DockerGuest, { namespace, handleVersion }: ContainerPlace): Labels {
  return {
    [labels.namespace]: namespace,
    [labels.uid]: guest.uid,
    [labels.version]: String(handleVersion),
    [labels.image]: guest.root.type === "image" ? guest.root.digest : "",
    [labels.recipe]: recipeOf(guest),
    ...(guest.root.generation ? { [labels.generation]: String(guest.root.generation) } : {}),
  };
}

/**
 * Of all that is fixed when a container is made; making it anew would lose what the guest wrote. The rest (name, cards,
 * limits) is applied by each start.
 */
export function recipeOf({ root, config }: DockerGuest): string {
  const digest = root.type === "image" ? root.digest : "";
  return createHash("sha256").update(JSON.stringify({ digest, config })).digest("hex");
}

export function limitsOf(
  size: Pick<DockerGuest, "cpus" | "memoryMib"> & { maxProcesses?: number },
  hostCpus: number,
): Limits {
  const bytes = size.memoryMib * 1024 ** 2;
  return {
    NanoCpus: Math.round(Math.min(size.cpus, hostCpus) * nanoseconds),
    Memory: bytes,
    MemorySwap: bytes,
    ...(size.maxProcesses === undefined ? {} : { PidsLimit: size.maxProcesses }),
  } as Limits;
}

/** What of the limits a container does not have yet. */
export function changedLimits(wanted: Limits, info: Pick<ContainerInfo, "HostConfig">): Partial<Limits> {
  const found = info.HostConfig as unknown as Record<string, unknown>;
  const changed = Object.entries(wanted).filter(([name, value]) => found[name] !== value);
  // The Engine refuses a limit of memory above the one with swap, so both go together.
  const both = changed.some(([name]) => name.startsWith("Memory"));
  return {
    ...Object.fromEntries(changed),
    ...(both ? { Memory: wanted.Memory, MemorySwap: wanted.MemorySwap } : {}),
  };
}

function healthCheck({ config }: DockerGuest): Pick<ContainerOptions, "Healthcheck"> {
  const check = config.healthCheck;
  if (check === undefined) return {};
  return {
    Healthcheck: {
      Test: ["CMD", ...check.command],
      Interval: check.intervalSeconds * nanoseconds,
      Timeout: check.timeoutSeconds * nanoseconds,
      Retries: check.retries,
    },
  };
}

type Mounts = NonNullable<NonNullable<ContainerOptions["HostConfig"]>["Mounts"]>;

function mounts(guest: DockerGuest, place: ContainerPlace, application: boolean): Mounts {
  const bind = (Source: string, Target: string): Mounts[number] => ({
    Type: "bind",
    Source,
    Target,
    ReadOnly: true,
  });
  const { record, namespace } = place;
  return [
    bind(place.busybox, busyboxPath),
    bind(record.path("gate"), gatePath),
    bind(record.path("hosts"), "/etc/hosts"),
    bind(record.path("hostname"), "/etc/hostname"),
    bind(record.path("resolv.conf"), "/etc/resolv.conf"),
    ...(application ? [] : [bind(record.path("seed"), "/var/lib/cloud/seed/nocloud")]),
    ...guest.config.volumes.map(({ name, path }): Mounts[number] => ({
      Type: "volume",
      Source: volumeName(namespace, guest.uid, name),
      Target: path,
    })),
  ];
}

function isWhole(value: number, from: number, to: number): boolean {
  return Number.isInteger(value) && value >= from && value <= to;
}

function expectValue(name: string, value: unknown, valid: boolean): void {
  if (valid) return;
  const shown = JSON.stringify(value)?.slice(0, 80);
  throw new StrataError("Invalid", `the guest's ${name} is ${shown}, which a container cannot have`);
}
