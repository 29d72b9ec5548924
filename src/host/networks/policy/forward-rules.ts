/**
 * What happens to a packet at the forward hook of a network's namespace. Pure.
 *
 * All of it is one base chain, and nothing below it accepts but returns, so that a packet is judged by one version of the
 * rules from its first rule to its last: the kernel chooses the version when it enters a base chain.
 *
 * **Known connections.** A connection that the groups allow gets the number of the policy's generation as its mark
 * (`learning`), and packets of a connection with this mark pass by the first rule (`known`), in both directions. Looking
 * each of them up cost 6 % of what a network carries (docs/benchmarks.md). Nobody but these rules writes marks of connections: they belong
 * to the namespace, which guests are not in, and a packet's own mark ends where it enters the namespace.
 *
 * A change of the policy takes both rules away in the same transaction, so that every packet is looked up again, and a
 * connection that is no longer allowed ends with its next packet. Only a later transaction brings a number, another one,
 * once nothing has changed for a moment: nothing promises that packets meet the new rules and the new elements of all sets
 * at one instant, and one that met the new rules and an element just taken away would leave the new number on a
 * connection that has lost its rule. Packets that are under way by older rules leave older numbers, which count no more.
 */
import type { FirewallNetwork } from "./firewall.ts";
import type { Chain } from "./ruleset.ts";

export const networkTable = "strata";
export const metadataAddress = "169.254.169.254";

/**
 * Of a packet that a group has allowed; no profile has this number, and it is none of the marks that routes know
 * (outside-mark.ts).
 */
export const allowedMark = "0x80000000";
/** The verdict of a group's rule: back to the profile's chain, which drops what no group has marked. */
export const allow = `meta mark set ${allowedMark} return`;

export const replies = [
  "ct direction reply ct state established,related accept",
  "meta l4proto { icmp, ipv6-icmp } ct state related accept",
];

export function hostRules({ uplink }: FirewallNetwork, verdict: "accept" | "return"): string[] {
  return [
    `iifname "${uplink.inner}" ip saddr ${uplink.hostAddress} ${verdict}`,
    ...(uplink.hostAddress6 === undefined
      ? []
      : [`iifname "${uplink.inner}" ip6 saddr ${uplink.hostAddress6} ${verdict}`]),
  ];
}

/** To be part of every change of a table that is there: from then on no connection is known. */
export const forgetKnown = `flush chain inet ${networkTable} known\nflush chain inet ${networkTable} learning\n`;

/** To be a transaction of its own. @param generation from 1 to 2^32 - 1; no connection has it as its mark (generations.ts). */
export function renderLearning(generation: number): string {
  return `${forgetKnown}add rule inet ${networkTable} known ct mark ${generation} accept\nadd rule inet ${networkTable} learning ct mark set ${generation}\n`;
}

export function addForwarding(chains: Map<string, Chain>, network: FirewallNetwork): void {
  const { uplink, metadata } = network;
  chains.set("known", { rules: [] });
  chains.set("learning", { rules: [] });
  chains.set("sending", { rules: sendingRules(network) });
  chains.set("receiving", { rules: receivingRules(network) });
  chains.set("forward", {
    base: "type filter hook forward priority filter; policy accept;",
    rules: [
      "jump known",
      ...(metadata
        ? [
            `iifname "${uplink.inner}" ip saddr ${uplink.hostAddress} tcp sport ${metadata.port} ct direction reply ip ttl set 1`,
          ]
        : []),
      ...replies,
      "iifname != @bridges oifname != @bridges drop",
      "iifname @bridges jump sending",
      "oifname @bridges jump receiving",
      "jump learning",
    ],
  });
}

/** Returns for what may leave the card; the rest ends here. */
function sendingRules({ uplink, metadata }: FirewallNetwork): string[] {
  const service = metadata && `ip daddr ${uplink.hostAddress} tcp dport ${metadata.port}`;
  return [
    // Accepted as a whole: every answer has to meet the rule that shortens its life.
    ...(service ? [`${service} ct status dnat accept`, `${service} drop`] : []),
    `ip daddr ${metadataAddress} tcp dport 80 reject with tcp reset`,
    "ip daddr 169.254.0.0/16 drop",
    "meta mark set 0",
    "meta mark set ip saddr map @profiles4",
    "meta mark set ip6 saddr map @profiles6",
    "meta mark vmap @sending-profiles",
    "drop",
  ];
}

/** Returns for what may get to the card; the rest ends here. */
function receivingRules(network: FirewallNetwork): string[] {
  const { innerAddress } = network.uplink;
  return [
    ...hostRules(network, "return"),
    `ct status dnat ct original ip daddr ${innerAddress} meta l4proto . ip daddr . th dport != @published-now drop`,
    `ct status dnat ct original ip daddr != ${innerAddress} ct original ip daddr . ip daddr != @addresses-now drop`,
    "meta mark set 0",
    "meta mark set ip daddr map @profiles4",
    "meta mark set ip6 daddr map @profiles6",
    "meta mark vmap @receiving-profiles",
    "drop",
  ];
}
