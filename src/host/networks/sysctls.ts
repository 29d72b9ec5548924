/** Settings of the kernel inside a network's namespace. Pure. */
import { innerUplinkName, type NetworkPlan } from "./network-plan.ts";

/** Values by path below /proc/sys/net. */
export function planSysctls(plan: NetworkPlan): Map<string, string> {
  const settings: [string, string][] = [
    ["ipv4/ip_forward", "1"],
    // Nearly all packets are somebody else's, so no connection of the gateway's own is looked for.
    ["ipv4/ip_early_demux", "0"],
  ];
  for (const scope of ["all", "default", innerUplinkName, ...plan.subnets.map(({ bridge }) => bridge)]) {
    // A way back need not exist in the routes (outside-mark.ts); the firewall knows who may send what.
    settings.push([`ipv4/conf/${scope}/rp_filter`, "0"], [`ipv4/conf/${scope}/send_redirects`, "0"]);
  }
  for (const { bridge } of plan.subnets) {
    settings.push(
      // Sources are checked at the port (policy/anti-spoofing.ts). Without this the kernel looks for a way back all the same,
      // in every packet, to find out that it was not sent by the gateway itself.
      [`ipv4/conf/${bridge}/accept_local`, "1"],
      // The gateway answers for neighbours, because ports are isolated from one another, and it does so at once.
      [`ipv4/conf/${bridge}/proxy_arp_pvlan`, "1"],
      [`ipv4/neigh/${bridge}/proxy_delay`, "0"],
      // A guest that has just been started is found within this time rather than a second. (A multiple of every kernel's tick:
      // it is read back.)
      [`ipv4/neigh/${bridge}/retrans_time_ms`, "40"],
    );
  }
  if (plan.ipv6Cidr === undefined) return new Map(settings);
  settings.push(["ipv6/conf/all/disable_ipv6", "0"], ["ipv6/conf/all/forwarding", "1"]);
  for (const scope of ["default", innerUplinkName, ...plan.subnets.map(({ bridge }) => bridge)]) {
    settings.push(
      [`ipv6/conf/${scope}/disable_ipv6`, "0"],
      [`ipv6/conf/${scope}/accept_ra`, "0"],
      [`ipv6/conf/${scope}/accept_dad`, "0"],
    );
  }
  return new Map(settings);
}
