/** A network as one picture: what a tree on the terminal and a drawing show of it. Pure, and plain data for --json. */
import { parseIp } from "../../core/ip-range.ts";
import type { Network } from "../../kinds/network.ts";
import { outsideAddress } from "../../kinds/reachability/ends.ts";
import {
  type CardsParty,
  formatPermitted,
  type Party,
  permitted,
} from "../../kinds/reachability/permitted.ts";
import { addressesOf, publishedPortsOf, targetPortOf } from "../../kinds/reachability/publication.ts";
import { routeFor } from "../../kinds/reachability/routes.ts";
import {
  type Card,
  cardsOf,
  cardTitle,
  type NetworkWorld,
  named,
  nameSeenFrom,
  peerLinksOf,
  projectOf,
} from "../../kinds/reachability/world.ts";
import type { Subnet } from "../../kinds/subnet.ts";
import { routeText } from "../show-networks.ts";

export interface NetworkPicture {
  name: string;
  project: string;
  state: string;
  message: string;
  cidr: string;
  ipv6Cidr?: string;
  domain: string;
  internet: boolean;
  hostRoute: boolean;
  /** Whoever on the host sends from this address reaches the network's instances. By host. */
  hostAddresses: Record<string, string>;
  subnets: SubnetPicture[];
  published: PublishedPicture[];
  peerings: { name: string; peer: string; state: string; range?: string; message: string }[];
  /** Rows talk to columns; both are the same parties in the same order. */
  parties: string[];
  /** Who of `parties` has which lists of groups; for parties of cards only. */
  permitted: string[][];
}

export interface SubnetPicture {
  name: string;
  cidr: string;
  ipv6Cidr?: string;
  gateway?: string;
  routeTable?: string;
  routes: string[];
  cards: CardPicture[];
}

export interface CardPicture {
  title: string;
  instance: string;
  state: string;
  type: string;
  ipAddress: string;
  ipv6Address?: string;
  securityGroups: string[];
  /** The party it belongs to. */
  party: string;
}

export interface PublishedPicture {
  type: "address" | "port";
  name: string;
  /** `203.0.113.5`, or `8080/tcp`. */
  outer: string;
  instance: string;
  /** Port of the instance; absent for an address. */
  port?: number;
  state: string;
  /** What the outside may do through it; empty: nothing, by the instance's groups. */
  allowed: string;
}

const outside: Party = { type: "outside", title: "outside" };

export function networkPicture(world: NetworkWorld, network: Network): NetworkPicture {
  const { name } = network.metadata;
  const project = projectOf(network);
  const cards = cardsOf(world).filter((card) => card.network === name && card.project === project);
  const subnets = world.subnets.filter((one) => one.spec.network === name && projectOf(one) === project);
  const parties = partiesOf(world, network, cards);
  const { status } = network;
  return {
    name,
    project,
    state: network.metadata.deletedAt ? "deleting" : status.state,
    message: status.message,
    cidr: status.cidr ?? network.spec.cidr ?? "",
    ...(status.ipv6Cidr === undefined ? {} : { ipv6Cidr: status.ipv6Cidr }),
    domain: status.domain ?? "",
    internet: network.spec.internet,
    hostRoute: status.hostRoute,
    hostAddresses: status.hostAddresses,
    subnets: subnets
      .toSorted((a, b) => (a.status.index ?? 0) - (b.status.index ?? 0))
      .map((subnet) => subnetPicture(world, network, subnet, cards)),
    published: publishedOf(world, cards),
    peerings: peerLinksOf(world, network).map((link) => ({
      name: link.peering.metadata.name,
      peer: nameSeenFrom(project, { project: link.otherProject, name: link.otherName }),
      state: link.peering.status.state,
      ...(link.other?.status.cidr === undefined ? {} : { range: link.other.status.cidr }),
      message: link.peering.status.message,
    })),
    parties: parties.map((party) => party.title),
    permitted: parties.map((from) => parties.map((to) => cell(world, network, cards, from, to))),
  };
}

function subnetPicture(
  world: NetworkWorld,
  network: Network,
  subnet: Subnet,
  cards: readonly Card[],
): SubnetPicture {
  const { spec, status } = subnet;
  const { name } = subnet.metadata;
  const table =
    spec.routeTable === undefined ? undefined : named(world.routeTables, projectOf(subnet), spec.routeTable);
  const routes = table
    ? table.spec.routes.map(routeText)
    : [
        ...peerLinksOf(world, network)
          .filter((link) => link.active)
          .map(
            (link) => `${link.other?.status.cidr ?? link.otherName} by peering ${link.peering.metadata.name}`,
          ),
        ...(network.spec.internet ? ["everything else internet"] : []),
      ];
  return {
    name,
    cidr: spec.cidr,
    ...(status.ipv6Cidr === undefined ? {} : { ipv6Cidr: status.ipv6Cidr }),
    ...(status.gateway === undefined ? {} : { gateway: status.gateway }),
    ...(spec.routeTable === undefined ? {} : { routeTable: spec.routeTable }),
    routes: ["its network local", ...routes],
    cards: cards.filter((card) => card.subnet === name).map(cardPicture),
  };
}

function cardPicture(card: Card): CardPicture {
  return {
    title: cardTitle(card),
    instance: card.instance.metadata.name,
    state: card.instance.metadata.deletedAt ? "deleting" : card.instance.status.state,
    type: card.instance.spec.type,
    ipAddress: card.ipAddress,
    ...(card.ipv6Address === undefined ? {} : { ipv6Address: card.ipv6Address }),
    securityGroups: [...card.securityGroups],
    party: partyTitle(card.securityGroups),
  };
}

function publishedOf(world: NetworkWorld, cards: readonly Card[]): PublishedPicture[] {
  return cards
    .filter((card) => card.interface === undefined)
    .flatMap((card) => {
      const { instance } = card;
      const allowed = permitted(outside, cardsParty(world, card.securityGroups, [card]), 4);
      const base = { instance: instance.metadata.name };
      return [
        ...addressesOf(world, instance).map((one) => ({
          ...base,
          type: "address" as const,
          name: one.metadata.name,
          outer: one.status.ipAddress ?? "no address yet",
          state: one.status.state,
          allowed: formatPermitted(allowed),
        })),
        ...publishedPortsOf(world, instance).map((one) => {
          const port = targetPortOf(one);
          const { protocol } = one.spec;
          const open = allowed.some[protocol].some(({ first, last }) => first <= port && port <= last);
          return {
            ...base,
            type: "port" as const,
            name: one.metadata.name,
            outer: `${one.spec.port}/${protocol}`,
            port,
            state: one.status.state,
            allowed: open ? `${protocol} ${port}` : "",
          };
        }),
      ];
    });
}

/** Cards by their lists of groups, what is outside, and what the network is joined with. */
function partiesOf(world: NetworkWorld, network: Network, cards: readonly Card[]): Party[] {
  const peers = peerLinksOf(world, network).flatMap(({ active, other, otherProject, otherName }): Party[] => {
    const range = other?.status.cidr;
    if (!active || range === undefined) return [];
    const title = nameSeenFrom(projectOf(network), { project: otherProject, name: otherName });
    const there = cardsOf(world).filter((one) => one.network === otherName && one.project === otherProject);
    return [{ type: "range", title: `network ${title}`, range, parties: cardsParties(world, there) }];
  });
  return [outside, ...cardsParties(world, cards), ...peers];
}

function cardsParties(world: NetworkWorld, cards: readonly Card[]): CardsParty[] {
  const byGroups = Map.groupBy(cards, (card) => partyTitle(card.securityGroups));
  return [...byGroups.values()]
    .map((members) => cardsParty(world, members[0]?.securityGroups ?? [], members))
    .sort((a, b) => (a.title < b.title ? -1 : 1));
}

function partyTitle(groups: readonly string[]): string {
  return groups.length === 0 ? "no group" : groups.toSorted().join("+");
}

function cardsParty(world: NetworkWorld, groups: readonly string[], members: readonly Card[]): CardsParty {
  const project = members[0]?.project ?? "";
  return {
    type: "cards",
    title: partyTitle(groups),
    groups: groups.flatMap((name) => named(world.securityGroups, project, name) ?? []),
    members: members.flatMap((card) => parseIp(card.ipAddress) ?? []),
  };
}

/** What the rules allow, where there is a way at all. */
function cell(world: NetworkWorld, network: Network, cards: readonly Card[], from: Party, to: Party): string {
  const membersOf = (party: Party) =>
    cards.filter((card) => party.type === "cards" && partyTitle(card.securityGroups) === party.title);
  if (from.type !== "cards" && to.type !== "cards") return "";
  if (from.type === "outside" && !membersOf(to).some((card) => isPublished(world, card))) return "";
  if (to.type === "outside" && !membersOf(from).some((card) => leavesFrom(world, network, card))) return "";
  return formatPermitted(permitted(from, to, 4));
}

function isPublished(world: NetworkWorld, { instance, interface: further }: Card): boolean {
  const published = [...addressesOf(world, instance), ...publishedPortsOf(world, instance)];
  return further === undefined && published.length > 0;
}

function leavesFrom(world: NetworkWorld, network: Network, card: Card): boolean {
  if (card.interface === undefined && addressesOf(world, card.instance).length > 0) return true;
  return routeFor(world, network, card.subnet, outsideAddress(4)).target === "internet";
}
