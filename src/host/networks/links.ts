/** Interfaces of networks as texts for `ip -batch`. Pure; each text may be executed again at any time. */
import { gatewayLinkLocal, innerUplinkName, type NetworkPlan, type SubnetPlan } from "./network-plan.ts";
import type { UplinkPair } from "./uplink-pair.ts";

/** What the host's side lacks. */
export interface HostLinkNeeds {
  /** `make` a namespace, or give its name back to one in which the process `attach` still lives. */
  netns: "there" | "make" | { attach: number };
  /** The host's end exists but leads to a namespace that is no more. */
  staleUplink: boolean;
  uplink: boolean;
}

/** For the host's namespace: the network's namespace and the uplink. */
export function renderHostLinks(plan: NetworkPlan, needs: HostLinkNeeds): string {
  const { uplink, mtu } = plan;
  const lines: string[] = [];
  if (needs.staleUplink) lines.push(`link del dev ${uplink}`);
  if (needs.netns === "make") lines.push(`netns add ${plan.netns}`);
  else if (needs.netns !== "there") lines.push(`netns attach ${plan.netns} ${needs.netns.attach}`);
  if (needs.uplink) {
    lines.push(
      `link add name ${uplink} address ${plan.uplinkMac} mtu ${mtu} type veth peer name ${innerUplinkName} address ${plan.innerUplinkMac} mtu ${mtu} netns ${plan.netns}`,
    );
  }
  return text(lines);
}

/**
 * For the host's namespace: addresses and routes. The network's own table needs no route of the main one; whoever sends
 * from the host's address gets there (`ip rule`, see host-side.ts).
 */
export function renderHostRoutes(plan: NetworkPlan, pair: UplinkPair): string {
  const { uplink } = plan;
  const v4 = `${plan.cidr} via ${pair.innerAddress} dev ${uplink} onlink src ${pair.hostAddress}`;
  const v6 = `${plan.ipv6Cidr} via ${pair.innerAddress6} dev ${uplink} onlink src ${pair.hostAddress6}`;
  return text([
    `address replace ${pair.hostAddress}/31 dev ${uplink}`,
    ...(plan.ipv6Cidr === undefined ? [] : [`address replace ${pair.hostAddress6}/127 dev ${uplink} nodad`]),
    `link set dev ${uplink} mtu ${plan.mtu} alias "${plan.alias}" up`,
    `route replace ${v4} table ${pair.table}`,
    ...(plan.hostRoute ? [`route replace ${v4}`] : []),
    ...(plan.hostRoute && plan.ipv6Cidr !== undefined ? [`route replace ${v6}`] : []),
  ]);
}

/** For the network's namespace: a bridge that is not there. */
export function renderBridge({ bridge, macAddress }: SubnetPlan, mtu: number): string[] {
  return [
    `link add name ${bridge} address ${macAddress} mtu ${mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
    // Its link-local address is the well-known one, and there at once.
    `link set dev ${bridge} addrgenmode none`,
  ];
}

/** An address with its prefix length, as `ip` takes and lists it. */
export type InterfaceAddress = string;

/** Addresses of the interfaces of a network's namespace, by interface. */
export function innerAddresses(plan: NetworkPlan, pair: UplinkPair): Map<string, InterfaceAddress[]> {
  const found = new Map<string, InterfaceAddress[]>();
  for (const { bridge, v4, v6 } of plan.subnets) {
    found.set(bridge, [
      `${v4.gateway}/${v4.range.prefixLength}`,
      ...(v6 ? [`${v6.gateway}/${v6.range.prefixLength}`] : []),
      ...(plan.ipv6Cidr === undefined ? [] : [`${gatewayLinkLocal}/64`]),
    ]);
  }
  found.set(innerUplinkName, [
    `${pair.innerAddress}/31`,
    ...(plan.ipv6Cidr === undefined ? [] : [`${pair.innerAddress6}/127`]),
  ]);
  return found;
}

export function renderAddress(address: InterfaceAddress, device: string): string {
  return `address replace ${address} dev ${device}${address.includes(":") ? " nodad" : ""}`;
}

export function text(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}
