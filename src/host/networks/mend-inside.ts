/** Carrying out, inside a network's namespace, what `planMending` found to be needed. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { hasCode } from "../../core/errors.ts";
import { run } from "../run.ts";
import { text } from "./links.ts";
import type { InsideNeeds } from "./mending.ts";
import type { NetworkPlan, PeeringPlan } from "./network-plan.ts";
import { netnsState } from "./observe.ts";

const scriptTimeoutMs = 15_000;

/**
 * Argument: the directory with the generated files. Settings come before the interfaces that take after them, and again
 * for those that are new; what is dropped may be gone by itself.
 */
const mendScript = `
set -e
cd "$1"
settings() {
  while read -r path value; do
    [ -e "$path" ] || continue
    read -r now <"$path" || true
    [ "$now" = "$value" ] || echo "$value" >"$path"
  done <sysctls
}
drop() { [ ! -s "$1" ] || ip -force $2 -batch "$1" 2>/dev/null || true; }
drop drop.ip
drop drop4.ip -4
drop drop6.ip -6
settings
ip -batch make.ip
settings
ip -batch addresses.ip
ip -4 -batch routing4.ip
[ ! -s routing6.ip ] || ip -6 -batch routing6.ip`;

export async function mendInside(plan: NetworkPlan, needs: InsideNeeds, signal: AbortSignal): Promise<void> {
  const sysctls = [...needs.sysctls].map(([path, value]) => `/proc/sys/net/${path} ${value}`);
  const files: Record<string, readonly string[]> = {
    "drop.ip": needs.drops,
    "drop4.ip": needs.familyDrops[4],
    "drop6.ip": needs.familyDrops[6],
    sysctls,
    "make.ip": needs.makes,
    "addresses.ip": needs.addresses,
    "routing4.ip": needs.routing[4],
    "routing6.ip": needs.routing[6],
  };
  for (const [name, lines] of Object.entries(files)) await writeFile(join(plan.directory, name), text(lines));
  await run("nsenter", [`--net=${plan.netnsPath}`, "sh", "-c", mendScript, "sh", plan.directory], {
    signal,
    timeoutMs: scriptTimeoutMs,
  });
}

/**
 * Makes a peering's link between the namespaces of two networks. False when that is not possible now: the other network is
 * going away, or has the rest of an earlier link, which is removed so that the next attempt succeeds.
 */
export async function makePeeringLink(
  plan: NetworkPlan,
  other: NetworkPlan,
  peering: PeeringPlan,
  signal: AbortSignal,
): Promise<boolean> {
  const { link, macAddress, peerMacAddress } = peering;
  const mtu = String(Math.min(plan.mtu, other.mtu));
  const own = ["name", link, "address", macAddress, "mtu", mtu];
  const peer = ["peer", "name", link, "address", peerMacAddress, "mtu", mtu, "netns", other.netns];
  const inside = (netns: string, ...args: string[]) =>
    ["nsenter", [`--net=${netns}`, "ip", ...args]] as const;
  try {
    const [command, args] = inside(plan.netnsPath, "link", "add", ...own, "type", "veth", ...peer);
    await run(command, args, { signal, timeoutMs: scriptTimeoutMs });
    return true;
  } catch (cause) {
    if (!hasCode(cause, "Internal")) throw cause;
    if ((await netnsState(other)) !== "there") return false;
    const [command, args] = inside(other.netnsPath, "link", "del", "dev", link);
    const { status } = await run(command, args, { signal, timeoutMs: scriptTimeoutMs, expected: [0, 1] });
    if (status !== 0) throw cause; // it was not that
    return false;
  }
}
