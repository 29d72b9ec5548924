/**
 * Configuration of the two dnsmasq processes of a network. Pure.
 *
 * Two, because a DHCP server remembers leases: an address that was given back and promised to another guest stays
 * refused until the process is restarted, and restarting must never leave guests without DNS. The DNS process has no
 * leases and takes up and drops names by itself when files appear in and vanish from its directory.
 */
import { join } from "node:path";
import { addressCount, parseIpv4 } from "./ipv4.ts";
import { bridgeName, type NetworkPlan } from "./network-plan.ts";

/** Whom dnsmasq becomes once its sockets are open. */
export interface ServiceUser {
  user: string;
  group: string;
  gid: number;
}

/** Of one process; DNS over TCP forks. */
export const dnsmasqLimits = { memoryMib: 128, processes: 64 };

const leaseSeconds = 3600;
/** Memory for leases is small, but not to be spent on the whole of a /8. */
const maxLeases = 65_536;

export function dhcpDirectory(directory: string): string {
  return join(directory, "dhcp");
}

export function hostsDirectory(directory: string): string {
  return join(directory, "hosts");
}

/** `resolvFile`: where the upstream servers are named; undefined: names outside the network are not answered. */
export function renderDnsConfig(
  plan: NetworkPlan,
  user: ServiceUser,
  resolvFile: string | undefined,
): string {
  return text([
    `listen-address=${plan.gateway}`,
    "bind-interfaces",
    "no-hosts",
    `hostsdir=${hostsDirectory(plan.directory)}`,
    "expand-hosts",
    `domain=${plan.domain}`,
    `local=/${plan.domain}/`,
    "domain-needed",
    "bogus-priv",
    resolvFile === undefined ? "no-resolv" : `resolv-file=${resolvFile}`,
    "cache-size=2000",
    "dns-forward-max=1000",
    ...common(plan, user, "dns"),
  ]);
}

export function renderDhcpConfig(plan: NetworkPlan, user: ServiceUser): string {
  const base = plan.cidr.slice(0, plan.cidr.indexOf("/"));
  return text([
    "port=0",
    `interface=${bridgeName}`,
    "except-interface=lo",
    "bind-interfaces",
    `dhcp-range=${base},static,${plan.netmask},${leaseSeconds}`,
    `dhcp-hostsdir=${dhcpDirectory(plan.directory)}`,
    "dhcp-ignore=tag:!known",
    "dhcp-ignore-names",
    "dhcp-ignore-clid",
    "dhcp-authoritative",
    `dhcp-lease-max=${Math.min(addressCount(plan.range), maxLeases)}`,
    "leasefile-ro",
    "no-ping",
    `domain=${plan.domain}`,
    `dhcp-option=option:router,${plan.gateway}`,
    `dhcp-option=option:dns-server,${plan.gateway}`,
    `dhcp-option=option:domain-search,${plan.domain}`,
    `dhcp-option=option:mtu,${plan.mtu}`,
    "quiet-dhcp",
    ...common(plan, user, "dhcp"),
  ]);
}

/**
 * The first file with a server that can be reached from a network's namespace: a stub on the host's loopback, such as
 * 127.0.0.53 of systemd-resolved, cannot. `files` in order of preference.
 */
export function chooseResolvFile(files: readonly { path: string; text: string }[]): string | undefined {
  return files.find(({ text }) =>
    [...text.matchAll(/^\s*nameserver\s+(\S+)/gm)].some(([, server = ""]) => {
      const address = parseIpv4(server);
      return address !== undefined && address >>> 24 !== 127 && address !== 0;
    }),
  )?.path;
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
