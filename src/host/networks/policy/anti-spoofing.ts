/**
 * Frames as they come from guests' ports. A card may say only what its port, hardware address and addresses allow; all
 * else ends here, also from ports that have no card (yet). Only ARP, IPv4 and IPv6 pass, without VLAN tags.
 */
import type { CardPolicy } from "../networks.ts";
import type { ElementSet, Table } from "./ruleset.ts";

export const frameTable = "strata";

export function antiSpoofingTable(cards: readonly CardPolicy[]): Table {
  const set = (type: string, keys: string[]): ElementSet => ({
    kind: "set",
    declaration: `type ${type};`,
    elements: new Map(keys.map((key) => [key, ""])),
  });
  const port = ({ port, macAddress }: CardPolicy) => `"${port}" . ${macAddress}`;
  return {
    family: "bridge",
    name: frameTable,
    sets: new Map([
      ["cards", set("ifname . ether_addr", cards.map(port))],
      [
        "cards4",
        set(
          "ifname . ether_addr . ipv4_addr",
          cards.map((card) => `${port(card)} . ${card.ipAddress}`),
        ),
      ],
      [
        "cards6",
        set(
          "ifname . ether_addr . ipv6_addr",
          cards.flatMap((card) =>
            card.ipv6Address === undefined ? [] : [`${port(card)} . ${card.ipv6Address}`],
          ),
        ),
      ],
    ]),
    chains: new Map([
      ["from-ports", { base: "type filter hook prerouting priority -300; policy accept;", rules }],
    ]),
  };
}

/** Types of neighbour discovery and of multicast listeners that a guest needs to say from its link-local address. */
const linkLocalTypes =
  "{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld-listener-report, mld-listener-done, mld2-listener-report }";

const rules: readonly string[] = [
  // Most frames are this, and none of what follows is TCP: one lookup for them.
  "meta l4proto tcp iifname . ether saddr . ip saddr @cards4 accept",
  "meta l4proto tcp iifname . ether saddr . ip6 saddr @cards6 accept",
  "iifname . ether saddr != @cards drop",
  // What only gateways say.
  "ether type ip udp sport 67 udp dport 68 drop",
  "ether type ip6 udp sport 547 udp dport 546 drop",
  "icmpv6 type { nd-router-advert, nd-redirect } drop",
  "icmp type { redirect, router-advertisement } drop",
  "iifname . ether saddr . ip saddr @cards4 accept",
  "iifname . ether saddr . ip6 saddr @cards6 accept",
  // 0.0.0.0: a guest asks whether an address is free before it takes it (RFC 5227).
  "ether type arp iifname . arp saddr ether . arp saddr ip @cards4 accept",
  "ether type arp arp operation request arp saddr ip 0.0.0.0 iifname . arp saddr ether @cards accept",
  "ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept",
  `ip6 saddr { fe80::/10, :: } icmpv6 type ${linkLocalTypes} accept`,
  "ip6 saddr fe80::/10 udp sport 546 udp dport 547 accept",
  "drop",
];
