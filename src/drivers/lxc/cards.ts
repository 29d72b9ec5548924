/**
 * How a container's network cards are made, as texts for `ip -batch` and `bridge -batch`. Pure.
 *
 * A card is a pair of interfaces: the port on the network's bridge, made in the network's namespace, and its peer, which
 * is born in the container's namespace with its name and hardware address. All cards are made in the same way, by the
 * hook that runs before the container's init (plug-cards.sh) and by `attach` while it runs, so a card that came later is
 * also there after a reboot from inside.
 *
 * The first card has the default routes. A further one answers the way it was asked: what is sent from its addresses
 * follows a routing table of its own.
 *
 * IPv6 addresses stand alone (/128): neighbours are reached through the gateway, as with DHCPv6 and a prefix that is
 * announced off-link. Nobody looks for duplicates (nodad): addresses are allocated, and services may bind to them at once.
 */
import { assert } from "../../core/errors.ts";
import { renderBridgePort } from "../../host/networks/bridge-port.ts";
import type { GuestNic } from "../driver.ts";

/** The guest's namespace as the hook sees it: an open descriptor cannot become another process's namespace. */
export const hookNetns = "/proc/self/fd/9";

export interface CardTexts {
  /** For ip, in the network's namespace: the pair of interfaces, not joined to the bridge yet. */
  pair: string;
  /** The same, joined and up. Its peer is still down, so nothing passes. */
  outside: string;
  /** For bridge, in the network's namespace, once the port is on its bridge. */
  forwarding: string;
  /** For ip, in the guest's namespace; last. */
  inside: string;
  /** For `ip -6` there: that option is what rules take their family from. */
  inside6: string;
}

/**
 * `mark` becomes the port's alias and says in which run of the guest it was made; `guestNetns` is a path to the guest's namespace.
 */
export function cardTexts(
  nic: GuestNic,
  options: { first: boolean; mark: string; guestNetns: string },
): CardTexts {
  const { name, port, macAddress, mtu } = nic;
  const peer = `peer name ${name} address ${macAddress} mtu ${mtu} netns ${options.guestNetns}`;
  const pair = `link add name ${port} mtu ${mtu} type veth ${peer}\n`;
  const joined = renderBridgePort(nic);
  return {
    pair,
    outside: `${pair}${joined.ip}link set dev ${port} up alias ${options.mark}\n`,
    forwarding: joined.bridge,
    inside: lines(`link set dev ${name} up`, ...addresses(nic), ...routes(nic, options.first)),
    inside6: options.first ? "" : lines(...rules(nic, 6)),
  };
}

/** What `link del` of a card does not take away; each line may fail when there is no such rule. */
export function ruleRemovals(nic: GuestNic): { inside: string; inside6: string } {
  const removals = (family: 4 | 6) =>
    rules(nic, family).map((line) => line.replace(/^rule add /, "rule del "));
  return { inside: lines(...removals(4)), inside6: lines(...removals(6)) };
}

function addresses(nic: GuestNic): string[] {
  const { name, ipAddress, prefixLength, ipv6 } = nic;
  return [
    `address add ${ipAddress}/${prefixLength} broadcast ${broadcastOf(nic)} dev ${name}`,
    ...(ipv6 === undefined ? [] : [`address add ${ipv6.address}/128 dev ${name} nodad`]),
  ];
}

function routes(nic: GuestNic, first: boolean): string[] {
  const { name, gateway, ipv6 } = nic;
  const table = first ? "" : ` table ${tableOf(nic)}`;
  return [
    `route add default via ${gateway} dev ${name}${table}`,
    ...(first ? [] : rules(nic, 4)),
    ...(ipv6 === undefined ? [] : routes6(nic, ipv6, first)),
  ];
}

function routes6(nic: GuestNic, ipv6: NonNullable<GuestNic["ipv6"]>, first: boolean): string[] {
  const { gateway, prefixLength, address } = ipv6;
  const { name } = nic;
  // A link-local gateway needs no route of its own.
  const toGateway = /^fe80:/i.test(gateway) ? [] : [`route add ${gateway}/128 dev ${name}`];
  const via = `via ${gateway} dev ${name}`;
  // Better than what any network's router advertises.
  if (first) return [...toGateway, `route add default ${via} metric 512`];
  // Several cards may be in one subnet: the kernel takes two routes to it if they are not equally good.
  const metric = ` metric ${tableOf(nic) + 1_024}`;
  return [
    ...toGateway.map((route) => route + metric),
    `route add default ${via} table ${tableOf(nic)}`,
    ...(prefixLength === 128 ? [] : [`route add ${prefixOf(address, prefixLength)} ${via}${metric}`]),
  ];
}

function rules(nic: GuestNic, family: 4 | 6): string[] {
  const source = family === 4 ? `${nic.ipAddress}/32` : nic.ipv6 && `${nic.ipv6.address}/128`;
  return source === undefined ? [] : [`rule add from ${source} lookup ${tableOf(nic)}`];
}

/** eth1 has table 1001. Its names are unique in a guest, and so are their numbers. */
function tableOf({ name }: GuestNic): number {
  return 1_000 + (Number(/\d{1,4}$/.exec(name)?.[0] ?? 0) % 10_000);
}

function lines(...texts: readonly string[]): string {
  return texts.map((text) => `${text}\n`).join("");
}

function broadcastOf(nic: GuestNic): string {
  const address = nic.ipAddress.split(".").reduce((value, part) => value * 256 + Number(part), 0);
  const size = 2 ** (32 - nic.prefixLength);
  const last = Math.floor(address / size) * size + size - 1;
  return [24, 16, 8, 0].map((shift) => Math.floor(last / 2 ** shift) % 256).join(".");
}

/** The range that an IPv6 address is in, as `PREFIX/LENGTH`. */
export function prefixOf(address: string, prefixLength: number): string {
  const [head = "", tail] = address.split("::");
  const groups = (text: string | undefined) => (text === undefined || text === "" ? [] : text.split(":"));
  const [left, right] = [groups(head), groups(tail)];
  assert(left.length + right.length <= 8, "an IPv6 address has at most eight groups");
  const middle = tail === undefined ? [] : Array.from({ length: 8 - left.length - right.length }, () => "0");
  const all = [...left, ...middle, ...right].map((group) => Number.parseInt(group, 16));
  const kept = all.map((group, index) => {
    const bits = Math.max(0, Math.min(16, prefixLength - index * 16));
    return group & (0xffff << (16 - bits)) & 0xffff;
  });
  return `${kept.map((group) => group.toString(16)).join(":")}/${prefixLength}`;
}
