/**
 * The host's part of published ports and floating addresses, for all networks of a daemon, and who may enter an uplink at
 * all. Pure.
 *
 * The table is the record of which network has what: each element carries its network's uid as comment, and a process that
 * starts reads it back.
 */
import * as z from "zod";
import type { NetworkPolicy } from "../networks.ts";
import { parseJson } from "../nft-json.ts";
import { uplinkPool } from "../uplink-pair.ts";
import type { Ruleset } from "./ruleset.ts";

/** What one network has of the host. */
export interface Publications {
  /** `tcp . 8080` */
  ports: readonly string[];
  /** Floating addresses. */
  addresses: readonly string[];
  innerAddress: string;
}

export function publicationsOf(policy: NetworkPolicy, innerAddress: string): Publications {
  return {
    ports: policy.publishedPorts.map(({ protocol, port }) => `${protocol} . ${port}`),
    addresses: policy.addresses.map(({ address }) => address),
    innerAddress,
  };
}

/** The ending keeps it from being a word of nft's language. */
export function publicationTable(namespace: string): string {
  return `${namespace}-published`;
}

/** `uplinks`: what the names of all of the daemon's uplinks begin with. Of two claims to one thing the last counts. */
export function planHostTable(
  namespace: string,
  uplinks: string,
  networks: ReadonlyMap<string, Publications>,
): Ruleset {
  const ports = new Map<string, string>();
  const addresses = new Map<string, string>();
  for (const [uid, publications] of networks) {
    for (const port of publications.ports)
      ports.set(port, ` comment "${uid}" : ${publications.innerAddress}`);
    for (const address of publications.addresses) {
      addresses.set(address, ` comment "${uid}" : ${publications.innerAddress}`);
    }
  }
  const name = publicationTable(namespace);
  const sets = new Map([
    [
      "ports",
      { kind: "map" as const, declaration: "type inet_proto . inet_service : ipv4_addr;", elements: ports },
    ],
    ["addresses", { kind: "map" as const, declaration: "type ipv4_addr : ipv4_addr;", elements: addresses }],
  ]);
  return { tables: [{ family: "inet", name, sets, chains: planChains(`"${uplinks}*"`) }] };
}

function planChains(uplinks: string) {
  const translate =
    "fib daddr type local meta l4proto { tcp, udp } dnat ip to meta l4proto . th dport map @ports";
  return new Map([
    [
      // The answers to what a guest sends to the host's loopback would come from there.
      "arriving",
      {
        base: "type filter hook prerouting priority raw; policy accept;",
        rules: [`iifname ${uplinks} ip daddr 127.0.0.0/8 drop`],
      },
    ],
    [
      // Uplinks' own addresses are for the host alone: who came in by one could pass for the host.
      "targets",
      {
        base: "type nat hook prerouting priority dstnat; policy accept;",
        rules: [`ip daddr ${uplinkPool} return`, translate],
      },
    ],
    [
      "own-targets",
      {
        base: "type nat hook output priority -100; policy accept;",
        rules: [`ip daddr { ${uplinkPool}, 127.0.0.2-127.255.255.255 } return`, translate],
      },
    ],
    [
      "sources",
      {
        base: "type nat hook postrouting priority srcnat - 5; policy accept;",
        rules: [
          `oifname ${uplinks} ip saddr 127.0.0.0/8 masquerade`,
          // A guest that uses what is published is seen as what it spoke to, never with an address of the inside.
          `iifname ${uplinks} oifname ${uplinks} ip saddr ${uplinkPool} snat ip to ct original ip daddr`,
          // Clients keep their address also where others' rules (Docker's, libvirt's) would give them the uplink's, which
          // is the host's and trusted.
          `oifname ${uplinks} fib saddr type != local snat ip to ip saddr`,
          // What guests with an address send already has it; the rule keeps it from being masqueraded again.
          `iifname ${uplinks} ip saddr @addresses snat ip to ip saddr`,
        ],
      },
    ],
    [
      "entering",
      {
        base: "type filter hook forward priority filter - 11; policy accept;",
        rules: [
          `oifname != ${uplinks} accept`,
          "ct state established,related accept",
          "ct status dnat accept",
          "ip daddr @addresses accept",
          // Named, so that nobody (another daemon of ours) takes this chain for a firewall that drops what it does not know.
          `oifname ${uplinks} drop`,
        ],
      },
    ],
  ]);
}

const elementSchema = z.tuple([
  z.object({
    elem: z.object({
      val: z.union([z.string(), z.object({ concat: z.array(z.union([z.string(), z.number()])) })]),
      comment: z.string(),
    }),
  }),
  z.string(),
]);

const mapSchema = z.object({ map: z.object({ name: z.string(), elem: z.array(z.unknown()).default([]) }) });

/** What networks have, from `nft -j list table …`. */
export function parseHostTable(listing: string): Map<string, Publications> {
  const networks = new Map<string, { ports: string[]; addresses: string[]; innerAddress: string }>();
  for (const entry of parseJson(listing)) {
    const map = mapSchema.safeParse(entry).data?.map;
    for (const element of map?.elem ?? []) {
      const parsed = elementSchema.safeParse(element).data;
      if (!parsed) continue;
      const [{ elem }, innerAddress] = parsed;
      const network = networks.get(elem.comment) ?? { ports: [], addresses: [], innerAddress };
      networks.set(elem.comment, network);
      if (typeof elem.val === "string") network.addresses.push(elem.val);
      else network.ports.push(elem.val.concat.join(" . "));
    }
  }
  return networks;
}
