/** Looking at one network: the host's side from /proc and /sys, the inside by one process in its namespace. */
import { readFile, stat, statfs } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { run } from "../run.ts";
import { observeHostRoutes } from "./host-side.ts";
import { parseAddresses } from "./kernel-json.ts";
import { defaultDevices6, parseRoutes, type Route } from "./kernel-tables.ts";
import type { SeenInside, SeenNetwork } from "./mending.ts";
import type { HostFacts, NetworkNames, NetworkPlan } from "./network-plan.ts";
import { parseRoutes as parseInnerRoutes, parseRules, type Routing, routeProtocol } from "./routing.ts";
import { planSysctls } from "./sysctls.ts";
import { pairOf, type UplinkPair } from "./uplink-pair.ts";

/** Type of the file system that bound namespaces belong to (NSFS_MAGIC in linux/magic.h). */
const nsfsMagic = 0x6e73_6673;
const separator = "=== strata ===";
const scriptTimeoutMs = 15_000;
const sysctlRoot = "/proc/sys/net/";

/** Arguments: "6" when the network has IPv6, then the files of the settings. Each part may be empty. */
const showInside = `
six=$1; shift
ip -j address show
echo; echo "${separator}"
for family in 4 6; do
  [ $family = 4 ] || [ "$six" = 6 ] || { echo "${separator}"; echo "${separator}"; continue; }
  ip -N -j -$family rule show
  echo; echo "${separator}"
  ip -N -j -$family route show table all proto ${routeProtocol}
  echo; echo "${separator}"
done
grep -s . "$@" || true`;

export interface HostState extends HostFacts {
  /** Routes of the host's main table. */
  routes: Route[];
  /** Interfaces by which the host reaches the outside with IPv6. */
  outsideDevices6: string[];
}

/** Read anew each time: it changes with the host's networks. */
export async function readHost(): Promise<HostState> {
  const [routes, text6] = await Promise.all([
    readFile("/proc/net/route", "utf8").then(parseRoutes),
    readFile("/proc/net/ipv6_route", "utf8").catch(() => undefined), // a kernel without IPv6
  ]);
  const outsideDevices6 = defaultDevices6(text6 ?? "");
  return {
    routes,
    outsideDevices6,
    mtu: await outsideMtu(routes),
    ipv6: text6 !== undefined,
    outside6: outsideDevices6.length > 0,
  };
}

/** Whether a namespace is bound to the network's name. */
export async function netnsState(names: NetworkNames): Promise<"absent" | "leftover" | "there"> {
  try {
    return (await statfs(names.netnsPath)).type === nsfsMagic ? "there" : "leftover";
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return "absent";
    throw cause;
  }
}

/** The namespace; `inside` is looked at by running something there. */
export async function observeNetns(plan: NetworkPlan, signal: AbortSignal): Promise<SeenNetwork["netns"]> {
  try {
    const state = await netnsState(plan);
    if (state !== "there") return { state };
    const { ino } = await stat(plan.netnsPath);
    return { state, inode: ino, inside: await observeInside(plan, signal) };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return { state: "absent" };
    throw cause;
  }
}

async function observeInside(plan: NetworkPlan, signal: AbortSignal): Promise<SeenInside> {
  const files = [...planSysctls(plan).keys()].map((path) => `${sysctlRoot}${path}`);
  const family = plan.ipv6Cidr === undefined ? "4" : "6";
  const args = [`--net=${plan.netnsPath}`, "sh", "-c", showInside, "sh", family, ...files];
  const { stdout } = await run("nsenter", args, { signal, timeoutMs: scriptTimeoutMs });
  const parts = stdout.split(`${separator}\n`).map((part) => part.trim());
  const [links = "", rules4 = "", routes4 = "", rules6 = "", routes6 = "", sysctls = ""] = parts;
  const routing = (rules: string, routes: string, of: 4 | 6): Routing => ({
    rules: parseRules(rules, of),
    routes: parseInnerRoutes(routes, of),
  });
  return {
    links: parseAddresses(links),
    routing: { 4: routing(rules4, routes4, 4), 6: routing(rules6, routes6, 6) },
    sysctls: parseSysctls(sysctls),
  };
}

/** `grep` on several files: `FILE:VALUE` each. */
function parseSysctls(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const line of text.split("\n")) {
    const end = line.lastIndexOf(":");
    if (line.startsWith(sysctlRoot)) found.set(line.slice(sysctlRoot.length, end), line.slice(end + 1));
  }
  return found;
}

/** `ready`: up, with its other end up, addressed, and with the routes that lead there. */
export async function observeUplink(
  plan: NetworkPlan,
  pair: UplinkPair,
  signal: AbortSignal,
): Promise<SeenNetwork["uplink"]> {
  if (!(await linkExists(plan.uplink))) return "absent";
  const addresses = networkInterfaces()[plan.uplink] ?? []; // none while a link does not run
  const has = (wanted: string) => addresses.some(({ address }) => address === wanted);
  if (!has(pair.hostAddress) || (plan.ipv6Cidr !== undefined && !has(pair.hostAddress6))) return "broken";
  if (
    (await readFile(`/sys/class/net/${plan.uplink}/mtu`, "utf8").catch(() => "")).trim() !== String(plan.mtu)
  ) {
    return "broken";
  }
  const { rule, table, main } = await observeHostRoutes(plan, pair, signal);
  return rule && table && (main || !plan.hostRoute) ? "ready" : "broken";
}

export async function linkExists(name: string): Promise<boolean> {
  return (await stat(`/sys/class/net/${name}`).catch(() => undefined)) !== undefined;
}

/** What fits through the interface of the default route, at most 1500. */
async function outsideMtu(routes: readonly Route[]): Promise<number> {
  const device = routes.find((route) => route.range.prefixLength === 0)?.device;
  if (device === undefined) return 1500;
  const mtu = Number(await readFile(`/sys/class/net/${device}/mtu`, "utf8").catch(() => "1500"));
  return Math.max(1280, Math.min(1500, mtu));
}

/** The pair of an uplink that runs. */
export function seenPair(uplink: string): UplinkPair | undefined {
  for (const { address } of networkInterfaces()[uplink] ?? []) {
    const pair = pairOf(address);
    if (pair?.hostAddress === address) return pair;
  }
  return undefined;
}
