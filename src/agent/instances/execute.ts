/**
 * Carries out the actions of a plan. Every action may be repeated after a crash at any line, and leaves nothing
 * running beside the next when it fails.
 */

import { StrataError } from "../../core/errors.ts";
import type { GuestNic, GuestSpec } from "../../drivers/driver.ts";
import type { NetworkAttachment } from "../../host/networks/networks.ts";
import { renderSeed } from "../../host/seed.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import type { InstanceMemory } from "./memory.ts";
import type { InstanceAction } from "./world.ts";

type Prepare = Extract<InstanceAction, { type: "prepare" }>;
type Finalize = Extract<InstanceAction, { type: "finalize" }>;

export async function executeInstanceAction(
  context: AgentContext,
  memory: InstanceMemory,
  action: InstanceAction,
  signal: AbortSignal,
): Promise<void> {
  const { drivers, networks, disks } = context;
  switch (action.type) {
    case "prepare":
      return prepare(context, memory, action, signal);
    case "start":
      memory.attempts.delete(action.uid);
      await drivers.require(action.driver).start(action.handle, signal);
      memory.attempts.set(action.uid, { stage: "started" });
      return;
    case "stop":
      return drivers.require(action.driver).stop(action.handle, { graceMs: action.graceMs }, signal);
    case "destroy":
      return drivers.require(action.driver).destroy(action.handle, signal);
    case "release":
      return networks.release(action.network, action.uid);
    case "remove-disk":
      return disks.remove(action.volume.metadata.uid, signal);
    case "finalize":
      return finalize(context, memory, action, signal);
    case "probe":
      return memory.probes.begin(action);
  }
}

async function prepare(
  context: AgentContext,
  memory: InstanceMemory,
  action: Prepare,
  signal: AbortSignal,
): Promise<void> {
  const { instance, volume, imageDigest } = action;
  const { uid } = instance.metadata;
  const disk = {
    uid: volume.metadata.uid,
    type: instance.spec.type,
    sizeMib: volume.spec.sizeMib,
    imageDigest,
  };
  const [attachment, root] = await both(
    joinNetwork(context, action, signal),
    context.disks.ensureRoot(disk, signal),
  );
  signal.throwIfAborted();
  const driver = context.drivers.require(action.driver);
  const spec: GuestSpec = {
    uid,
    title: `${instance.metadata.project ?? ""}/${instance.metadata.name}`,
    hostname: instance.metadata.name,
    type: instance.spec.type,
    cpus: instance.spec.cpus,
    memoryMib: instance.spec.memoryMib,
    maxProcesses: instance.spec.maxProcesses,
    root,
    nics: [nicOf(action, attachment)],
    seed: seedOf(action),
    config: driver.config.parse({}),
  };
  const handle = await driver.create(spec, signal);
  memory.attempts.set(uid, { stage: "prepared", driver: action.driver, handle, imageDigest });
}

async function joinNetwork(
  context: AgentContext,
  action: Prepare,
  signal: AbortSignal,
): Promise<NetworkAttachment> {
  const { instance, network } = action;
  const attachment = await context.attachments.attach(network, signal);
  const { macAddress, ipAddress } = addressOf(action);
  const { uid, name } = instance.metadata;
  await context.networks.reserve(network.metadata.uid, { uid, hostname: name, macAddress, ipAddress });
  return attachment;
}

function nicOf(action: Prepare, attachment: NetworkAttachment): GuestNic {
  const { macAddress, ipAddress } = addressOf(action);
  return {
    name: "eth0",
    macAddress,
    ipAddress,
    prefixLength: attachment.prefixLength,
    gateway: attachment.gateway,
    mtu: attachment.mtu,
    netns: attachment.netns,
    bridge: attachment.bridge,
    port: `g-${action.instance.metadata.uid.slice(0, 12)}`,
  };
}

function seedOf(action: Prepare): GuestSpec["seed"] {
  const { instance, network, publicKeys } = action;
  return renderSeed({
    uid: instance.metadata.uid,
    hostname: instance.metadata.name,
    domain: network.status.domain ?? `${instance.metadata.project ?? "default"}.internal`,
    publicKeys,
    userData: instance.spec.userData,
    nics: [addressOf(action)],
  });
}

function addressOf({ instance }: Prepare): { macAddress: string; ipAddress: string } {
  if (instance.status.nic) return instance.status.nic;
  throw new StrataError(
    "Internal",
    `instance ${instance.metadata.name} has no address, and was planned to start`,
  );
}

/** The volume first: once the instance is gone, nothing leads to it any more. */
async function finalize(
  context: AgentContext,
  memory: InstanceMemory,
  action: Finalize,
  signal: AbortSignal,
): Promise<void> {
  const { client } = context;
  const { instance, volume } = action;
  if (volume) {
    const { metadata } = volume;
    await client.removeFinalizer(volumeKind, metadata as Ref, metadata.uid, "agent", { signal });
  }
  const { metadata } = instance;
  // Recorded before the instance is gone; afterwards its project may be gone too.
  context.events.record(instance, {
    severity: "normal",
    reason: "Deleted",
    message: "guest and disk are gone",
  });
  await client.removeFinalizer(instanceKind, metadata as Ref, metadata.uid, "agent", { signal });
  memory.finalize(metadata.uid);
}

/** The results of both, or the first error once both have ended. */
async function both<A, B>(a: Promise<A>, b: Promise<B>): Promise<[A, B]> {
  const [first, second] = await Promise.allSettled([a, b]);
  if (first.status === "rejected") throw first.reason;
  if (second.status === "rejected") throw second.reason;
  return [first.value, second.value];
}
