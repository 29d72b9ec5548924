import { StrataError } from "../core/errors.ts";
import { overlaps } from "../core/ip-range.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { immutable, type ResourceOf } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { maxCards, type NetworkInterface, networkInterfaceKind } from "../kinds/network-interface.ts";
import type { Addresses } from "./addresses.ts";
import { findGroups, findPlace, releaseAddresses, takeAddresses } from "./cards.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { rangesOf } from "./network-ranges.ts";
import { conflict } from "./parse.ts";
import { References } from "./references.ts";

type Status = NetworkInterface["status"];
type Hooks =
  ResourceOf<typeof networkInterfaceKind> extends { spec: infer S; status: infer T }
    ? KindHooks<S, T>
    : never;

/**
 * A card keeps its addresses from its creation to its deletion, whichever instance it is plugged into. Plugging in is
 * admitted against all cards of the instance; status.host and status.instance are the agents' to report.
 */
export function networkInterfaceHooks(addresses: Addresses): Hooks {
  return {
    admit: (card, world, action) => admitInterface(addresses, card, world, action),
    async admitUpdate(next, previous, world, action) {
      const references = new References(world, next.metadata.project ?? "");
      if (next.spec.securityGroups.join() !== previous.spec.securityGroups.join()) {
        await findGroups(next.spec.securityGroups, references);
      }
      const moves = next.spec.instance !== previous.spec.instance;
      const instance = moves ? await findInstance(next, references) : undefined;
      references.check(action);
      if (instance) await checkPlug(next, instance, world, action);
      return references.writes();
    },
    validateStatus: (next, previous) =>
      immutable(next, previous, ["subnet", "macAddress", "ipAddress", "ipv6Address"]).map((error) => ({
        ...error,
        path: error.path.replace(/^spec/, "status"),
      })),
    async checkDelete(card, world, mode) {
      if (!mode.withProject) await checkUnplugged(card, world);
    },
    removal: ({ spec, status, metadata: { project = "" } }, world) =>
      releaseAddresses(addresses, { ...status, network: spec.network }, project, world),
  };
}

async function admitInterface(
  addresses: Addresses,
  card: NetworkInterface,
  world: World,
  action: string,
): Promise<Admission<Status>> {
  const references = new References(world, card.metadata.project ?? "");
  const place = await findPlace(card.spec, references, world);
  await findGroups(card.spec.securityGroups, references);
  const instance = await findInstance(card, references);
  references.check(action);
  if (instance) await checkPlug(card, instance, world, action);
  const { writes, ...taken } = await takeAddresses(addresses, card, card.spec, place, action);
  return { status: { ...card.status, ...taken }, writes: [...writes, ...references.writes()] };
}

async function findInstance(card: NetworkInterface, references: References): Promise<Instance | undefined> {
  const { instance } = card.spec;
  return instance === undefined ? undefined : references.findAlone(instanceKind, instance, "spec.instance");
}

/** @throws Conflict when the instance has no room for the card, or a card in another network of the same addresses. */
async function checkPlug(
  card: NetworkInterface,
  instance: Instance,
  world: World,
  action: string,
): Promise<void> {
  const { name, project = "" } = instance.metadata;
  const path = "spec.instance";
  const networks = new Set([instance.spec.network]);
  let cards = 1;
  for await (const { metadata, spec } of world.scan(networkInterfaceKind, project)) {
    if (spec.instance !== name || metadata.name === card.metadata.name) continue;
    networks.add(spec.network);
    cards++;
  }
  if (cards >= maxCards) {
    const message = `is "${name}", which has ${cards} network cards already`;
    throw conflict(action, { path, message, allowed: `at most ${maxCards}, its own first one included` });
  }
  networks.delete(card.spec.network);
  const own = await world.find(networkKind, { project, name: card.spec.network });
  for (const other of networks) {
    const network = await world.find(networkKind, { project, name: other });
    if (!own || !network || !overlap(own, network)) continue;
    const message = `is "${name}", which has a card in network "${other}", whose range overlaps that of "${card.spec.network}"`;
    throw conflict(action, { path, message, allowed: "cards in networks of different ranges" });
  }
}

function overlap(a: Network, b: Network): boolean {
  return rangesOf(a).some((range) => rangesOf(b).some((other) => overlaps(range, other)));
}

/** @throws Conflict while the card is plugged in, or an instance that is still there has yet to leave it. */
async function checkUnplugged(card: NetworkInterface, world: World): Promise<void> {
  const { name, project = "" } = card.metadata;
  const wanted = card.spec.instance;
  if (wanted !== undefined) {
    throw new StrataError(
      "Conflict",
      `cannot delete network interface "${name}": it is attached to instance "${wanted}"; detach it first ` +
        `(PATCH it with {"spec":{"instance":null}})`,
    );
  }
  const leaving = card.status.instance;
  if (leaving === undefined || !(await world.find(instanceKind, { project, name: leaving }))) return;
  throw new StrataError(
    "Conflict",
    `cannot delete network interface "${name}": it is still being detached from instance "${leaving}"; try again later`,
  );
}
