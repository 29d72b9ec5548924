/**
 * Configuration of the two dnsmasq processes of a network. Pure.
 *
 * Two, because a DHCP server remembers leases: an address that was given back and promised to another guest stays
 * refused until the process is restarted, and restarting must never leave guests without DNS. The DNS process has no
 * leases and takes up and drops names by itself when files appear in and vanish from its directory.
 */
import { join } from "node:path";
import { formatIp, type IpRange, parseIp, sizeOf } from "../../core/ip-range.ts";
import { innerUplinkName, type NetworkPlan, netmaskOf, type SubnetPlan } from "./network-plan.ts";

/** Whom dnsmasq becomes once its sockets are open. */
export interface ServiceUser {
  user: string;
  group: string;
  gid: number;
}

/** Of one process; DNS over TCP forks. */
export const dnsmasqLimits = { memoryMib: 128, processes: 64 };

const leaseSeconds = 3600;
/** Between router advertisements that nobody asked for. */
const advertisementSeconds = 600;
/** As the C library's (MAXNS). */
const maxServers = 3;
/** Memory for leases is small, but not to be spent on the whole of a /8. */
const maxLeases = 65_536;

export function dhcpDirectory(directory: string): string {
  return join(directory, "dhcp");
}

export function hostsDirectory(directory: string): string {
  return join(directory, "hosts");
}

/** `servers`: of the outside; without one, names outside the network are not answered. */
export function renderDnsConfig(plan: NetworkPlan, user: ServiceUser, servers: readonly string[]): string {
  return text([
    ...plan.subnets.flatMap(({ v4, v6 }) => [
      `listen-address=${v4.gateway}`,
      ...(v6 ? [`listen-address=${v6.gateway}`] : []),
    ]),
    // Without any address it would listen on all of them, the uplink's too.
    ...(plan.subnets.length === 0 ? ["listen-address=127.0.0.1"] : []),
    "bind-interfaces",
    "no-hosts",
    `hostsdir=${hostsDirectory(plan.directory)}`,
    "expand-hosts",
    `domain=${plan.domain}`,
    `local=/${plan.domain}/`,
    "domain-needed",
    "bogus-priv",
    "no-resolv",
    // Bound to the uplink: the host's server may have an address that is the network's as well.
    ...servers.map((server) => `server=${server}@${innerUplinkName}`),
    "cache-size=2000",
    "dns-forward-max=1000",
    ...common(plan, user, "dns"),
  ]);
}

/**
 * Addresses are reserved, never chosen here. The IPv6 prefix is announced as off-link and without addresses of the guests'
 * own making: neighbours are reached through the gateway, which knows them by their reserved addresses.
 */
export function renderDhcpConfig(plan: NetworkPlan, user: ServiceUser): string {
  const count = plan.subnets.reduce((sum, { v4 }) => sum + Number(sizeOf(v4.range)), 0);
  const ipv6 = plan.subnets.some(({ v6 }) => v6);
  return text([
    "port=0",
    ...plan.subnets.flatMap((subnet) => dhcpSubnet(plan, subnet)),
    "except-interface=lo",
    "bind-interfaces",
    ...(ipv6 ? ["enable-ra", `dhcp-option=option6:domain-search,${plan.domain}`] : []),
    `dhcp-hostsdir=${dhcpDirectory(plan.directory)}`,
    "dhcp-ignore=tag:!known",
    "dhcp-ignore-names",
    "dhcp-ignore-clid",
    "dhcp-authoritative",
    `dhcp-lease-max=${Math.min(Math.max(count, 1) * (ipv6 ? 2 : 1), maxLeases)}`,
    "leasefile-ro",
    "no-ping",
    `domain=${plan.domain}`,
    `dhcp-option=option:domain-search,${plan.domain}`,
    `dhcp-option=option:mtu,${plan.mtu}`,
    "quiet-dhcp",
    "quiet-dhcp6",
    "quiet-ra",
    ...common(plan, user, "dhcp"),
  ]);
}

/** dnsmasq tags each request with the interface by which it came. */
function dhcpSubnet(plan: NetworkPlan, { bridge, v4, v6 }: SubnetPlan): string[] {
  const base = (range: IpRange) => formatIp({ family: range.family, value: range.base });
  return [
    `interface=${bridge}`,
    `dhcp-range=${base(v4.range)},static,${netmaskOf(v4.range)},${leaseSeconds}`,
    `dhcp-option=tag:${bridge},option:router,${v4.gateway}`,
    `dhcp-option=tag:${bridge},option:dns-server,${v4.gateway}`,
    ...(v6
      ? [
          `dhcp-range=${base(v6.range)},static,off-link,${v6.range.prefixLength},${leaseSeconds}`,
          `ra-param=${bridge},mtu:${plan.mtu},${advertisementSeconds},${leaseSeconds}`,
          `dhcp-option=tag:${bridge},option6:dns-server,[${v6.gateway}]`,
        ]
      : []),
  ];
}

/**
 * The first file with a server that can be reached from a network's namespace: a stub on the host's loopback, such as
 * 127.0.0.53 of systemd-resolved, cannot. `files` in order of preference.
 */
export function chooseResolvFile(files: readonly { path: string; text: string }[]): string | undefined {
  return files.find(({ text }) => upstreamServers(text, { ipv6: false }).length > 0)?.path;
}

/** The servers that a resolv.conf names and that can be reached, in canonical form. */
export function upstreamServers(text: string, options: { ipv6: boolean }): string[] {
  const servers = [...text.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)].flatMap(([, server = ""]) => {
    const address = parseIp(server); // none with a zone, such as fe80::1%eth0
    if (!address || address.value === 0n) return [];
    const reachable =
      address.family === 4 ? address.value >> 24n !== 127n : options.ipv6 && address.value !== 1n;
    return reachable ? [formatIp(address)] : [];
  });
  return [...new Set(servers)].slice(0, maxServers);
}

/** Where hosts name their upstream DNS servers. */
export const resolvFiles = [
  "/etc/resolv.conf",
  "/run/systemd/resolve/resolv.conf",
  "/run/NetworkManager/no-stub-resolv.conf",
];

/** An unprivileged user of the host for dnsmasq, from /etc/passwd and /etc/group. */
export function chooseServiceUser(passwd: string, group: string): ServiceUser | undefined {
  for (const user of ["dnsmasq", "nobody"]) {
    const gid = Number(new RegExp(`^${user}:[^:]*:\\d+:(\\d+):`, "m").exec(passwd)?.[1]);
    const name = Number.isNaN(gid)
      ? undefined
      : new RegExp(`^([^:\\n]+):[^:]*:${gid}:`, "m").exec(group)?.[1];
    if (name !== undefined) return { user, group: name, gid };
  }
  return undefined;
}

function common(plan: NetworkPlan, user: ServiceUser, role: string): string[] {
  return [
    `user=${user.user}`,
    `group=${user.group}`,
    `pid-file=${join(plan.directory, `${role}.pid`)}`,
    "log-async=20",
  ];
}

function text(lines: readonly string[]): string {
  return `${lines.join("\n")}\n`;
}
