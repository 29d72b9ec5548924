/**
 * Carries out the actions of a plan. Every action may be repeated after a crash at any line, and leaves nothing
 * running beside the next when it fails.
 */

import { hash } from "node:crypto";
import { hasCode, StrataError } from "../../core/errors.ts";
import type { GuestDriver, GuestNic, GuestRoot, GuestSpec, GuestVolume } from "../../drivers/driver.ts";
import { renderSeed } from "../../host/seed.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Ref } from "../../kinds/keys.ts";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { AgentContext } from "../agent-context.ts";
import { furtherNic, joinNetwork, ownNic } from "../interfaces/cards.ts";
import { domainOf } from "../networks/request.ts";
import { guestVolume, recordedVolumes } from "../volumes/guest-volumes.ts";
import { holdOn } from "../volumes/rollbacks.ts";
import type { InstanceMemory } from "./memory.ts";
import type { InstanceAction } from "./world.ts";

type Prepare = Extract<InstanceAction, { type: "prepare" }>;
type Resize = Extract<InstanceAction, { type: "resize" }>;
type Finalize = Extract<InstanceAction, { type: "finalize" }>;

export async function executeInstanceAction(
  context: AgentContext,
  memory: InstanceMemory,
  action: InstanceAction,
  signal: AbortSignal,
): Promise<void> {
  const { drivers, policies, disks } = context;
  switch (action.type) {
    case "prepare":
      return prepare(context, memory, action, signal);
    case "start":
      memory.attempts.delete(action.uid);
      try {
        await drivers.require(action.driver).start(action.handle, signal);
      } finally {
        context.guestCards.endStart(action.uid);
      }
      memory.attempts.set(action.uid, { stage: "started" });
      return;
    case "resize":
      return resize(context, memory, action, signal);
    case "stop":
      return drivers.require(action.driver).stop(action.handle, { graceMs: action.graceMs }, signal);
    case "destroy":
      return drivers.require(action.driver).destroy(action.handle, signal);
    case "release":
      return policies.releaseInstance(action.instance, signal);
    case "remove-disk":
      return disks.remove(action.volume.metadata.uid, signal);
    case "finalize":
      return finalize(context, memory, action, signal);
    case "probe":
      return memory.probes.begin(action);
    case "check":
      return memory.checks.begin(action);
  }
}

async function prepare(
  context: AgentContext,
  memory: InstanceMemory,
  action: Prepare,
  signal: AbortSignal,
): Promise<void> {
  const { instance, imageDigest } = action;
  const { uid } = instance.metadata;
  const driver = context.drivers.require(action.driver);
  if (holdOn(context, instance) !== undefined || context.rollbacks.has(uid)) {
    throw new StrataError("Unavailable", "its disks are just being put back to a snapshot");
  }
  // Read now, not when the round began: from here on nobody adds or takes one until the guest runs.
  const cards = recordedCards(context, instance);
  context.guestCards.beginStart(
    uid,
    cards.map(({ metadata }) => metadata.uid),
  );
  const volumes = driver.volumes ? recordedVolumes(context, instance) : [];
  context.guestVolumes.begin(uid, volumes);
  try {
    const [nics, root] = await both(
      joinNetworks(context, instance, cards, signal),
      rootOf(context, driver, action, signal),
    );
    signal.throwIfAborted();
    const { cpus, memoryMib } = instance.spec;
    const prepared: GuestVolume[] = [];
    const home = { ...instance, status: { ...instance.status, imageDigest } };
    for (const volume of volumes) {
      prepared.push(await guestVolume(context, driver, { volume, instance: home }, signal));
    }
    const handle = await driver.create(guestSpec(driver, action, { nics, root, volumes: prepared }), signal);
    const size = { cpus, memoryMib };
    memory.forgetSize(uid);
    const { rebuilds } = instance.spec;
    const prepared_ = { driver: action.driver, handle, imageDigest, rebuilds, size };
    memory.attempts.set(uid, { stage: "prepared", ...prepared_ });
  } catch (error) {
    context.guestCards.endStart(uid);
    throw error;
  }
}

function guestSpec(
  driver: GuestDriver,
  action: Prepare,
  { nics, root, volumes }: { nics: GuestNic[]; root: GuestRoot; volumes: GuestVolume[] },
): GuestSpec {
  const { metadata, spec } = action.instance;
  return {
    uid: metadata.uid,
    title: `${metadata.project ?? ""}/${metadata.name}`,
    hostname: metadata.name,
    type: spec.type,
    cpus: spec.cpus,
    memoryMib: spec.memoryMib,
    maxProcesses: spec.maxProcesses,
    root,
    nics,
    ...(volumes.length > 0 ? { volumes } : {}),
    seed: renderSeed({
      uid: metadata.uid,
      hostname: metadata.name,
      domain: domainOf(action.network),
      publicKeys: action.publicKeys,
      userData: spec.userData,
      nics,
    }),
    config: driver.config.parse(spec.application ?? {}),
  };
}

/** The further cards that the status of each says are the instance's, in the order of their devices. */
function recordedCards({ views, hostName }: AgentContext, instance: Instance): NetworkInterface[] {
  const { name } = instance.metadata;
  const cards = [...views.interfacesByPlug.keysOf(views.instances.keyOf(instance))].flatMap((key) => {
    const card = views.interfaces.get(key);
    return card && card.spec.instance === name && card.status.host === hostName ? [card] : [];
  });
  return cards.sort((a, b) => (a.status.device ?? 0) - (b.status.device ?? 0));
}

/** All its cards, each in force in its network. */
async function joinNetworks(
  context: AgentContext,
  instance: Instance,
  cards: readonly NetworkInterface[],
  signal: AbortSignal,
): Promise<GuestNic[]> {
  const nics = [ownNic(instance, await joinNetwork(context, instance, signal))];
  for (const card of cards) nics.push(furtherNic(card, await joinNetwork(context, card, signal)));
  return nics;
}

async function rootOf(
  { disks, images }: AgentContext,
  driver: GuestDriver,
  { instance, volume, imageDigest }: Prepare,
  signal: AbortSignal,
): Promise<GuestRoot> {
  const { rebuilds } = instance.spec;
  if (driver.root === "image") {
    const tree = await images.containerTree(imageDigest, signal);
    return { type: "image", digest: imageDigest, ...tree, ...(rebuilds > 0 && { generation: rebuilds }) };
  }
  const { uid } = volume.metadata;
  const { type } = instance.spec;
  const request = { uid, type, sizeMib: volume.spec.sizeMib, imageDigest, generation: rebuilds };
  const { source: origin } = instance.status;
  // What was made anew is the image's.
  if (!origin || rebuilds > 0) return disks.ensureRoot(request, signal);
  const source = { snapshot: origin.snapshotUid, disk: origin.rootUid };
  return withMachineId(await disks.ensureRoot({ ...request, source }, signal), instance.metadata.uid);
}

/**
 * A virtual machine that was made of another's disk is told who it is: systemd keeps what it is told in /etc/machine-id.
 * Containers' disks have lost their machine-id already.
 *
 * @see https://www.freedesktop.org/software/systemd/man/latest/systemd.html (systemd.machine_id=)
 */
function withMachineId(root: GuestRoot, uid: string): GuestRoot {
  if (root.type !== "disk" || !root.boot) return root;
  const id = hash("sha256", `machine-id ${uid}`).slice(0, 32);
  const commandLine = `${root.boot.commandLine} systemd.machine_id=${id}`;
  return { ...root, boot: { ...root.boot, commandLine } };
}

/** A size that this guest cannot have while it runs is no failure: it has it with the next start. */
async function resize(
  { drivers }: AgentContext,
  memory: InstanceMemory,
  { uid, driver, handle, size }: Resize,
  signal: AbortSignal,
): Promise<void> {
  try {
    await drivers.require(driver).resize?.apply(handle, size, signal);
  } catch (error) {
    if (!hasCode(error, "Unsupported")) throw error;
    memory.refuseSize(uid, size, error instanceof StrataError ? error.message : "");
    return;
  }
  memory.resized(uid, size);
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
