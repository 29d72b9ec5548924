import type { JsonObject } from "../../core/json.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import type { Plan } from "../../reconcile/reconciler.ts";

type Status = NetworkInterface["status"];

export interface InterfaceWorld {
  hostName: string;
  card: NetworkInterface | undefined;
  /** The instance that it is wanted for, when that is on this host. */
  wanted: Instance | undefined;
  /** The instance that status names, when that is on this host. */
  current: CurrentInstance | undefined;
  /** It left its guest and its network; only the status does not say so yet. */
  released: boolean;
}

export interface CurrentInstance {
  instance: Instance;
  /** `starting`: it comes to run, with cards that are settled already. */
  guest: "idle" | "starting" | "running";
  /** Surely; false also where nobody knows. */
  inGuest: boolean;
  /** How to reach the guest; absent when it was never made. */
  reach: { driver: string; handle: JsonObject; canPlug: boolean } | undefined;
}

export type InterfaceAction =
  /** Records that the card belongs to the instance, before anything of it is made. */
  | { type: "claim"; card: NetworkInterface; instance: Instance }
  | { type: "plug"; card: NetworkInterface; instance: Instance; driver: string; handle: JsonObject }
  | { type: "unplug"; card: NetworkInterface; instance: Instance; driver: string; handle: JsonObject }
  /** Takes it out of its network's policy. */
  | { type: "release"; card: NetworkInterface };

export type InterfacePlan = Plan<InterfaceAction, Status>;

const nothing: InterfacePlan = { status: undefined, actions: [] };
/** A start that fails ends without a hint. */
const startPatienceMs = 5_000;

/**
 * A card is recorded as an instance's before the guest or the network has it, and stays recorded until neither has it
 * any more: so its addresses can never be given away while a guest still uses them.
 */
export function planInterface(world: InterfaceWorld): InterfacePlan {
  const { card, wanted, current, released } = world;
  if (!card) return nothing;
  const { metadata, status, spec } = card;
  const wish = metadata.deletedAt === undefined ? spec.instance : undefined;
  if (status.instance === undefined) {
    if (wanted && wanted.metadata.deletedAt === undefined && wish !== undefined) {
      return { status: undefined, actions: [{ type: "claim", card, instance: wanted }] };
    }
    const free = status.host === undefined && wish === undefined && status.state !== "available";
    return free ? { status: available(card), actions: [] } : nothing;
  }
  if (status.host !== world.hostName) return nothing;
  if (released) return planFree(world, card);
  if (!current) return { status: detaching(card, ""), actions: [{ type: "release", card }] };
  if (status.instance === wish) return planAttached(card, current);
  return planLeaving(card, current);
}

function planAttached(card: NetworkInterface, current: CurrentInstance): InterfacePlan {
  const { instance, guest, inGuest, reach } = current;
  // Its guest is on its way out; what becomes of the card shows once it is gone.
  if (instance.metadata.deletedAt !== undefined) return nothing;
  if (guest === "starting") return { status: card.status, actions: [], recheckAfterMs: startPatienceMs };
  if (guest === "idle") {
    const message = `is plugged in when the instance "${instance.metadata.name}" starts`;
    return { status: told(card, "attached", message), actions: [] };
  }
  // What was attached while the guest did not run has been part of its start.
  if (inGuest || card.status.state === "attached") return { status: told(card, "attached", ""), actions: [] };
  if (!reach?.canPlug) {
    const message = `the driver ${reach?.driver ?? "of its guest"} cannot plug cards into a running guest; restart the instance "${instance.metadata.name}"`;
    return { status: told(card, "attaching", message), actions: [] };
  }
  const { driver, handle } = reach;
  return {
    status: told(card, "attaching", "is being plugged in"),
    actions: [{ type: "plug", card, instance, driver, handle }],
    reportAfterMs: 100,
  };
}

function planLeaving(card: NetworkInterface, current: CurrentInstance): InterfacePlan {
  const { instance, guest, reach } = current;
  if (guest === "starting") {
    const message = "is unplugged once its instance has started";
    return { status: detaching(card, message), actions: [], recheckAfterMs: startPatienceMs };
  }
  if (guest === "idle" || !reach)
    return { status: detaching(card, ""), actions: [{ type: "release", card }] };
  if (!reach.canPlug && (current.inGuest || card.status.state !== "attaching")) {
    const message = `the driver ${reach.driver} cannot unplug cards from a running guest; stop or restart the instance "${instance.metadata.name}"`;
    return { status: detaching(card, message), actions: [] };
  }
  const { driver, handle } = reach;
  const unplug: InterfaceAction[] = reach.canPlug ? [{ type: "unplug", card, instance, driver, handle }] : [];
  return { status: detaching(card, "is being unplugged"), actions: [...unplug, { type: "release", card }] };
}

/** Nobody's, or at once the next instance's. */
function planFree(world: InterfaceWorld, card: NetworkInterface): InterfacePlan {
  const { wanted } = world;
  const next = wanted && wanted.metadata.deletedAt === undefined && card.metadata.deletedAt === undefined;
  const actions: InterfaceAction[] = next ? [{ type: "claim", card, instance: wanted }] : [];
  return { status: available(card), actions };
}

function available({ status, metadata }: NetworkInterface): Status {
  const { host, instance, device, ...kept } = status;
  return { ...kept, state: "available", message: "", observedGeneration: metadata.generation };
}

function detaching(card: NetworkInterface, message: string): Status {
  return { ...card.status, state: "detaching", message };
}

function told(card: NetworkInterface, state: Status["state"], message: string): Status {
  return { ...card.status, state, message, observedGeneration: card.metadata.generation };
}
