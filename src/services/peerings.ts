import { formatRange, overlaps } from "../core/ip-range.ts";
import { resourceKey } from "../kinds/keys.ts";
import type { Kind, ResourceOf } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { type Peering, peeringKind } from "../kinds/peering.ts";
import { routeTableKind } from "../kinds/route-table.ts";
import { toStored } from "../kinds/stored.ts";
import type { Write } from "../store/store.ts";
import type { Admission, KindHooks, World } from "./hooks.ts";
import { rangesOf } from "./network-ranges.ts";
import { conflict, invalid } from "./parse.ts";
import { References, refuseWhileUsed, rewriteGuard, usersInMessage } from "./references.ts";

/**
 * Two networks joined, where every address means one card seen from either: their ranges do not overlap, nor do those
 * of the peers that one network has. Within a project one peering joins them; between projects each side creates one,
 * and neither learns anything of the other's network, not even whether it exists, before both have.
 *
 * A creation rewrites a key of the pair, so that two sides created at once see one another, and a key of each network
 * that is about to be joined, so that its peers are compared with all others.
 */
type Hooks =
  ResourceOf<typeof peeringKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

type Status = Peering["status"];

const active: Status = { state: "active", message: "" };

export const peeringHooks: Hooks = {
  admit: admitPeering,
  closing: async ({ metadata: { project = "" } }, world) => [
    await rewriteGuard(peeringKind as Kind, project, world),
  ],
  async checkDelete(peering, world, mode) {
    if (mode.withProject) return;
    const { name, project } = peering.metadata;
    const users: string[] = [];
    for await (const table of world.scan(routeTableKind, project)) {
      if (table.spec.routes.some((route) => route.via === name)) {
        users.push(`route table "${table.metadata.name}"`);
      }
      if (users.length > usersInMessage) break;
    }
    refuseWhileUsed(`peering "${name}"`, users, "take their routes by it away first");
  },
  async removal(peering, world) {
    const pair = pairOf(peering);
    const other = pair.within ? undefined : await findOtherSide(pair, world);
    if (!other) return [{ delete: pairKey(pair) }];
    return [replaceStatus(other, waitingFor(peering.metadata.project ?? "", pairOf(other)))];
  },
};

/** A network by its project and name, which need not exist. */
interface Side {
  project: string;
  network: string;
}

interface Pair {
  own: Side;
  peer: Side;
  /** Both in one project. */
  within: boolean;
}

function pairOf({ metadata: { project = "" }, spec }: Peering): Pair {
  const { network, peerNetwork, peerProject = project } = spec;
  const own = { project, network };
  return { own, peer: { project: peerProject, network: peerNetwork }, within: peerProject === project };
}

/** @throws Invalid, Conflict */
async function admitPeering(peering: Peering, world: World, action: string): Promise<Admission<Status>> {
  const pair = pairOf(peering);
  const { own, peer, within } = pair;
  if (within && own.network === peer.network) {
    throw invalid(action, [
      {
        path: "spec.peerNetwork",
        message: `is "${peer.network}", the network itself`,
        allowed: "another network",
      },
    ]);
  }
  const references = new References(world, own.project);
  const network = await references.find(networkKind, own.network, "spec.network");
  if (within) await references.find(networkKind, peer.network, "spec.peerNetwork");
  references.check(action);
  const pairGuard = await guard(pairKey(pair), world);
  await refuseSecond(peering, pair, world, action);
  const peerNetwork = await world.find(networkKind, { project: peer.project, name: peer.network });
  const other = within ? undefined : await findOtherSide(pair, world);
  const joined = within || (other !== undefined && peerNetwork?.metadata.deletedAt === undefined);
  const writes = [...references.writes(), pairGuard];
  if (!network || !peerNetwork || !joined) {
    return { status: waitingFor(peer.project, pair), writes };
  }
  for (const { metadata } of [network, peerNetwork]) {
    writes.push(await guard(peeringGuardKey(metadata.uid), world));
  }
  checkApart(network, peerNetwork, action);
  // The own peers may be named; those of the other project's network may not.
  await checkPeers(network, peerNetwork, pair, true, world, action);
  await checkPeers(peerNetwork, network, pair, within, world, action);
  return { status: active, writes: other ? [...writes, replaceStatus(other, active)] : writes };
}

async function guard(key: string, world: World): Promise<Write> {
  const entry = await world.store.get(key);
  return { put: key, value: {}, ifRevision: entry?.revision ?? 0 };
}

/** Rewritten whenever the network gets an active peering. */
export function peeringGuardKey(networkUid: string): string {
  return `/allocations/peerings/${networkUid}`;
}

function pairKey({ own, peer }: Pair): string {
  const sides = [own, peer].map(({ project, network }) => `${project}/${network}`);
  return `/allocations/peering-pairs/${sides.sort().join("+")}`;
}

function waitingFor(project: string, { own, peer }: Pair): Status {
  const theirs = `network "${peer.network}" with network "${own.network}" of project "${own.project}"`;
  return {
    state: "waiting",
    message: `waiting for project "${project}" to create a peering of its ${theirs}`,
  };
}

/** The peering by which the peer's project consents. */
async function findOtherSide({ own, peer }: Pair, world: World): Promise<Peering | undefined> {
  for await (const candidate of world.scan(peeringKind, peer.project)) {
    const { spec, metadata } = candidate;
    if (metadata.deletedAt !== undefined || spec.network !== peer.network) continue;
    if (spec.peerProject === own.project && spec.peerNetwork === own.network) return candidate;
  }
  return undefined;
}

/** @throws Conflict for a second peering of the same two networks in this project, either way round. */
async function refuseSecond(peering: Peering, pair: Pair, world: World, action: string): Promise<void> {
  const key = pairKey(pair);
  for await (const other of world.scan(peeringKind, peering.metadata.project)) {
    if (pairKey(pairOf(other)) !== key) continue;
    throw conflict(action, {
      path: "spec.peerNetwork",
      message: `is "${pair.peer.network}", which peering "${other.metadata.name}" joins with network "${pair.own.network}" already`,
      allowed: "two networks that have no peering yet",
    });
  }
}

/** @throws Conflict when the ranges of the two overlap. */
function checkApart(network: Network, peer: Network, action: string): void {
  for (const range of rangesOf(network)) {
    const other = rangesOf(peer).find((one) => overlaps(one, range));
    if (!other) continue;
    throw conflict(action, {
      path: "spec.peerNetwork",
      message:
        `is "${peer.metadata.name}", whose range ${formatRange(other)} overlaps ${formatRange(range)} of network ` +
        `"${network.metadata.name}"`,
      allowed: "a network of other ranges",
    });
  }
}

/** @throws Conflict when the range of its new peer overlaps that of another peer of the network. */
async function checkPeers(
  network: Network,
  newcomer: Network,
  pair: Pair,
  mayName: boolean,
  world: World,
  action: string,
): Promise<void> {
  const ranges = rangesOf(newcomer);
  const peers = await activePeers(network, world);
  const other = peers.find((peer) =>
    rangesOf(peer).some((one) => ranges.some((range) => overlaps(one, range))),
  );
  if (!other) return;
  const [name, of] = [network.metadata.name, newcomer.metadata.name];
  throw conflict(action, {
    path: "spec.peerNetwork",
    message:
      `is "${pair.peer.network}", but network "${name}" has a peer already` +
      `${mayName ? ` ("${other.metadata.name}")` : ""} whose range overlaps that of network "${of}"`,
    allowed: "networks whose peers have ranges of their own",
  });
}

async function activePeers(network: Network, world: World): Promise<Network[]> {
  const { name, project = "" } = network.metadata;
  const peers: Network[] = [];
  for await (const peering of world.scan(peeringKind, project)) {
    if (peering.status.state !== "active") continue;
    const { own, peer, within } = pairOf(peering);
    const side = own.network === name ? peer : within && peer.network === name ? own : undefined;
    const found = side && (await world.find(networkKind, { project: side.project, name: side.network }));
    if (found) peers.push(found);
  }
  return peers;
}

function replaceStatus(peering: Peering, status: Status): Write {
  const put = resourceKey(peeringKind, {
    name: peering.metadata.name,
    project: peering.metadata.project ?? "",
  });
  return { put, value: toStored({ ...peering, status }), ifRevision: peering.metadata.revision };
}
