/**
 * The daemon's own table on the host, as text for `nft -f`. It replaces the table as a whole in one transaction, so it may be
 * executed again at any time without a gap. Pure. (Published ports and addresses have a table of their own, see policy/.)
 */
import { hostTable, uplinkPrefix } from "./network-plan.ts";
import { uplinkPool, uplinkPool6 } from "./uplink-pair.ts";

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
 * For all networks of a daemon: what comes from an uplink's own address and leaves by another interface gets the host's
 * address (what comes from a floating address keeps it). What may go into an uplink is said by policy/host-table.ts, which
 * knows the floating addresses: a drop here would be final. Nothing in it names a network, so it never changes.
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
${neighbours}  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    iifname ${uplinks} oifname != ${uplinks} ip saddr ${uplinkPool} masquerade
    iifname ${uplinks} oifname != ${uplinks} ip6 saddr ${uplinkPool6} masquerade
  }
}
`;
}

/** Takes the daemon's table away; no error when it is not there. */
export function renderHostRulesRemoval(namespace: string): string {
  const table = hostTable(namespace);
  return `table inet ${table} {}\ndelete table inet ${table}\n`;
}
