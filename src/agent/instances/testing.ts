import { toTimestamp } from "../../core/clock.ts";
import type { JsonObject } from "../../core/json.ts";
import type { ObservedGuest } from "../../drivers/driver.ts";
import { type Image, imageKind } from "../../kinds/image.ts";
import { type Instance, type InstanceStatus, instanceKind } from "../../kinds/instance.ts";
import { type Network, networkKind } from "../../kinds/network.ts";
import { type Subnet, subnetKind } from "../../kinds/subnet.ts";
import { type Volume, volumeKind } from "../../kinds/volume.ts";
import { blank } from "./observe.ts";
import type { InstanceWorld } from "./world.ts";

/** Worlds for tests of plans: an instance that is placed and has all it needs, and changes to that. */

export const now = 1_700_000_000_000;
export const handle: JsonObject = { version: 1, id: "g" };
export const digest = `sha256:${"a".repeat(64)}`;

export function instanceOf(
  change: {
    spec?: Partial<Instance["spec"]>;
    status?: Partial<InstanceStatus>;
    metadata?: Partial<Instance["metadata"]>;
  } = {},
): Instance {
  return {
    kind: "Instance",
    metadata: { ...metadata("web", "1".repeat(16)), finalizers: ["agent"], ...change.metadata },
    spec: { ...instanceKind.spec.parse({ type: "container", image: "debian" }), ...change.spec },
    status: {
      ...instanceKind.initialStatus(),
      host: "alpha",
      nic: {
        network: "default",
        subnet: "default",
        macAddress: "02:00:00:00:00:01",
        ipAddress: "10.0.0.2",
        ipv6Address: "fd00::2",
      },
      ...change.status,
    },
  };
}

export function worldOf(change: Partial<InstanceWorld> = {}): InstanceWorld {
  return {
    key: "/instances/default/web",
    hostName: "alpha",
    instance: instanceOf(),
    image: readyImage(),
    network: readyNetwork(),
    subnet: readySubnet(),
    volume: rootVolume(),
    publicKeys: new Map(),
    driver: { name: "fake" },
    ...blank,
    ...change,
  };
}

/** What a guest looks like. */
export function guestOf(
  state: ObservedGuest<JsonObject>["state"],
  exit?: ObservedGuest<JsonObject>["exit"],
): NonNullable<InstanceWorld["guest"]> {
  const uid = "1".repeat(16) as ObservedGuest<JsonObject>["uid"];
  const run = state === "running" ? { runId: "run-1", pid: 1 } : {};
  return { driver: "fake", observed: { uid, handle, state, ...run, ...(exit ? { exit } : {}) } };
}

/** A status as it is while the guest runs. */
export function runningStatus(change: Partial<InstanceStatus> = {}): Partial<InstanceStatus> {
  return {
    state: "running",
    reason: "Running",
    message: "",
    driver: "fake",
    handle: handle as InstanceStatus["handle"],
    imageDigest: digest,
    observedGeneration: 1,
    startedAt: toTimestamp(now - 60_000),
    conditions: [
      { type: "Ready", status: "true", reason: "Running", message: "", since: toTimestamp(now - 60_000) },
    ],
    ...change,
  };
}

export function readyImage(change: Partial<Image["status"]> = {}): Image {
  return {
    kind: "Image",
    metadata: metadata("debian", "2".repeat(16)),
    spec: imageKind.spec.parse({ source: { type: "debian", suite: "bookworm" } }),
    status: {
      ...imageKind.initialStatus(),
      state: "ready",
      host: "alpha",
      digest,
      types: ["vm", "container"],
      ...change,
    },
  };
}

export function readyNetwork(change: Partial<Network["status"]> = {}): Network {
  return {
    kind: "Network",
    metadata: metadata("default", "3".repeat(16)),
    spec: networkKind.spec.parse({}),
    status: { ...networkKind.initialStatus(), cidr: "10.0.0.0/24", ...change },
  };
}

export function readySubnet(change: Partial<Subnet["status"]> = {}): Subnet {
  return {
    kind: "Subnet",
    metadata: metadata("default", "5".repeat(16)),
    spec: subnetKind.spec.parse({ network: "default", cidr: "10.0.0.0/24" }),
    status: {
      index: 0,
      gateway: "10.0.0.1",
      ipv6Cidr: "fd00::/64",
      ipv6Gateway: "fd00::1",
      ...change,
    },
  };
}

export function rootVolume(): Volume {
  return {
    kind: "Volume",
    metadata: {
      ...metadata("web-root", "4".repeat(16)),
      owner: { kind: "Instance", name: "web", uid: "1".repeat(16) },
    },
    spec: { sizeMib: 1024, role: "root", type: "container", protected: false },
    status: { ...volumeKind.initialStatus(), host: "alpha" },
  };
}

export function metadata(name: string, uid: string): Instance["metadata"] {
  return {
    name,
    project: "default",
    uid: uid as Instance["metadata"]["uid"],
    revision: 1,
    generation: 1,
    labels: {},
    createdAt: toTimestamp(now - 3_600_000),
    finalizers: [],
  };
}
