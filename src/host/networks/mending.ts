/**
 * The decision what to mend in a network: from what was seen to what is to be done. Pure; doing it is the caller's.
 */
import { parseIpv4 } from "./ipv4.ts";
import { hasRoute, type Route } from "./kernel-tables.ts";
import type { HostLinkNeeds } from "./links.ts";
import { bridgeName, innerUplinkName, type NetworkPlan } from "./network-plan.ts";

export type ServiceRole = "dns" | "dhcp";
export const serviceRoles: readonly ServiceRole[] = ["dns", "dhcp"];

/** A running DHCP or DNS process. */
export interface SeenService {
  pid: number;
  /** Inode of the network namespace it runs in. */
  netns: number;
  /** Runs with the configuration that is wanted now. */
  current: boolean;
}

/** The inside of the namespace. */
export interface SeenInside {
  links: readonly string[];
  routes: readonly Route[];
  addresses: ReadonlySet<number>;
  forwarding: boolean;
  /** The ruleset as the kernel lists it. */
  rules: string;
}

export interface SeenNetwork {
  /** `leftover`: the name exists, but no namespace is bound to it. */
  netns: { state: "absent" | "leftover" } | { state: "there"; inode: number; inside: SeenInside };
  uplink: "absent" | "broken" | "ready";
  hostRoutes: readonly Route[];
  services: Partial<Record<ServiceRole, SeenService>>;
  /** Reservations were taken back that the DHCP process still remembers. */
  forgotten: boolean;
}

export interface Mending {
  /** What is wrong, for logs. Empty: nothing is to be done. */
  wrong: string[];
  hostLinks?: HostLinkNeeds;
  /** The inner end of the uplink has lost its other end and is in the way. */
  dropInnerUplink: boolean;
  /** Links and rules inside. */
  inside?: { ports: string[] };
  restart: ServiceRole[];
}

/** `rulesAsMade`: how the kernel listed the rules just after they were made; undefined when not known. */
export function planMending(plan: NetworkPlan, seen: SeenNetwork, rulesAsMade: string | undefined): Mending {
  const mending: Mending = { wrong: [], dropInnerUplink: false, restart: [] };
  const there = seen.netns.state === "there" ? seen.netns : undefined;
  const survivor = there ? undefined : Object.values(seen.services)[0];
  planHostLinks(mending, plan, seen, survivor?.pid);

  const faults = there ? insideFaults(plan, there.inside, rulesAsMade) : ["no namespace"];
  if (mending.hostLinks?.uplink) faults.push("no uplink");
  const bridge = there?.inside.links.includes(bridgeName) ?? false;
  if (faults.length > 0) {
    mending.wrong.push(...faults.filter((fault) => !mending.wrong.includes(fault)));
    mending.inside = { ports: there && !bridge ? guestPorts(there.inside.links) : [] };
  }
  for (const role of serviceRoles) {
    const service = seen.services[role];
    const elsewhere = there ? service?.netns !== there.inode : service?.netns !== survivor?.netns;
    // DHCP is bound to the bridge itself, so a new bridge needs a new process.
    const unbound = there !== undefined && !bridge && role === "dhcp";
    if (service?.current && !elsewhere && !unbound && !(role === "dhcp" && seen.forgotten)) continue;
    mending.restart.push(role);
    mending.wrong.push(
      service ? `outdated ${role.toUpperCase()} process` : `no ${role.toUpperCase()} process`,
    );
  }
  return mending;
}

function planHostLinks(
  mending: Mending,
  plan: NetworkPlan,
  seen: SeenNetwork,
  survivor: number | undefined,
): void {
  const there = seen.netns.state === "there" ? seen.netns : undefined;
  const lostPeer = there !== undefined && !there.inside.links.includes(innerUplinkName);
  const orphaned = there === undefined && survivor === undefined;
  const staleUplink = seen.uplink !== "absent" && (orphaned || lostPeer);
  const uplink = seen.uplink === "absent" || staleUplink;
  const routed = hasRoute(seen.hostRoutes, {
    device: plan.uplink,
    range: plan.range,
    gateway: parseIpv4(plan.gateway) ?? 0,
  });
  if (!there) mending.wrong.push("no namespace");
  if (uplink) mending.wrong.push("no uplink");
  else if (seen.uplink === "broken") mending.wrong.push("uplink not ready");
  if (!uplink && !routed) mending.wrong.push("no route");
  if (mending.wrong.length === 0) return;
  mending.hostLinks = {
    netns: there ? "there" : survivor === undefined ? "make" : { attach: survivor },
    staleUplink,
    uplink,
  };
  mending.dropInnerUplink = seen.uplink === "absent" && there !== undefined && !lostPeer;
}

function insideFaults(plan: NetworkPlan, inside: SeenInside, rulesAsMade: string | undefined): string[] {
  const faults: string[] = [];
  if (!inside.links.includes(bridgeName)) faults.push("no bridge");
  else if (!hasRoute(inside.routes, { device: bridgeName, range: plan.range, gateway: 0 })) {
    faults.push("bridge not ready");
  }
  if (!inside.addresses.has(parseIpv4(plan.gateway) ?? -1)) faults.push("no gateway address");
  const outside: Route = {
    device: innerUplinkName,
    range: { base: 0, prefixLength: 0 },
    gateway: parseIpv4(plan.hostAddress) ?? 0,
  };
  if (!hasRoute(inside.routes, outside)) faults.push("no default route");
  if (!inside.forwarding) faults.push("no forwarding");
  if (rulesAsMade === undefined) faults.push("rules not verified");
  else if (rulesAsMade !== inside.rules) faults.push("rules changed");
  return faults;
}

/** Everything else in a network's namespace is a guest's port. Names come from drivers; odd ones are left alone. */
function guestPorts(links: readonly string[]): string[] {
  const own = ["lo", bridgeName, innerUplinkName];
  return links.filter((link) => !own.includes(link) && /^[A-Za-z0-9_.-]{1,15}$/.test(link));
}
