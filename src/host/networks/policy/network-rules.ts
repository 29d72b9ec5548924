/**
 * All rules of one network's namespace, from its structure and its policy. Pure.
 *
 * A packet between guests, or between a guest and anything else, is routed and passes the forward hook once
 * (forward-rules.ts), where the groups of the card it comes from and those of the card it goes to are asked.
 *
 * Cards with the same list of groups share a profile, which has a number. A map leads from an address to the number and
 * a small verdict map from the number to the profile's chain: a card costs map elements, never rules. The number is also
 * how a rule recognises another group's cards. It is carried in the packet's mark, which nothing reads after routing and
 * which ends with the namespace.
 *
 * Base chains accept and have a drop as their last rule. While tables are replaced, the kernel calls old chains without
 * their rules for a moment; with a policy of drop they would take packets of every connection.
 */
import type { IpFamily } from "../../../core/ip-range.ts";
import type { GroupPolicy, NetworkPolicy, RulePolicy } from "../networks.ts";
import { outsideMark } from "../outside-mark.ts";
import { antiSpoofingTable, frameTable } from "./anti-spoofing.ts";
import type { FirewallNetwork } from "./firewall.ts";
import {
  addForwarding,
  allow,
  allowedMark,
  hostRules,
  metadataAddress,
  networkTable,
  replies,
} from "./forward-rules.ts";
import { formatInterval, type GroupSets, type PeerTraffic, planGroupSets } from "./group-sets.ts";
import { familyOf } from "./policy-values.ts";
import type { Chain, ElementSet, Ruleset, Table } from "./ruleset.ts";

/** All that a network's namespace has. */
export const networkTables: readonly string[] = [`inet ${networkTable}`, `bridge ${frameTable}`];

export const emptyPolicy: NetworkPolicy = { cards: [], groups: [], publishedPorts: [], addresses: [] };

/** Numbers of profiles; the same list of groups keeps its number, so that a change stays small. */
export class ProfileNumbers {
  readonly #numbers = new Map<string, number>();
  #last = 0;

  of(groups: readonly string[]): number {
    const key = profileKey(groups);
    const number = this.#numbers.get(key) ?? ++this.#last;
    this.#numbers.set(key, number);
    return number;
  }

  /** Forgets lists that no card has. */
  keep(profiles: readonly (readonly string[])[]): void {
    const used = new Set(profiles.map(profileKey));
    for (const key of this.#numbers.keys()) if (!used.has(key)) this.#numbers.delete(key);
  }
}

function profileKey(groups: readonly string[]): string {
  return [...new Set(groups)].sort().join(" ");
}

type Direction = "in" | "out";

interface Profile {
  number: number;
  groups: readonly string[];
}

/** `policy` has been checked (policy-values.ts). */
export function planNetworkRules(
  network: FirewallNetwork,
  policy: NetworkPolicy,
  numbers: ProfileNumbers,
): Ruleset {
  const profiles = new Map<number, Profile>();
  for (const { groups } of policy.cards) {
    if (groups.length === 0) continue;
    const number = numbers.of(groups);
    if (!profiles.has(number)) profiles.set(number, { number, groups: [...new Set(groups)].sort() });
  }
  numbers.keep([...profiles.values()].map(({ groups }) => groups));

  const sets = new Map<string, ElementSet>();
  const chains = new Map<string, Chain>();
  addCardSets(sets, network, policy, numbers);
  addTranslationSets(sets, policy);
  addStructure(chains, network, policy);
  addForwarding(chains, network);
  addTranslations(chains, network);
  addGroups(sets, chains, policy.groups, [...profiles.values()]);
  const inet: Table = { family: "inet", name: networkTable, sets, chains };
  return { tables: [inet, antiSpoofingTable(policy.cards)] };
}

function plainSet(type: string, keys: Iterable<string>, flags = ""): ElementSet {
  return {
    kind: "set",
    declaration: `type ${type};${flags}`,
    elements: new Map([...keys].map((key) => [key, ""])),
  };
}

function plainMap(type: string, entries: Iterable<readonly [string, string | number]>): ElementSet {
  return {
    kind: "map",
    declaration: `type ${type};`,
    elements: new Map([...entries].map(([key, value]) => [key, ` : ${value}`])),
  };
}

const interval = " flags interval;";

function addCardSets(
  sets: Map<string, ElementSet>,
  network: FirewallNetwork,
  { cards }: NetworkPolicy,
  numbers: ProfileNumbers,
): void {
  const identified = cards.filter(({ groups }) => groups.length > 0);
  sets.set(
    "bridges",
    plainSet(
      "ifname",
      network.subnets.map(({ bridge }) => `"${bridge}"`),
    ),
  );
  sets.set(
    "profiles4",
    plainMap(
      "ipv4_addr : mark",
      identified.map((card) => [card.ipAddress, numbers.of(card.groups)]),
    ),
  );
  sets.set(
    "profiles6",
    plainMap(
      "ipv6_addr : mark",
      identified.flatMap(({ ipv6Address, groups }) =>
        ipv6Address === undefined ? [] : [[ipv6Address, numbers.of(groups)] as const],
      ),
    ),
  );
  sets.set(
    "metadata",
    plainSet(
      "ipv4_addr",
      cards.filter(({ metadata }) => metadata).map(({ ipAddress }) => ipAddress),
    ),
  );
}

/** What is translated, and the same as pairs, so that a translation that was taken back ends its connections. */
function addTranslationSets(
  sets: Map<string, ElementSet>,
  { publishedPorts, addresses }: NetworkPolicy,
): void {
  sets.set(
    "published",
    plainMap(
      "inet_proto . inet_service : ipv4_addr . inet_service",
      publishedPorts.map(({ protocol, port, ipAddress, targetPort }) => [
        `${protocol} . ${port}`,
        `${ipAddress} . ${targetPort}`,
      ]),
    ),
  );
  sets.set(
    "published-now",
    plainSet(
      "inet_proto . ipv4_addr . inet_service",
      publishedPorts.map(
        ({ protocol, ipAddress, targetPort }) => `${protocol} . ${ipAddress} . ${targetPort}`,
      ),
    ),
  );
  const pairs = addresses.map(({ address, ipAddress }) => [address, ipAddress] as const);
  sets.set("addresses", plainMap("ipv4_addr : ipv4_addr", pairs));
  sets.set(
    "addresses-now",
    plainSet(
      "ipv4_addr . ipv4_addr",
      pairs.map(([address, ipAddress]) => `${address} . ${ipAddress}`),
    ),
  );
  sets.set(
    "senders",
    plainMap(
      "ipv4_addr : ipv4_addr",
      pairs.map(([address, ipAddress]) => [ipAddress, address]),
    ),
  );
}

function listOf(ranges: readonly string[], family: IpFamily): string[] {
  return ranges.filter((range) => familyOf(range) === family);
}

/** What may come in by which interface, and what the gateway itself answers. */
function addStructure(
  chains: Map<string, Chain>,
  network: FirewallNetwork,
  { addresses }: NetworkPolicy,
): void {
  const { uplink } = network;
  const peers = network.peerings.flatMap(({ ranges }) => ranges);
  const inside = [...new Set([...network.ranges, ...peers])];
  const [inside4, inside6] = [listOf(inside, 4), listOf(inside, 6)];
  const arriving = [
    ...(inside4.length > 0 ? [`iifname "${uplink.inner}" ip saddr { ${inside4.join(", ")} } drop`] : []),
    ...(inside6.length > 0 ? [`iifname "${uplink.inner}" ip6 saddr { ${inside6.join(", ")} } drop`] : []),
    ...network.peerings.flatMap(({ name, ranges }) => {
      const four = listOf(ranges, 4);
      const six = ["fe80::/10", ...listOf(ranges, 6)];
      return [
        four.length > 0
          ? `iifname "${name}" ip saddr != { ${four.join(", ")} } drop`
          : `iifname "${name}" meta nfproto ipv4 drop`,
        `iifname "${name}" ip6 saddr != { ${six.join(", ")} } drop`,
      ];
    }),
  ];
  chains.set("arriving", {
    base: "type filter hook prerouting priority raw; policy accept;",
    rules: arriving,
  });
  const peers4 = [...new Set(listOf(peers, 4))];
  const elsewhere = peers4.length > 0 ? ` ip daddr != { ${peers4.join(", ")} }` : "";
  const mark = `meta mark set 0x${outsideMark.toString(16)}`;
  // Every packet of a guest passes here, so what tells most of them apart comes first.
  chains.set("routing", {
    base: "type filter hook prerouting priority mangle; policy accept;",
    rules: [
      `ct status dnat ct direction reply iifname @bridges${elsewhere} ${mark}`,
      ...(addresses.length > 0 ? [`ip saddr @senders iifname @bridges${elsewhere} ${mark}`] : []),
    ],
  });
  chains.set("input", {
    base: "type filter hook input priority filter; policy accept;",
    rules: [
      'iifname "lo" accept',
      ...replies,
      ...hostRules(network, "accept"),
      "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } ip6 hoplimit 255 accept",
      "iifname != @bridges drop",
      "icmpv6 type { nd-router-solicit, mld-listener-report, mld2-listener-report } accept",
      "icmp type echo-request accept",
      "icmpv6 type echo-request accept",
      "meta l4proto { tcp, udp } th dport 53 accept",
      "meta nfproto ipv4 udp dport 67 accept",
      "meta nfproto ipv6 udp dport 547 accept",
      "drop",
    ],
  });
  chains.set("output", {
    base: "type filter hook output priority filter; policy accept;",
    rules: ["icmpv6 type nd-redirect drop"],
  });
}

/** What leaves by the uplink has its inner address, unless it goes to the host itself, who must see the guest's. */
function addTranslations(chains: Map<string, Chain>, { uplink, metadata }: FirewallNetwork): void {
  const toMetadata =
    metadata &&
    `iifname @bridges ip saddr @metadata ip daddr ${metadataAddress} tcp dport 80 dnat ip to ${uplink.hostAddress}:${metadata.port}`;
  chains.set("targets", {
    base: "type nat hook prerouting priority dstnat; policy accept;",
    rules: [
      ...(toMetadata ? [toMetadata] : []),
      `iifname "${uplink.inner}" ip daddr ${uplink.innerAddress} meta l4proto { tcp, udp } dnat ip to meta l4proto . th dport map @published`,
      "dnat ip to ip daddr map @addresses",
    ],
  });
  const outward = `oifname "${uplink.inner}" iifname @bridges`;
  chains.set("sources", {
    base: "type nat hook postrouting priority srcnat; policy accept;",
    rules: [
      `${outward} ip daddr ${uplink.hostAddress} return`,
      `${outward} snat ip to ip saddr map @senders`,
      `${outward} snat ip to ${uplink.innerAddress}`,
      ...(uplink.hostAddress6 === undefined || uplink.innerAddress6 === undefined
        ? []
        : [`${outward} ip6 daddr != ${uplink.hostAddress6} snat ip6 to ${uplink.innerAddress6}`]),
    ],
  });
}

function addGroups(
  sets: Map<string, ElementSet>,
  chains: Map<string, Chain>,
  groups: readonly GroupPolicy[],
  profiles: readonly Profile[],
): void {
  const used = new Set(profiles.flatMap((profile) => profile.groups));
  const known = groups.filter(({ uid }) => used.has(uid));
  for (const direction of ["in", "out"] as const) {
    const withPeers = new Set<string>();
    for (const group of known) {
      const plan = planRules(direction === "in" ? group.ingress : group.egress);
      if (plan.peers.size > 0) withPeers.add(group.uid);
      addGroup(sets, chains, { name: `${direction}-${group.uid}`, direction, plan, profiles });
    }
    const side = direction === "in" ? "saddr" : "daddr";
    for (const { number, groups: own } of profiles) {
      const recognise = own.some((uid) => withPeers.has(uid));
      chains.set(`${direction}-${number}`, {
        rules: [
          ...(recognise
            ? [
                "meta mark set 0",
                `meta mark set ip ${side} map @profiles4`,
                `meta mark set ip6 ${side} map @profiles6`,
              ]
            : []),
          ...own.filter((uid) => chains.has(`${direction}-${uid}`)).map((uid) => `jump ${direction}-${uid}`),
          `meta mark != ${allowedMark} drop`,
        ],
      });
    }
    sets.set(
      direction === "in" ? "receiving-profiles" : "sending-profiles",
      plainMap(
        "mark : verdict",
        profiles.map(({ number }) => [String(number), `goto ${direction}-${number}`]),
      ),
    );
  }
}

/** Policies keep the objects of rules that did not change, and those of a large group take a while. */
const plans = new WeakMap<readonly RulePolicy[], GroupSets>();

function planRules(rules: readonly RulePolicy[]): GroupSets {
  const plan = plans.get(rules) ?? planGroupSets(rules);
  plans.set(rules, plan);
  return plan;
}

interface GroupChain {
  name: string;
  direction: Direction;
  plan: GroupSets;
  profiles: readonly Profile[];
}

function addGroup(
  sets: Map<string, ElementSet>,
  chains: Map<string, Chain>,
  { name, direction, plan, profiles }: GroupChain,
): void {
  const side = direction === "in" ? "saddr" : "daddr";
  const rules: string[] = [];
  for (const family of [4, 6] as const) {
    const address = family === 4 ? `ip ${side}` : `ip6 ${side}`;
    const type = `ipv${family}_addr`;
    for (const [what, match] of [
      ["any", ""],
      ["icmp", family === 4 ? "meta l4proto icmp " : "meta l4proto ipv6-icmp "],
    ] as const) {
      const ranges = plan[what][family];
      if (ranges.length === 0) continue;
      sets.set(`${name}-${what}${family}`, plainSet(type, ranges, interval));
      rules.push(`${match}${address} @${name}-${what}${family} ${allow}`);
    }
    for (const [key, { elements }] of [...plan.ports].filter(([, set]) => set.family === family)) {
      sets.set(`${name}-ports${key}`, plainSet(`${type} . inet_proto . inet_service`, elements, interval));
      rules.push(`${address} . meta l4proto . th dport @${name}-ports${key} ${allow}`);
    }
  }
  if (plan.peers.size > 0) {
    addPeers(sets, chains, { name, direction, plan, profiles });
    rules.push(`meta mark vmap @${name}-peers`);
  }
  chains.set(name, { rules });
}

/**
 * What other groups' cards may do: a chain for each group that a rule names, and one for each profile that has some of
 * these. (A set keyed by number, protocol and range of ports would do without, but nft 1.0.6 adds marks to a set with
 * ranges in another byte order than it deletes them.)
 */
function addPeers(
  sets: Map<string, ElementSet>,
  chains: Map<string, Chain>,
  { name, plan, profiles }: GroupChain,
): void {
  const elements: [string, string][] = [];
  for (const { number, groups } of profiles) {
    const named = groups.filter((group) => plan.peers.has(group));
    if (named.length === 0) continue;
    chains.set(`${name}-peer-${number}`, { rules: named.map((group) => `jump ${name}-of-${group}`) });
    elements.push([String(number), `jump ${name}-peer-${number}`]);
    for (const group of named) {
      const traffic = plan.peers.get(group);
      if (traffic && !chains.has(`${name}-of-${group}`))
        addPeer(sets, chains, `${name}-of-${group}`, traffic);
    }
  }
  sets.set(`${name}-peers`, plainMap("mark : verdict", elements));
}

function addPeer(
  sets: Map<string, ElementSet>,
  chains: Map<string, Chain>,
  name: string,
  { any, icmp, ports }: PeerTraffic,
): void {
  const elements = (["tcp", "udp"] as const).flatMap((protocol) =>
    ports[protocol].map((range) => `${protocol} . ${formatInterval(range)}`),
  );
  if (any) {
    chains.set(name, { rules: [allow] });
    return;
  }
  const rules = icmp ? [`meta l4proto { icmp, ipv6-icmp } ${allow}`] : [];
  if (elements.length > 0) {
    sets.set(name, plainSet("inet_proto . inet_service", elements, interval));
    rules.push(`meta l4proto . th dport @${name} ${allow}`);
  }
  chains.set(name, { rules });
}
