/** The two ends of a trace: from what a person writes to whom it means. Pure. */
import { StrataError } from "../../core/errors.ts";
import { formatIp, type IpAddress, type IpFamily, parseIp } from "../../core/ip-range.ts";
import { didYouMean } from "../../core/spelling.ts";
import type { Address } from "../address.ts";
import type { Network } from "../network.ts";
import type { Subnet } from "../subnet.ts";
import type { Protocol } from "./rules.ts";
import {
  type Card,
  cardAddress,
  cardsOf,
  cardTitle,
  isLocal,
  type NetworkWorld,
  named,
  projectOf,
} from "./world.ts";

/** RFC 5737, RFC 3849. */
const someOutside: Record<IpFamily, string> = { 4: "198.51.100.1", 6: "2001:db8::1" };

export const metadataAddress = "169.254.169.254";

export type End =
  | { type: "card"; card: Card; network: Network; address: IpAddress }
  | { type: "host" }
  /** `given`: false when it stands for any address out there. */
  | { type: "outside"; address: IpAddress; given: boolean }
  /** A floating address. */
  | { type: "address"; floating: Address; address: IpAddress }
  | { type: "gateway"; network: Network; subnet: Subnet; address: IpAddress }
  | { type: "metadata"; address: IpAddress }
  /** In a network's range, and nobody has it. */
  | { type: "nobody"; network: Network; address: IpAddress };

export interface Target {
  end: string;
  protocol: Protocol;
  /** With tcp and udp. */
  port?: number;
}

/** `web:80`, `10.0.0.7:53/udp`, `[fd00::7]:80`, `web/icmp`. @throws Invalid */
export function parseTarget(text: string): Target {
  const wrong = new StrataError(
    "Invalid",
    `"${text}" is not where a packet can go: write TO:PORT, TO:PORT/udp or TO/icmp, such as web:80 or [fd00::7]:53/udp`,
  );
  const ping = /^(.+)\/icmp$/.exec(text);
  if (ping) return { end: unbracketed(ping[1] ?? ""), protocol: "icmp" };
  const match = /^(\[[^\]]+\]|[^:[\]]+):(\d{1,5})(?:\/(tcp|udp))?$/.exec(text);
  const port = Number(match?.[2]);
  if (!match?.[1] || port < 1 || port > 65_535) throw wrong;
  return { end: unbracketed(match[1]), protocol: match[3] === "udp" ? "udp" : "tcp", port };
}

function unbracketed(text: string): string {
  return text.replace(/^\[(.*)\]$/, "$1");
}

/** What a name or an address means in `project`. `near`: the other end's network, whose addresses come first. */
export function resolveEnd(
  world: NetworkWorld,
  text: string,
  context: { project: string; family: IpFamily; near?: Network },
): End {
  if (text === "host") return { type: "host" };
  if (text === "outside") return { type: "outside", address: outsideAddress(context.family), given: false };
  const address = parseIp(text);
  return address ? endOfAddress(world, address, context) : endOfInstance(world, text, context);
}

function endOfInstance(
  world: NetworkWorld,
  text: string,
  { project, family, near }: { project: string; family: IpFamily; near?: Network },
): End {
  const [first = "", second] = text.split("/");
  const ref = second === undefined ? { project, name: first } : { project: first, name: second };
  const instance = named(world.instances, ref.project, ref.name);
  if (!instance) {
    const guess = didYouMean(
      ref.name,
      world.instances.filter((one) => projectOf(one) === ref.project).map((one) => one.metadata.name),
    );
    throw new StrataError(
      "NotFound",
      `there is no instance "${ref.name}" in project ${ref.project}${guess}; an end is an instance, an address, \`outside\` or \`host\``,
    );
  }
  const cards = cardsOf(world).filter((card) => card.instance === instance);
  const card = cards.find((one) => near && networkOf(world, one) === near) ?? cards[0];
  const network = card && networkOf(world, card);
  if (!card || !network) {
    throw new StrataError("Conflict", `"${ref.name}" has no address yet: it is ${instance.status.state}`);
  }
  const address = cardAddress(card, family);
  if (!address) {
    throw new StrataError(
      "Invalid",
      `${cardTitle(card)} has no IPv${family} address in network ${card.network}`,
    );
  }
  return { type: "card", card, network, address };
}

function endOfAddress(
  world: NetworkWorld,
  address: IpAddress,
  { project, near }: { project: string; near?: Network },
): End {
  const text = formatIp(address);
  if (text === metadataAddress) return { type: "metadata", address };
  const floating = world.addresses.find((one) => one.status.ipAddress === text);
  if (floating) return { type: "address", floating, address };
  if (near && isLocal(near, address)) return endInside(world, near, address);
  const homes = world.networks.filter((network) => isLocal(network, address));
  const taken = homes.filter((network) => endInside(world, network, address).type !== "nobody");
  const own = (networks: readonly Network[]) => networks.filter((network) => projectOf(network) === project);
  const found = [own(taken), taken, own(homes), homes].find((networks) => networks.length > 0);
  const [home, another] = found ?? [];
  if (home && another) {
    const names = (found ?? []).map((network) => network.metadata.name).join(", ");
    throw new StrataError("Invalid", `${text} is in several networks (${names}): name the instance instead`);
  }
  return home ? endInside(world, home, address) : { type: "outside", address, given: true };
}

function endInside(world: NetworkWorld, network: Network, address: IpAddress): End {
  const text = formatIp(address);
  const card = cardsOf(world).find(
    (one) => networkOf(world, one) === network && (one.ipAddress === text || one.ipv6Address === text),
  );
  if (card) return { type: "card", card, network, address };
  const subnet = world.subnets.find(
    (one) =>
      projectOf(one) === projectOf(network) &&
      one.spec.network === network.metadata.name &&
      (one.status.gateway === text || one.status.ipv6Gateway === text),
  );
  return subnet ? { type: "gateway", network, subnet, address } : { type: "nobody", network, address };
}

export function networkOf(world: NetworkWorld, card: Card): Network | undefined {
  return named(world.networks, card.project, card.network);
}

export function endTitle(end: End): string {
  switch (end.type) {
    case "card":
      return cardTitle(end.card);
    case "host":
      return "the host";
    case "outside":
      return end.given ? formatIp(end.address) : `the outside (such as ${formatIp(end.address)})`;
    case "address":
      return `address ${end.floating.metadata.name}`;
    case "gateway":
      return `the gateway of subnet ${end.subnet.metadata.name}`;
    case "metadata":
      return "the metadata service";
    case "nobody":
      return formatIp(end.address);
  }
}

/** Stands for any address outside. */
export function outsideAddress(family: IpFamily): IpAddress {
  const address = parseIp(someOutside[family]);
  if (!address) throw new StrataError("Internal", `${someOutside[family]} is no address`);
  return address;
}
