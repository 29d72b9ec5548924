/**
 * Whether networks can be made: every part is tried in a throw-away network namespace, with the very texts that real
 * networks are made with.
 */
import { access, mkdtemp, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { assert, hasCode } from "../../core/errors.ts";
import { formatRange, type IpRange, overlaps, parseRange } from "../../core/ip-range.ts";
import type { HostConfig } from "../host-config.ts";
import { chooseResolvFile, resolvFiles } from "../networks/dnsmasq-config.ts";
import { findForwardChains, parseRules } from "../networks/forward-chains.ts";
import { renderHostRules } from "../networks/host-table.ts";
import { parseRoutes, type Route } from "../networks/kernel-tables.ts";
import { text } from "../networks/links.ts";
import { planMending } from "../networks/mending.ts";
import { hostTable, planNetwork, uplinkPrefix } from "../networks/network-plan.ts";
import type { NetworkRequest } from "../networks/networks.ts";
import { firewallNetwork } from "../networks/placing.ts";
import { emptyPolicy, ProfileNumbers, planNetworkRules } from "../networks/policy/network-rules.ts";
import { renderWhole } from "../networks/policy/ruleset.ts";
import { uplinkPair } from "../networks/uplink-pair.ts";
import { run } from "../run.ts";
import type { Finding } from "./finding.ts";
import type { HostFiles } from "./host-files.ts";

/** What is tried, in this order: each needs the ones before. */
const steps = [
  "namespace",
  "veth",
  "bridge",
  "addresses",
  "routes",
  "isolated ports",
  "tap",
  "rules of a network",
  "rules of the host",
];

export interface NetworkFacts {
  /** Per step what went wrong, "" when nothing did. Undefined: not tried, because that needs root. */
  steps: Record<string, string> | undefined;
  forwarding: boolean;
  /** Chains of others that drop what they do not know, as `family table chain`. */
  droppers: string[];
  pool: string;
  /** Routes of others inside the pool. */
  conflicts: { range: string; device: string }[];
  /** File with an upstream DNS server that guests' networks can reach. */
  resolvFile: string | undefined;
}

/** One line for each step: its name, then what it printed when it failed. */
const tryAll = `
cd "$1"
try() { name=$1; shift; if out=$("$@" 2>&1); then echo "$name:"; else echo "$name: failed: $out" | tr '\\n' ' '; echo; fi; }
echo "namespace:"
try veth ip link add name strata0 type veth peer name uplink
try bridge ip -batch bridge.ip
ip link set dev strata0 up
try addresses ip -batch addresses.ip
try routes sh -c 'ip -4 -batch routing4.ip && { [ ! -s routing6.ip ] || ip -6 -batch routing6.ip; }'
ip link add name strata2 type veth peer name strata3
ip link set dev strata2 master br0
try "isolated ports" ip link set dev strata2 type bridge_slave isolated on learning off flood off mcast_flood off
try tap ip tuntap add dev strata1 mode tap
try "rules of a network" nft -f network.nft
try "rules of the host" nft -f host.nft`;

/** What `tryAll` printed; a step without a line did not run. */
export function parseSteps(output: string): Record<string, string> {
  const lines = output.split("\n").map((line) => line.trim());
  return Object.fromEntries(
    steps.map((step) => {
      const line = lines.find((candidate) => candidate.startsWith(`${step}:`));
      return [step, line === undefined ? "did not run" : line.slice(step.length + 1).trim()];
    }),
  );
}

/** Routes inside the pool that are not of this daemon's own networks. */
export function findPoolConflicts(routes: readonly Route[], pool: IpRange, ownPrefix: string): Route[] {
  return routes.filter(
    ({ range, device }) => range.prefixLength > 0 && !device.startsWith(ownPrefix) && overlaps(range, pool),
  );
}

export async function readNetwork(
  files: HostFiles,
  config: Pick<HostConfig, "namespace" | "networkPool">,
  signal: AbortSignal,
): Promise<NetworkFacts> {
  const root = process.getuid?.() === 0;
  const pool = parseRange(config.networkPool)?.range;
  const routes = parseRoutes(`${await files.text("proc/net/route")}\n`);
  const conflicts = pool ? findPoolConflicts(routes, pool, uplinkPrefix(config.namespace)) : [];
  const texts = resolvFiles.map(async (path) => ({ path, text: await files.text(path) }));
  return {
    steps: root ? await trySteps(signal) : undefined,
    forwarding: (await files.text("proc/sys/net/ipv4/ip_forward")) === "1",
    droppers: root ? await findDroppers(config.namespace, signal) : [],
    pool: config.networkPool,
    conflicts: conflicts.map(({ range, device }) => ({ range: formatRange(range), device })),
    resolvFile: chooseResolvFile(await Promise.all(texts)),
  };
}

export function networkFindings(network: NetworkFacts): Finding[] {
  return [
    partsFinding(network),
    forwardingFinding(network),
    ...conflictFindings(network),
    ...resolverFindings(network),
  ];
}

function partsFinding({ steps: tried }: NetworkFacts): Finding {
  if (!tried) {
    return {
      area: "network",
      title: "networks were not tried",
      level: "info",
      facts: {},
      meaning: "Making one, to see whether it can be made, needs root.",
      advice: "Run this as root.",
    };
  }
  const failed = Object.entries(tried).filter(([, failure]) => failure !== "");
  const facts = Object.fromEntries(
    Object.entries(tried).map(([step, failure]) => [step, failure === "" ? "works" : failure]),
  );
  const [first] = failed;
  if (!first) {
    return {
      area: "network",
      title: "namespaces, bridges, taps and firewall rules work",
      level: "ok",
      facts,
      meaning: "Guests get networks of their own that cannot meet.",
      advice: "",
    };
  }
  const onlyTap = failed.length === 1 && first[0] === "tap";
  return {
    area: "network",
    title: `a network cannot be made: ${failed.map(([step]) => step).join(", ")}`,
    level: "problem",
    facts,
    meaning: onlyTap
      ? "Virtual machines cannot join networks; containers can."
      : "No guest can be started, because every guest is in a network.",
    advice: onlyTap
      ? "Load the kernel's module: modprobe tun. In a container, /dev/net/tun must be allowed from outside."
      : "Install iproute2 and nftables, and load the kernel's modules: modprobe -a veth bridge nf_tables nft_masq nft_ct.",
  };
}

function forwardingFinding({ forwarding, droppers }: NetworkFacts): Finding {
  const facts = {
    ip_forward: forwarding ? "1" : "0",
    "chains that drop": droppers.join("; ") || "none",
  };
  if (droppers.length === 0) {
    return {
      area: "network",
      title: forwarding ? "this machine forwards packets" : "this machine does not forward packets yet",
      level: "ok",
      facts,
      meaning: forwarding
        ? "Guests reach the outside behind this machine's address."
        : "Strata switches it on with the first network and back with the last.",
      advice: "",
    };
  }
  return {
    area: "network",
    title: "another firewall drops forwarded packets that it does not know (Docker, ufw, firewalld, …)",
    level: "info",
    facts,
    meaning:
      "Strata adds two rules to it that accept its own uplinks, and mends them; after a restart of that firewall, guests may be cut off from the outside for some seconds.",
    advice: "",
  };
}

function conflictFindings({ conflicts, pool }: NetworkFacts): Finding[] {
  const [first] = conflicts;
  if (!first) return [];
  return [
    {
      area: "network",
      title: `the pool for networks, ${pool}, is partly in use: ${first.device} has ${first.range}`,
      level: "warning",
      facts: Object.fromEntries(conflicts.map(({ device, range }) => [range, device])),
      meaning: "A network that would get one of these addresses is refused.",
      advice: "Choose another pool (--network-pool), or give networks ranges of their own.",
    },
  ];
}

function resolverFindings({ resolvFile }: NetworkFacts): Finding[] {
  if (resolvFile !== undefined) return [];
  return [
    {
      area: "network",
      title: "no DNS server that guests can reach is known",
      level: "warning",
      facts: { "looked in": resolvFiles.join(", ") },
      meaning:
        "Guests resolve one another, and nothing outside: a server on this machine's loopback cannot be reached from their networks.",
      advice: "Name a DNS server by another address than 127.0.0.0/8 in /etc/resolv.conf.",
    },
  ];
}

const triedNetwork: NetworkRequest = {
  uid: "0000000000000000",
  cidr: "192.0.2.0/24",
  ipv6Cidr: "fd00:192:2::/48",
  domain: "doctor.internal",
  hostRoute: false,
  internet: true,
  subnets: [
    {
      name: "doctor",
      index: 0,
      cidr: "192.0.2.0/25",
      gateway: "192.0.2.1",
      ipv6Cidr: "fd00:192:2::/64",
      ipv6Gateway: "fd00:192:2::1",
    },
  ],
  peerings: [],
};

async function trySteps(signal: AbortSignal): Promise<Record<string, string>> {
  const directory = await mkdtemp("/tmp/strata-doctor-");
  const ipv6 = await access("/proc/net/if_inet6").then(
    () => true,
    () => false,
  );
  const plan = planNetwork({ namespace: "doctor", runDir: directory }, triedNetwork, {
    mtu: 1500,
    ipv6,
    outside6: ipv6,
  });
  const network = { ...plan, pair: uplinkPair(1), joined: new Set<string>() };
  const nothing = { netns: { state: "absent" }, uplink: "absent", services: {}, forgotten: false } as const;
  const needs = planMending(network, nothing).inside;
  assert(needs, "a network that is not there is to be made");
  const rules = planNetworkRules(firewallNetwork(network), emptyPolicy, new ProfileNumbers());
  try {
    await writeFile(join(directory, "bridge.ip"), text(needs.makes));
    await writeFile(join(directory, "addresses.ip"), text(needs.addresses));
    await writeFile(join(directory, "routing4.ip"), text(needs.routing[4]));
    await writeFile(join(directory, "routing6.ip"), text(needs.routing[6]));
    await writeFile(join(directory, "network.nft"), renderWhole(rules));
    await writeFile(join(directory, "host.nft"), renderHostRules("doctor"));
    const args = ["--net", "sh", "-c", tryAll, "sh", directory];
    return parseSteps((await run("unshare", args, { signal, timeoutMs: 20_000 })).stdout);
  } catch (cause) {
    if (!hasCode(cause, "Internal", "Unavailable", "Timeout")) throw cause;
    return { ...parseSteps(""), namespace: cause.message };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function findDroppers(namespace: string, signal: AbortSignal): Promise<string[]> {
  const nft = async (args: string[]) => (await run("nft", ["-j", "list", ...args], { signal })).stdout;
  try {
    const droppers: string[] = [];
    for (const chain of findForwardChains(await nft(["chains"]), hostTable(namespace))) {
      const name = [chain.family, chain.table, chain.name];
      const final =
        chain.policy === "drop" || parseRules(await nft(["chain", ...name]), chain).some((r) => r.final);
      if (final) droppers.push(name.join(" "));
    }
    return droppers;
  } catch (cause) {
    if (!hasCode(cause, "Internal", "Unavailable", "Timeout")) throw cause;
    return []; // the rules were tried before; that finding says it
  }
}
