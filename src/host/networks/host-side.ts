/**
 * The host's side of a network: its namespace, the host's end of the uplink, and what leads there.
 *
 * Several daemons on one host choose addresses from the same pool, so each makes and removes its parts while it holds a
 * lock that all know; a choice made before is checked again under it. A tool that outlives its daemon, killed in the middle,
 * still holds the lock, so whoever comes next sees its work completed.
 */
import { join } from "node:path";
import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import { type IpRange, parseRange } from "../../core/ip-range.ts";
import { run } from "../run.ts";
import { parseAddresses } from "./kernel-json.ts";
import type { Route } from "./kernel-tables.ts";
import type { NetworkNames, NetworkPlan } from "./network-plan.ts";
import { routeProtocol } from "./routing.ts";
import { runWithUs } from "./run-with-us.ts";
import { chooseFreePair, hostRulePriority, pairOf, type UplinkPair, uplinkPool } from "./uplink-pair.ts";

/** Below /run, where every daemon of the host finds it. */
const lockFile = "/run/strata-uplinks.lock";
const lockWaitSeconds = 30;
const takenStatus = 3;

/**
 * Arguments: the directory with the generated files, the uplink, the pair, the host's address, the table, "6" when the
 * uplink has IPv6.
 */
const makeScript = `
set -e
others=$(ip -o -4 address show to "$3" | grep -v "^[0-9]*: $2 " || true)
[ -z "$others" ] || exit ${takenStatus}
ip -batch "$1/host-links.ip"
if [ -d "/proc/sys/net/ipv6/conf/$2" ]; then
  cd "/proc/sys/net/ipv6/conf/$2"
  if [ "$6" = 6 ]; then echo 0 >accept_dad; echo 0 >accept_ra; echo 0 >disable_ipv6; else echo 1 >disable_ipv6; fi
fi
ip -batch "$1/host-routes.ip"
said=$(ip rule add pref ${hostRulePriority} from "$4" lookup "$5" protocol ${routeProtocol} 2>&1) || case $said in
  *"File exists"*) ;;
  *) echo "$said" >&2; exit 1 ;;
esac`;

/**
 * Arguments: the uplink, the namespace, its path. The uplink may be going away by itself, with a namespace that is no more.
 * Links of peerings go at once, not some time after their namespace: peers look whether they are there.
 */
const removeScript = `
if [ -e "/sys/class/net/$1" ]; then ip link del dev "$1" || [ ! -e "/sys/class/net/$1" ] || exit 1; fi
[ -e "$3" ] || exit 0
for link in $(ip -n "$2" -o link show 2>/dev/null | sed -n 's/^[0-9]*: \\(p[0-9a-z]\\{14\\}\\)@.*/\\1/p'); do
  ip -n "$2" link del dev "$link" 2>/dev/null || true
done
ip netns del "$2"`;

/** Makes what `host-links.ip` and `host-routes.ip` say. False: the pair has been taken meanwhile, nothing was made. */
export async function makeHostSide(
  plan: NetworkPlan,
  pair: UplinkPair,
  signal: AbortSignal,
): Promise<boolean> {
  const family = plan.ipv6Cidr === undefined ? "4" : "6";
  const args = [plan.directory, plan.uplink, pair.cidr, pair.hostAddress, String(pair.table), family];
  const { status } = await locked(makeScript, args, signal, [0, takenStatus]);
  return status === 0;
}

/** Absent is success. */
export async function removeHostSide(names: NetworkNames, signal: AbortSignal): Promise<void> {
  await locked(removeScript, [names.uplink, names.netns, names.netnsPath], signal);
  await sweepRules(signal);
}

/** Files that `makeHostSide` reads. */
export function hostFiles(plan: NetworkPlan): { links: string; routes: string } {
  return { links: join(plan.directory, "host-links.ip"), routes: join(plan.directory, "host-routes.ip") };
}

async function locked(script: string, args: readonly string[], signal: AbortSignal, expected = [0]) {
  const wait = ["--no-fork", "--wait", String(lockWaitSeconds), lockFile];
  return await runWithUs("flock", [...wait, "sh", "-c", script, "sh", ...args], {
    signal,
    timeoutMs: (lockWaitSeconds + 30) * 1000,
    expected,
  });
}

const rulesSchema = z.array(
  z.object({ priority: z.number(), src: z.string().optional(), table: z.string().optional() }),
);
const routesSchema = z.array(
  z.object({ dst: z.string(), gateway: z.string().optional(), table: z.string().optional() }),
);

/** What leads to a network on the host. */
export interface SeenHostRoutes {
  /** A rule leads whoever sends from the pair's host address to its table. */
  rule: boolean;
  /** In the pair's table, and in the main one. */
  table: boolean;
  main: boolean;
}

export async function observeHostRoutes(
  plan: NetworkPlan,
  pair: UplinkPair,
  signal: AbortSignal,
): Promise<SeenHostRoutes> {
  const input = `rule show pref ${hostRulePriority} from ${pair.hostAddress}\nroute show table all dev ${plan.uplink}\n`;
  const { stdout } = await run("ip", ["-N", "-j", "-4", "-batch", "-"], { input, signal });
  const [rules = "[]", routes = "[]"] = stdout.split("\n").filter((line) => line.startsWith("["));
  const routesHere = routesSchema
    .parse(JSON.parse(routes))
    .filter(({ dst, gateway }) => dst === plan.cidr && gateway === pair.innerAddress);
  return {
    rule: rulesSchema.parse(JSON.parse(rules)).some(({ table }) => table === String(pair.table)),
    table: routesHere.some(({ table }) => table === String(pair.table)),
    main: routesHere.some(({ table }) => table === undefined),
  };
}

/** The pair of an uplink that is there, whatever its state. */
export async function readPair(uplink: string, signal: AbortSignal): Promise<UplinkPair | undefined> {
  const { stdout } = await run("ip", ["-j", "-4", "address", "show", "dev", uplink], {
    signal,
    expected: [0, 1],
  });
  for (const { addresses } of parseAddresses(stdout.trim()).values()) {
    for (const address of addresses) {
      const pair = pairOf(address.replace(/\/.*$/, ""));
      if (pair && address === pair.cidr) return pair;
    }
  }
  return undefined;
}

/** A pair that nothing on the host has; `preferred`: the one that the network had before. */
export async function choosePair(
  names: NetworkNames,
  routes: readonly Route[],
  preferred: UplinkPair | undefined,
  signal: AbortSignal,
): Promise<UplinkPair> {
  const { stdout } = await run("ip", ["-j", "-4", "address", "show"], { signal });
  const inUse: IpRange[] = routes.filter(({ device }) => device !== names.uplink).map(({ range }) => range);
  for (const [device, { addresses }] of parseAddresses(stdout.trim())) {
    if (device !== names.uplink) inUse.push(...addresses.map(rangeOfAddress));
  }
  const free = (pair: UplinkPair) => chooseFreePair(names.netns, inUse, pair.index)?.index === pair.index;
  const pair = preferred && free(preferred) ? preferred : chooseFreePair(names.netns, inUse);
  if (pair) return pair;
  throw new StrataError(
    "CapacityExceeded",
    `network ${names.uid} gets no uplink: all of ${uplinkPool} is in use on this host; free a part of it`,
  );
}

/**
 * Takes away rules whose address no interface has: what is left of uplinks that are gone, of any daemon. An uplink gets its
 * address before its rule, and the rules are read first here, so none that is being made is taken for a rest.
 */
export async function sweepRules(signal: AbortSignal): Promise<void> {
  const list = ["-N", "-j", "-4", "rule", "show", "pref", String(hostRulePriority)];
  const rules = rulesSchema.parse(JSON.parse((await run("ip", list, { signal })).stdout.trim() || "[]"));
  if (rules.length === 0) return;
  const { stdout } = await run("ip", ["-j", "-4", "address", "show"], { signal });
  const present = new Set(
    [...parseAddresses(stdout.trim()).values()].flatMap(({ addresses }) =>
      addresses.map((address) => address.replace(/\/.*$/, "")),
    ),
  );
  const stale = rules.filter(({ src, table }) => {
    const pair = pairOf(src ?? "");
    return pair?.hostAddress === src && table === String(pair?.table) && !present.has(src ?? "");
  });
  for (const { src } of stale) {
    const rule = ["pref", String(hostRulePriority), "from", src ?? "", "protocol", String(routeProtocol)];
    await run("ip", ["-4", "rule", "del", ...rule], { signal, expected: [0, 2] });
  }
}

function rangeOfAddress(address: string): IpRange {
  const range = parseRange(address)?.range;
  return range ?? { family: 4, base: 0n, prefixLength: 0 };
}
