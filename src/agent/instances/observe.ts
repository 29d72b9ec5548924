import type { Uid } from "../../core/ids.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { AgentContext } from "../agent-context.ts";
import { unclaimedVolumes } from "../volumes/guest-volumes.ts";
import { holdOn } from "../volumes/rollbacks.ts";
import type { InstanceMemory } from "./memory.ts";
import type { InstanceWorld, PlacedGuest } from "./world.ts";

/** Reads what a plan for this instance needs: from the views, and from the driver that has its guest. */
export async function observeInstance(
  context: AgentContext,
  memory: InstanceMemory,
  key: string,
): Promise<InstanceWorld> {
  const { views, hostName } = context;
  const instance = views.instances.get(key);
  const nothing = { key, hostName, instance: undefined, publicKeys: noKeys, driver: noDriver };
  const absent = { image: undefined, network: undefined, subnet: undefined, volume: undefined };
  if (!instance || memory.isFinalized(instance.metadata.uid)) {
    return { ...nothing, ...absent, ...blank };
  }
  const { spec, metadata } = instance;
  const { uid, project = "" } = metadata;
  const attempt = memory.attempts.get(uid);
  // A prepared guest was made by this process and not started since: there is nothing to see.
  const justMade = attempt?.stage === "prepared" && metadata.deletedAt === undefined;
  const [volumeKey] = views.volumesByOwner.keysOf(uid);
  const { nic } = instance.status;
  return {
    key,
    hostName,
    instance,
    image: views.images.find({ project, name: spec.image }),
    network: views.networks.find({ project, name: spec.network }),
    subnet: nic && views.subnets.find({ project, name: nic.subnet }),
    unclaimedCards: unclaimedCards(context, key),
    unclaimedVolumes: unclaimedVolumes(context, key),
    volume: volumeKey === undefined ? undefined : views.volumes.get(volumeKey),
    hold: holdOn(context, instance),
    publicKeys: publicKeysOf(context, instance),
    driver: context.drivers.choose(spec),
    guest: justMade ? undefined : await observeGuest(context, instance),
    attempt,
    probe: memory.probes.state(uid),
    check: memory.checks.state(uid),
    sizing: { ...memory.sizing(uid), live: liveSizes(context, instance) },
  };
}

/** Of an instance of which nothing is known. */
export const blank = {
  guest: undefined,
  attempt: undefined,
  probe: undefined,
  check: undefined,
  hold: undefined,
  unclaimedCards: [],
  unclaimedVolumes: [],
  sizing: { applied: undefined, live: undefined, refused: undefined },
} as const satisfies Partial<InstanceWorld>;

function unclaimedCards({ views }: AgentContext, key: string): string[] {
  return [...views.interfacesByWish.keysOf(key)].flatMap((cardKey) => {
    const card = views.interfaces.get(cardKey);
    const comes = card && card.status.instance === undefined && card.metadata.deletedAt === undefined;
    return comes ? [card.metadata.name] : [];
  });
}

function liveSizes({ drivers }: AgentContext, { status }: Instance): InstanceWorld["sizing"]["live"] {
  return status.driver === undefined ? undefined : drivers.find(status.driver)?.resize?.live;
}

const noKeys: ReadonlyMap<string, string> = new Map();
const noDriver = { missing: "" };

async function observeGuest(context: AgentContext, instance: Instance): Promise<PlacedGuest | undefined> {
  const { status, metadata } = instance;
  if (status.host !== context.hostName) return undefined;
  if (status.driver !== undefined) {
    const observed = await context.drivers.require(status.driver).inspect(metadata.uid as Uid);
    return observed && { driver: status.driver, observed };
  }
  // Nothing recorded: a guest can exist only when the agent died after making it, which matters when it must go.
  // Otherwise it is made again, which finds it.
  if (metadata.deletedAt === undefined) return undefined;
  for (const driver of context.drivers.all()) {
    const observed = await driver.inspect(metadata.uid as Uid);
    if (observed) return { driver: driver.name, observed };
  }
  return undefined;
}

function publicKeysOf(context: AgentContext, instance: Instance): ReadonlyMap<string, string> {
  const { spec, metadata } = instance;
  if (spec.keyPairs.length === 0) return noKeys;
  const found = new Map<string, string>();
  for (const name of spec.keyPairs) {
    const pair = context.views.keyPairs.find({ project: metadata.project ?? "", name });
    if (pair) found.set(name, pair.spec.publicKey);
  }
  return found;
}
