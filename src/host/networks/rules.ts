/**
 * Firewall rules as text for `nft -f`. Each text replaces its tables as a whole in one transaction, so it may be
 * executed again at any time without a gap.
 */
import { bridgeName, hostTable, innerUplinkName, type NetworkPlan, uplinkPrefix } from "./network-plan.ts";

/** Tables inside a network's namespace: one for packets (inet), one for frames (bridge). */
const networkTable = "strata";

/** Bridges that other software on the host makes: what is behind them is no more the outside than we are to them. */
const neighbourBridges = [
  "docker0",
  "br-*",
  "docker_gwbridge",
  "virbr*",
  "lxcbr*",
  "lxdbr*",
  "incusbr*",
  "cni*",
];

/**
 * Inside a network: guests talk to one another, to the gateway's DHCP and DNS, and to the outside. From outside come
 * answers and what the host itself sends.
 *
 * Where the kernel's bridge-nf-call-iptables is on, frames between guests pass the forward chain too, with the bridge
 * as both interfaces; where it is off they do not, and nothing changes.
 */
export function renderNetworkRules(plan: NetworkPlan): string {
  return `table inet ${networkTable} {}
delete table inet ${networkTable}
table inet ${networkTable} {
  chain input {
    type filter hook input priority filter; policy drop;
    ct state established,related accept
    iifname "lo" accept
    iifname "${bridgeName}" udp dport { 53, 67 } accept
    iifname "${bridgeName}" tcp dport 53 accept
    iifname "${bridgeName}" icmp type echo-request accept
    iifname "${innerUplinkName}" ip saddr ${plan.hostAddress} accept
  }
  chain forward {
    type filter hook forward priority filter; policy drop;
    iifname "${bridgeName}" oifname "${bridgeName}" accept
    ct state established,related accept
    iifname "${bridgeName}" oifname "${innerUplinkName}" ip saddr ${plan.cidr} accept
    iifname "${innerUplinkName}" oifname "${bridgeName}" ip saddr ${plan.hostAddress} accept
  }
}
table bridge ${networkTable} {}
delete table bridge ${networkTable}
table bridge ${networkTable} {
  chain from-ports {
    type filter hook prerouting priority -300; policy accept;
    ether saddr ${plan.bridgeMac} drop
    arp saddr ip ${plan.gateway} drop
    ip saddr ${plan.gateway} drop
    udp sport 67 udp dport 68 drop
    icmpv6 type nd-router-advert drop
  }
}
`;
}

/**
 * On the host, for all networks of a daemon: whoever comes in by an uplink and leaves by another interface gets the
 * host's address, and into an uplink go only answers. (What the host itself sends does not pass the forward hook.)
 * Nothing in it names a network, so it never changes.
 *
 * `iifname` in the postrouting hook needs Linux 5.7.
 */
export function renderHostRules(namespace: string): string {
  const table = hostTable(namespace);
  const uplinks = `"${uplinkPrefix(namespace)}*"`;
  const neighbours = neighbourBridges
    .map((name) => `    iifname ${uplinks} oifname "${name}" ct status & dnat != dnat ct state new drop\n`)
    .join("");
  return `table inet ${table} {}
delete table inet ${table}
table inet ${table} {
  chain forward {
    type filter hook forward priority filter - 10; policy accept;
    oifname ${uplinks} ct state established,related accept
    oifname ${uplinks} drop
${neighbours}  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    iifname ${uplinks} oifname != ${uplinks} masquerade
  }
}
`;
}

/** Takes the daemon's table away; no error when it is not there. */
export function renderHostRulesRemoval(namespace: string): string {
  const table = hostTable(namespace);
  return `table inet ${table} {}\ndelete table inet ${table}\n`;
}
