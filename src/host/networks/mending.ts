/**
 * The decision what to mend in a network: from what was seen to what is to be done. Pure; doing it is the caller's.
 */
import { type HostLinkNeeds, innerAddresses, renderAddress, renderBridge } from "./links.ts";
import { innerUplinkName, isBridge, isPeeringLink, type PeeringPlan } from "./network-plan.ts";
import { otherEnd, type PlacedNetwork, planRouting, type Routing } from "./routing.ts";
import { planSysctls } from "./sysctls.ts";

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

export interface SeenLink {
  up: boolean;
  mtu: number;
  /** The bridge it is in. */
  bridge?: string;
  /** With prefix lengths. */
  addresses: readonly string[];
}

/** The inside of the namespace. */
export interface SeenInside {
  links: ReadonlyMap<string, SeenLink>;
  routing: Readonly<Record<4 | 6, Routing>>;
  /** By path below /proc/sys/net; those that exist. */
  sysctls: ReadonlyMap<string, string>;
}

export interface SeenNetwork {
  /** `leftover`: the name exists, but no namespace is bound to it. */
  netns: { state: "absent" | "leftover" } | { state: "there"; inode: number; inside: SeenInside };
  /** `ready`: up, addressed, and the host's routes lead there. */
  uplink: "absent" | "broken" | "ready";
  services: Partial<Record<ServiceRole, SeenService>>;
  /** Reservations were taken back that the DHCP process still remembers. */
  forgotten: boolean;
}

/** What is done inside the namespace, in this order. */
export interface InsideNeeds {
  /** Lines for `ip -force`: what is in the way or not wanted any more. One may be gone by itself. */
  drops: string[];
  /** Lines for `ip -4 -force` and `ip -6 -force`. */
  familyDrops: Record<4 | 6, string[]>;
  /** Bridges that are made, by lines for `ip`. */
  bridges: string[];
  makes: string[];
  /** Peerings whose link is made. */
  peerings: PeeringPlan[];
  /** All that are wanted; right ones are left alone. */
  sysctls: ReadonlyMap<string, string>;
  addresses: string[];
  /** Lines for `ip -4` and `ip -6`. */
  routing: Record<4 | 6, string[]>;
}

export interface Mending {
  /** What is wrong, for logs. Empty: nothing is to be done. */
  wrong: string[];
  hostLinks?: HostLinkNeeds;
  /** The inner end of the uplink has lost its other end and is in the way. */
  dropInnerUplink: boolean;
  inside?: InsideNeeds;
  restart: ServiceRole[];
}

const families = [4, 6] as const;

export function planMending(network: PlacedNetwork, seen: SeenNetwork): Mending {
  const mending: Mending = { wrong: [], dropInnerUplink: false, restart: [] };
  const there = seen.netns.state === "there" ? seen.netns : undefined;
  const survivor = there ? undefined : Object.values(seen.services)[0];
  planHostLinks(mending, seen, survivor?.pid);

  const nothing: SeenInside = { links: new Map(), routing: noRouting, sysctls: new Map() };
  const inside = planInside(network, there?.inside ?? nothing, mending.hostLinks?.uplink ?? false);
  // What is in a namespace that gets its name back is seen in the next round.
  if (inside.wrong.length > 0 && !survivor) {
    mending.inside = inside.needs;
    if (there) mending.wrong.push(...inside.wrong);
  }
  for (const role of serviceRoles) {
    const service = seen.services[role];
    const elsewhere = there ? service?.netns !== there.inode : service?.netns !== survivor?.netns;
    // DHCP is bound to the bridges themselves, so a new bridge needs a new process.
    const unbound = there !== undefined && inside.needs.bridges.length > 0 && role === "dhcp";
    if (service?.current && !elsewhere && !unbound && !(role === "dhcp" && seen.forgotten)) continue;
    mending.restart.push(role);
    mending.wrong.push(
      service ? `outdated ${role.toUpperCase()} process` : `no ${role.toUpperCase()} process`,
    );
  }
  return mending;
}

const noRouting: SeenInside["routing"] = {
  4: { rules: new Set(), routes: new Set() },
  6: { rules: new Set(), routes: new Set() },
};

function planHostLinks(mending: Mending, seen: SeenNetwork, survivor: number | undefined): void {
  const there = seen.netns.state === "there" ? seen.netns : undefined;
  const lostPeer = there !== undefined && !there.inside.links.has(innerUplinkName);
  const orphaned = there === undefined && survivor === undefined;
  const staleUplink = seen.uplink !== "absent" && (orphaned || lostPeer);
  const uplink = seen.uplink === "absent" || staleUplink;
  if (!there) mending.wrong.push("no namespace");
  if (uplink) mending.wrong.push("no uplink");
  else if (seen.uplink === "broken") mending.wrong.push("uplink not ready");
  if (mending.wrong.length === 0) return;
  mending.hostLinks = {
    netns: there ? "there" : survivor === undefined ? "make" : { attach: survivor },
    staleUplink,
    uplink,
  };
  mending.dropInnerUplink = seen.uplink === "absent" && there !== undefined && !lostPeer;
}

/** `newUplink`: the inner end is made anew; whatever was seen of it is not so any more. */
function planInside(
  network: PlacedNetwork,
  seen: SeenInside,
  newUplink: boolean,
): { wrong: string[]; needs: InsideNeeds } {
  const wrong: string[] = [];
  const needs: InsideNeeds = {
    drops: [],
    familyDrops: { 4: [], 6: [] },
    bridges: [],
    makes: [],
    peerings: [],
    sysctls: planSysctls(network),
    addresses: [],
    routing: { 4: [], 6: [] },
  };
  const links = new Map(seen.links);
  if (newUplink) links.delete(innerUplinkName);
  planBridges(network, links, needs, wrong);
  planPeeringLinks(network, links, needs, wrong);
  planAddresses(network, links, needs, wrong);
  for (const [path, value] of needs.sysctls) {
    const now = seen.sysctls.get(path);
    if (now !== undefined && now !== value) wrong.push(`${path} is ${now}`);
  }
  for (const family of network.ipv6Cidr === undefined ? ([4] as const) : families) {
    const wanted = planRouting(network, family);
    const is = newUplink ? withoutUplink(seen.routing[family]) : seen.routing[family];
    for (const kind of ["rules", "routes"] as const) {
      const [verb, object] = kind === "rules" ? ["add", "rule"] : ["replace", "route"];
      const extra = [...is[kind]].filter((one) => !wanted[kind].has(one));
      const missing = [...wanted[kind]].filter((one) => !is[kind].has(one));
      needs.familyDrops[family].push(...extra.map((one) => `${object} del ${one}`));
      needs.routing[family].push(...missing.map((one) => `${object} ${verb} ${one}`));
      if (extra.length > 0) wrong.push(`outdated ${kind}: ${extra[0]}`);
      if (missing.length > 0) wrong.push(`missing ${kind}: ${missing[0]}`);
    }
  }
  return { wrong, needs };
}

type Links = Map<string, SeenLink>;

function planBridges(network: PlacedNetwork, links: Links, needs: InsideNeeds, wrong: string[]): void {
  const wanted = new Set(network.subnets.map(({ bridge }) => bridge));
  for (const name of [...links.keys()].filter((link) => isBridge(link) && !wanted.has(link))) {
    wrong.push(`outdated bridge ${name}`);
    needs.drops.push(`link del dev ${name}`);
  }
  for (const subnet of network.subnets) {
    if (links.has(subnet.bridge)) continue;
    wrong.push(`no bridge ${subnet.bridge}`);
    needs.bridges.push(subnet.bridge);
    needs.makes.push(...renderBridge(subnet, network.mtu));
  }
}

function planPeeringLinks(network: PlacedNetwork, links: Links, needs: InsideNeeds, wrong: string[]): void {
  const joined = network.peerings.filter(({ uid }) => network.joined.has(uid));
  const wanted = new Set(joined.map(({ link }) => link));
  for (const name of [...links.keys()].filter((link) => isPeeringLink(link) && !wanted.has(link))) {
    wrong.push(`outdated peering ${name}`);
    needs.drops.push(`link del dev ${name}`);
  }
  for (const peering of joined) {
    const { link, peerMacAddress } = peering;
    const seen = links.get(link);
    if (seen?.up) continue;
    wrong.push(`${seen ? "unready" : "no"} peering ${link}`);
    if (!seen) needs.peerings.push(peering);
    needs.addresses.push(`link set dev ${link} up`);
    for (const family of families) {
      if (family === 6 && network.ipv6Cidr === undefined) continue;
      needs.addresses.push(
        `neigh replace ${otherEnd[family]} lladdr ${peerMacAddress} dev ${link} nud permanent`,
      );
    }
  }
}

function planAddresses(network: PlacedNetwork, links: Links, needs: InsideNeeds, wrong: string[]): void {
  if (!links.get("lo")?.up) needs.addresses.push("link set dev lo up");
  for (const [device, wanted] of innerAddresses(network, network.pair)) {
    const seen = links.get(device);
    const present = new Set(seen?.addresses);
    const missing = wanted.filter((address) => !present.has(address));
    // An uplink of another pair, from before somebody took the host's end away.
    const strange =
      device === innerUplinkName
        ? [...present].filter((address) => !address.startsWith("fe80:") && !wanted.includes(address))
        : [];
    needs.drops.push(...strange.map((address) => `address del ${address} dev ${device}`));
    needs.addresses.push(...missing.map((address) => renderAddress(address, device)));
    if (!seen?.up || seen.mtu !== network.mtu || missing.length > 0) {
      needs.addresses.push(`link set dev ${device} mtu ${network.mtu} up`);
      wrong.push(`${device} not ready`);
    } else if (strange.length > 0) wrong.push(`${device} has ${strange[0]}`);
  }
}

/** What went away with the old uplink. */
function withoutUplink({ rules, routes }: Routing): Routing {
  return {
    rules,
    routes: new Set([...routes].filter((route) => !route.includes(` dev ${innerUplinkName} `))),
  };
}
