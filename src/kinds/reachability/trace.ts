/**
 * Whether a packet passes, question by question: where its two ends are, which route it takes, what translates it, and
 * which rule of which group lets it out and in. Only a new connection is asked for: answers pass by themselves.
 *
 * A trace says what the rules say. It does not look at the kernel, nor does it know whether anybody listens.
 */
import { hasCode } from "../../core/errors.ts";
import { formatIp, type IpAddress, type IpFamily, parseIp } from "../../core/ip-range.ts";
import type { Address } from "../address.ts";
import type { Instance } from "../instance.ts";
import type { PublishedPort } from "../published-port.ts";
import { type End, endTitle, outsideAddress, resolveEnd, type Target } from "./ends.ts";
import { askGroups, type GroupVerdict } from "./groups.ts";
import { addressesOf, publishedBy, publishedFor, translationTo } from "./publication.ts";
import { routeFor } from "./routes.ts";
import {
  type Card,
  cardTitle,
  type NetworkWorld,
  named,
  nameSeenFrom,
  peerLinksOf,
  projectOf,
} from "./world.ts";

export interface TraceQuery {
  project: string;
  /** An instance, an address, `outside` or `host`. */
  from: string;
  to: Target;
  /** Of ends that are given by name. */
  family: IpFamily;
}

export type Stage =
  | "source"
  | "destination"
  | "route"
  | "peering"
  | "translation"
  | "egress"
  | "ingress"
  | "return"
  | "host";

export interface TraceStep {
  stage: Stage;
  /** `note`: nothing is decided here. */
  result: "pass" | "drop" | "note";
  text: string;
  /** What the security groups were asked, in this order. */
  groups?: readonly GroupVerdict[];
}

export interface Trace {
  passes: boolean;
  from: string;
  to: string;
  protocol: string;
  port?: number;
  /** One sentence. */
  verdict: string;
  steps: readonly TraceStep[];
}

/** @throws NotFound, Invalid or Conflict when an end is nobody. */
export function traceRoute(world: NetworkWorld, query: TraceQuery): Trace {
  const { end: _end, ...traffic } = query.to;
  const { source, target } = resolveEnds(world, query);
  const steps = stepsOf({ world, traffic }, source, target);
  const blocked = steps.find((step) => step.result === "drop");
  return {
    passes: blocked === undefined,
    from: endTitle(source),
    to: endTitle(target),
    ...traffic,
    verdict: blocked === undefined ? "passes" : `does not pass: ${blocked.text}`,
    steps,
  };
}

/** Each end may help to understand the other: two networks can have the same addresses. */
function resolveEnds(world: NetworkWorld, { project, from, to, family }: TraceQuery) {
  const context = { project, family: parseIp(from)?.family ?? parseIp(to.end)?.family ?? family };
  const near = (end: End) => ("network" in end ? { ...context, near: end.network } : context);
  const sender = (end: End) => asSender(world, end);
  if (parseIp(from) === undefined) {
    const first = sender(resolveEnd(world, from, context));
    const target = resolveEnd(world, to.end, near(first));
    // An instance with several cards sends by the one in the target's network.
    return { source: sender(resolveEnd(world, from, near(target))), target };
  }
  const guess = near(guessedEnd(world, to.end, context) ?? { type: "host" });
  const source = sender(resolveEnd(world, from, guess));
  return { source, target: resolveEnd(world, to.end, near(source)) };
}

/** Undefined for an address that several networks have. */
function guessedEnd(...[world, text, context]: Parameters<typeof resolveEnd>): End | undefined {
  try {
    return resolveEnd(world, text, context);
  } catch (error) {
    if (!hasCode(error, "Invalid")) throw error;
    return undefined;
  }
}

/** Who has a floating address sends from it. */
function asSender(world: NetworkWorld, end: End): End {
  if (end.type !== "address" || end.floating.spec.instance === undefined) return end;
  return resolveEnd(world, end.floating.spec.instance, { project: projectOf(end.floating), family: 4 });
}

interface Context {
  world: NetworkWorld;
  traffic: Omit<Target, "end">;
}
type CardEnd = Extract<End, { type: "card" }>;
type Steps = readonly TraceStep[];

function stepsOf(context: Context, source: End, target: End): Steps {
  const start = say("source", "note", describe(source));
  switch (source.type) {
    case "card":
      return [...start, ...running(source.card.instance, "sends"), ...fromCard(context, source, target)];
    case "host":
      return [...start, ...fromHost(context, target)];
    case "outside":
      return [...start, ...fromOutside(context, source.address, target)];
    default:
      return say("source", "drop", `nobody sends from ${endTitle(source)}`);
  }
}

function fromCard(context: Context, source: CardEnd, target: End): Steps {
  switch (target.type) {
    case "card":
      return [...say("destination", "note", describe(target)), ...betweenCards(context, source, target)];
    case "gateway":
      return toGateway(context, source, target);
    case "metadata":
      return toMetadata(context, source);
    case "nobody":
      return say(
        "destination",
        "drop",
        `no card of network ${target.network.metadata.name} has ${formatIp(target.address)}`,
      );
    case "outside":
      return leaving(context, source, target.address);
    case "address":
      return toAddress(context, source, target.floating, target.address);
    case "host":
      return toHost(context, source);
  }
}

/** An address of a neighbour is translated within the network; one of somebody else by the host. */
function toAddress(context: Context, source: CardEnd, floating: Address, address: IpAddress): Steps {
  const { card, text } = translationTo(context.world, floating);
  const own = card && parseIp(card.ipAddress);
  if (own && card.project === source.card.project && card.network === source.card.network) {
    const neighbour: CardEnd = { type: "card", card, network: source.network, address: own };
    return [...say("translation", "pass", text), ...betweenCards(context, source, neighbour)];
  }
  const seen = floatingAddressOf(context.world, source.card) ?? address;
  return [...leaving(context, source, address), ...arriving(context, floating, seen)];
}

function betweenCards(context: Context, source: CardEnd, target: CardEnd): Steps {
  if (source.card.instance === target.card.instance) {
    return say("destination", "pass", "the packet does not leave the instance");
  }
  const awake = running(target.card.instance, "receives");
  const same = source.network === target.network;
  // A group's members are its cards in the network where the rule is asked.
  const members = (card: Card) => (same ? card.securityGroups : []);
  const rules = [
    ask(context, "egress", source.card, { address: target.address, groups: members(target.card) }),
    ask(context, "ingress", target.card, { address: source.address, groups: members(source.card) }),
  ];
  if (same) {
    const { text } = routeFor(context.world, source.network, source.card.subnet, target.address);
    return [...awake, ...say("route", "pass", text), ...rules];
  }
  const route = peeredRoute(context, source, target);
  if (route.some((step) => step.result === "drop")) return [...awake, ...route];
  return [...awake, ...route, ...rules, ...returnRoute(context, source, target)];
}

function peeredRoute({ world }: Context, source: CardEnd, target: CardEnd): Steps {
  const own = source.network.metadata.name;
  const { name: other } = target.network.metadata;
  const title = nameSeenFrom(source.card.project, { project: target.card.project, name: other });
  const links = peerLinksOf(world, source.network).filter((link) => link.other === target.network);
  const link = links.find(({ active }) => active) ?? links[0];
  if (!link) return say("peering", "drop", `no peering joins the networks ${own} and ${title}`);
  const { name } = link.peering.metadata;
  if (!link.active) {
    const why = link.peering.status.message || "the other project has not created its side";
    return say("peering", "drop", `peering ${name} of the networks ${own} and ${title} waits: ${why}`);
  }
  const route = routeFor(world, source.network, source.card.subnet, target.address);
  const leads = route.target === "peering" && route.link.other === target.network;
  return [
    ...say("peering", "pass", `peering ${name} joins the networks ${own} and ${title}`),
    ...say("route", leads ? "pass" : "drop", leads ? route.text : `${route.text}, not by peering ${name}`),
  ];
}

function returnRoute({ world }: Context, source: CardEnd, target: CardEnd): Steps {
  const route = routeFor(world, target.network, target.card.subnet, source.address);
  const leads = route.target === "peering" && route.link.other === source.network;
  const text = leads ? `answers: ${route.text}` : `answers do not come back: ${route.text}`;
  return say("return", leads ? "pass" : "drop", text);
}

function toGateway({ traffic }: Context, source: CardEnd, target: Extract<End, { type: "gateway" }>): Steps {
  const { protocol, port } = traffic;
  if (source.network !== target.network) {
    const own = target.network.metadata.name;
    return say("destination", "drop", `gateways of network ${own} answer its own instances only`);
  }
  const dhcp = protocol === "udp" && (port === 67 || port === 547);
  const served = protocol === "icmp" || port === 53 || dhcp;
  const text = `the gateway ${formatIp(target.address)} of network ${target.network.metadata.name} answers DNS, DHCP and ping, and nothing else; security groups are not asked`;
  return say("destination", served ? "pass" : "drop", text);
}

function toMetadata({ traffic }: Context, source: CardEnd): Steps {
  if (traffic.protocol !== "tcp" || traffic.port !== 80) {
    return say("destination", "drop", "the metadata service answers on TCP port 80 only");
  }
  const { name } = source.card.instance.metadata;
  const { enabled, tokens } = source.card.instance.spec.metadata;
  if (!enabled) return say("destination", "drop", `${name} has its metadata service switched off`);
  const how = tokens === "required" ? " with a session token (IMDSv2)" : "";
  return say("destination", "pass", `the metadata service answers ${name}${how}`);
}

/** By the way out, with the address that it has there. */
function leaving({ world, traffic }: Context, source: CardEnd, address: IpAddress): Steps {
  const route = routeFor(world, source.network, source.card.subnet, address);
  const floating = address.family === 4 ? floatingOf(world, source.card) : undefined;
  const leaves = route.target === "internet" || (floating !== undefined && route.target === "none");
  const by =
    leaves && route.target !== "internet"
      ? `address ${floating?.metadata.name} gives it a way to the outside, whatever the routes of subnet ${source.card.subnet} say`
      : route.text;
  const as = floating
    ? `outside, its address is ${floating.status.ipAddress} (address ${floating.metadata.name})`
    : "outside, its address is the host's";
  return [
    ...unseenPeers(world, source, address),
    ...say("route", leaves ? "pass" : "drop", by),
    ask({ world, traffic }, "egress", source.card, { address, groups: [] }),
    ...(leaves ? say("translation", "note", as) : []),
  ];
}

/** Ranges of other projects' networks are theirs to show. */
function unseenPeers(world: NetworkWorld, { network }: CardEnd, address: IpAddress): Steps {
  return peerLinksOf(world, network)
    .filter(({ active, other }) => active && other === undefined)
    .flatMap(({ peering, otherProject, otherName }) =>
      say(
        "peering",
        "note",
        `peering ${peering.metadata.name} leads to network ${otherProject}/${otherName}, which cannot be seen from here; this trace does not hold if ${formatIp(address)} is there`,
      ),
    );
}

/** By what is published. `from`: whom the instance sees. */
function arriving(context: Context, published: Address | PublishedPort, from: IpAddress): Steps {
  const { card, port, text } = translationTo(context.world, published);
  if (!card) return say("translation", "drop", text);
  return [
    ...say("translation", "pass", text),
    ...running(card.instance, "receives"),
    ask(context, "ingress", card, { address: from, groups: [], port }),
  ];
}

const ownMatter = "whether the host itself answers is a matter of its own firewall and services";

function toHost(context: Context, source: CardEnd): Steps {
  const { world, traffic } = context;
  const host = source.card.instance.status.host ?? "";
  const uplink = parseIp(source.network.status.hostAddresses[host] ?? "") ?? source.address;
  const published = publishedBy(world, traffic.protocol, traffic.port);
  // A guest without an address of its own is seen as the host's address that it spoke to, which is not known here.
  const seen = floatingAddressOf(world, source.card) ?? outsideAddress(4);
  const after = published ? arriving(context, published, seen) : say("host", "note", ownMatter);
  return [...leaving(context, source, uplink), ...after];
}

function fromHost({ world, traffic }: Context, target: End): Steps {
  const published =
    target.type === "address"
      ? target.floating
      : target.type === "host"
        ? publishedBy(world, traffic.protocol, traffic.port)
        : undefined;
  if (published) {
    const { card, text } = translationTo(world, published);
    return [...say("translation", card ? "pass" : "drop", text), ...(card ? trusted : [])];
  }
  if (target.type === "nobody") {
    return say("destination", "drop", `no card of network ${target.network.metadata.name} has it`);
  }
  if (target.type !== "card") {
    return say("host", "note", `nothing of Strata's is between the host and ${endTitle(target)}`);
  }
  const { hostRoute, hostAddresses } = target.network.status;
  const from = hostAddresses[target.card.instance.status.host ?? ""] ?? "the network's host address";
  const { name } = target.network.metadata;
  const how = `the host's own routes do not lead into network ${name}: send from ${from}, as \`ping -I\` and \`ssh -b\` do`;
  return [
    ...say("destination", "note", describe(target)),
    ...running(target.card.instance, "receives"),
    ...(hostRoute ? [] : say("route", "note", how)),
    ...trusted,
  ];
}

function fromOutside(context: Context, from: IpAddress, target: End): Steps {
  const { world, traffic } = context;
  switch (target.type) {
    case "address":
      return arriving(context, target.floating, from);
    case "card":
      return outsideToCard(context, from, target);
    case "host": {
      const published = publishedBy(world, traffic.protocol, traffic.port);
      return published
        ? arriving(context, published, from)
        : say("host", "note", `not published: ${ownMatter}`);
    }
    case "outside":
      return say("destination", "drop", "neither end is in a network of Strata's");
    default:
      return say("destination", "drop", `${endTitle(target)} cannot be reached from outside`);
  }
}

/** Its private address is not reached, but what is published for it. */
function outsideToCard(context: Context, from: IpAddress, target: CardEnd): Steps {
  const { world, traffic } = context;
  const { card } = target;
  const { instance } = card;
  const own = card.interface === undefined;
  const published =
    floatingOf(world, card) ??
    (own ? publishedFor(world, instance, traffic.protocol, traffic.port) : undefined);
  const what =
    traffic.port === undefined
      ? cardTitle(card)
      : `${traffic.protocol} port ${traffic.port} of ${cardTitle(card)}`;
  const missing = `${what} is not published: no address is assigned to it and no port of the host leads there`;
  return [
    ...say("destination", "note", describe(target)),
    ...running(instance, "receives"),
    ...say(
      "translation",
      published ? "pass" : "drop",
      published ? translationTo(world, published).text : missing,
    ),
    ask(context, "ingress", card, { address: from, groups: [] }),
  ];
}

const trusted = say("ingress", "pass", "the host is trusted: what it sends to its guests passes every group");

function floatingAddressOf(world: NetworkWorld, card: Card): IpAddress | undefined {
  return parseIp(floatingOf(world, card)?.status.ipAddress ?? "");
}

/** Floating addresses belong to instances' own cards. */
function floatingOf(world: NetworkWorld, card: Card): Address | undefined {
  return card.interface === undefined ? addressesOf(world, card.instance)[0] : undefined;
}

function ask(
  { world, traffic }: Context,
  direction: "ingress" | "egress",
  card: Card,
  peer: { address: IpAddress; groups: readonly string[]; port?: number | undefined },
): TraceStep {
  const port = peer.port ?? traffic.port;
  const packet = {
    protocol: traffic.protocol,
    ...(port === undefined ? {} : { port }),
    peer: peer.address,
    peerGroups: new Set(peer.groups),
  };
  const groups = card.securityGroups.map((name) => ({
    name,
    group: named(world.securityGroups, card.project, name),
  }));
  const { allowed, text, verdicts } = askGroups(direction, cardTitle(card), groups, packet);
  return { stage: direction, result: allowed ? "pass" : "drop", text, groups: verdicts };
}

function running(instance: Instance, verb: string): Steps {
  const { state } = instance.status;
  return state === "running"
    ? []
    : say("host", "note", `${instance.metadata.name} is ${state}: nobody ${verb}`);
}

function say(stage: Stage, result: TraceStep["result"], text: string): TraceStep[] {
  return [{ stage, result, text }];
}

function describe(end: End): string {
  if (end.type !== "card") return endTitle(end);
  const { card, network, address } = end;
  const groups = card.securityGroups.join(", ") || "none";
  return `${cardTitle(card)} has ${formatIp(address)} in subnet ${card.subnet} of network ${network.metadata.name}; security groups: ${groups}`;
}
