/** What `ip -batch` is given to make a network. Pure; each text may be executed again at any time. */
import { bridgeName, innerUplinkName, type NetworkPlan } from "./network-plan.ts";

/** What the host's side lacks. */
export interface HostLinkNeeds {
  /** `make` a namespace, or give its name back to one in which the process `attach` still lives. */
  netns: "there" | "make" | { attach: number };
  /** The host's end exists but leads to a namespace that is no more. */
  staleUplink: boolean;
  uplink: boolean;
}

/** For the host's namespace. */
export function renderHostLinks(plan: NetworkPlan, needs: HostLinkNeeds): string {
  const lines: string[] = [];
  if (needs.staleUplink) lines.push(`link del dev ${plan.uplink}`);
  if (needs.netns === "make") lines.push(`netns add ${plan.netns}`);
  else if (needs.netns !== "there") lines.push(`netns attach ${plan.netns} ${needs.netns.attach}`);
  if (needs.uplink) {
    lines.push(
      `link add name ${plan.uplink} address ${plan.uplinkMac} mtu ${plan.mtu} type veth peer name ${innerUplinkName} address ${plan.innerUplinkMac} mtu ${plan.mtu} netns ${plan.netns}`,
    );
  }
  lines.push(
    `address replace ${plan.hostAddress}/32 dev ${plan.uplink}`,
    `link set dev ${plan.uplink} mtu ${plan.mtu} alias "${plan.alias}" up`,
    `route replace ${plan.cidr} via ${plan.gateway} dev ${plan.uplink} onlink src ${plan.hostAddress}`,
  );
  return text(lines);
}

/** For the network's namespace, when it has no bridge. */
export function renderBridge(plan: NetworkPlan): string {
  return text([
    `link add name ${bridgeName} address ${plan.bridgeMac} mtu ${plan.mtu} type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
  ]);
}

/** For the network's namespace, when it has its bridge. `ports`: guests' ports that lost theirs. */
export function renderInnerLinks(plan: NetworkPlan, ports: readonly string[]): string {
  return text([
    "link set dev lo up",
    `address replace ${plan.gateway}/${plan.range.prefixLength} dev ${bridgeName}`,
    `link set dev ${bridgeName} mtu ${plan.mtu} up`,
    ...ports.map((port) => `link set dev ${port} master ${bridgeName} up`),
    `link set dev ${innerUplinkName} mtu ${plan.mtu} up`,
    `route replace ${plan.hostAddress}/32 dev ${innerUplinkName} scope link src ${plan.gateway}`,
    `route replace default via ${plan.hostAddress} dev ${innerUplinkName} onlink src ${plan.gateway}`,
  ]);
}

function text(lines: readonly string[]): string {
  return `${lines.join("\n")}\n`;
}
