/** Looking at one network: the host's side from /proc and /sys, the inside by one process in its namespace. */
import { readFile, stat, statfs } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { run } from "../run.ts";
import {
  parseForwarding,
  parseLinks,
  parseLocalAddresses,
  parseRoutes,
  type Route,
} from "./kernel-tables.ts";
import type { SeenInside, SeenNetwork } from "./mending.ts";
import type { NetworkNames, NetworkPlan } from "./network-plan.ts";

/** Type of the file system that bound namespaces belong to (NSFS_MAGIC in linux/magic.h). */
const nsfsMagic = 0x6e73_6673;
const separator = "=== strata ===";
const scriptTimeoutMs = 15_000;

/** Ends both scripts. `tail` writes each file's name before it. */
const showInside = `
(cd /proc/self/net && tail -n +1 dev route fib_trie snmp)
echo "${separator}"
nft -s list ruleset`;

/**
 * Argument: the directory with the generated files. IPv6 is off inside: nothing would hand out its addresses, and a
 * guest could.
 */
const mendInside = `
set -e
cd "$1"
echo 1 >/proc/sys/net/ipv4/ip_forward
for scope in all default; do
  echo 1 >"/proc/sys/net/ipv4/conf/$scope/rp_filter"
  echo 0 >"/proc/sys/net/ipv4/conf/$scope/send_redirects"
  [ ! -e "/proc/sys/net/ipv6/conf/$scope" ] || echo 1 >"/proc/sys/net/ipv6/conf/$scope/disable_ipv6"
done
ip link show dev br0 >/dev/null 2>&1 || ip -batch bridge.ip
ip -batch links.ip
# A guest that was asked for before it was up is asked for again at once, not a second later.
echo 50 >/proc/sys/net/ipv4/neigh/br0/retrans_time_ms
nft -f rules.nft
${showInside}`;

/** Routes of the host's main table. */
export async function readHostRoutes(): Promise<Route[]> {
  return parseRoutes(await readFile("/proc/net/route", "utf8"));
}

/** The namespace; `inside` is looked at by running something there. */
export async function observeNetns(names: NetworkNames, signal: AbortSignal): Promise<SeenNetwork["netns"]> {
  try {
    if ((await statfs(names.netnsPath)).type !== nsfsMagic) return { state: "leftover" };
    const { ino } = await stat(names.netnsPath);
    return { state: "there", inode: ino, inside: await runInside(names, ["-c", showInside], signal) };
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === "ENOENT") return { state: "absent" };
    throw cause;
  }
}

/** Mends links and rules from the generated files, and says what is there afterwards. */
export function mendInsideOf(names: NetworkNames, signal: AbortSignal): Promise<SeenInside> {
  return runInside(names, ["-c", mendInside, "sh", names.directory], signal);
}

/** `ready`: up, with its other end up, and addressed. */
export async function observeUplink(plan: NetworkPlan): Promise<SeenNetwork["uplink"]> {
  if (!(await linkExists(plan.uplink))) return "absent";
  const addresses = networkInterfaces()[plan.uplink] ?? []; // none while a link does not run
  return addresses.some(({ address }) => address === plan.hostAddress) ? "ready" : "broken";
}

export async function linkExists(name: string): Promise<boolean> {
  return (await stat(`/sys/class/net/${name}`).catch(() => undefined)) !== undefined;
}

/** What fits through the interface of the default route, at most 1500. */
export async function outsideMtu(routes: readonly Route[]): Promise<number> {
  const device = routes.find((route) => route.range.prefixLength === 0)?.device;
  if (device === undefined) return 1500;
  const mtu = Number(await readFile(`/sys/class/net/${device}/mtu`, "utf8").catch(() => "1500"));
  return Math.max(1280, Math.min(1500, mtu));
}

async function runInside(
  names: NetworkNames,
  script: readonly string[],
  signal: AbortSignal,
): Promise<SeenInside> {
  const args = [`--net=${names.netnsPath}`, "sh", ...script];
  const { stdout } = await run("nsenter", args, { signal, timeoutMs: scriptTimeoutMs });
  const [tables = "", rules = ""] = stdout.split(`${separator}\n`);
  const table = (name: string) =>
    tables.split(/^==> /m).find((part) => part.startsWith(`${name} <==\n`)) ?? "";
  return {
    links: parseLinks(table("dev")),
    routes: parseRoutes(bodyOf(table("route"))),
    addresses: parseLocalAddresses(table("fib_trie")),
    forwarding: parseForwarding(table("snmp")),
    rules,
  };
}

/** Without the line with the file's name. */
function bodyOf(part: string): string {
  return part.slice(part.indexOf("\n") + 1);
}
