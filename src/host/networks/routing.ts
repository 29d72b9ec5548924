/**
 * Where packets go inside a network, as rules and routes of its namespace. Pure.
 *
 * In order of priority:
 *
 *     100  what is bound to the uplink             table 900: the outside
 *     200  the network's own range                 main: its subnets, and nothing else of the range
 *     201  the host's end of the uplink            main
 *     300  marked by the firewall                  table 900 (outside-mark.ts)
 *     1000 + subnet, if it has routes of its own   table 1000 + subnet, which ends in a refusal
 *     32766 everything                             main: the ranges of peers
 *     33000 the gateway's own packets              table 900 (DNS works without a way out)
 *     33001 everything                             table 900, or a refusal
 *
 * A rule or route is compared as the text that `ip` takes, and what the kernel lists is brought to the same form. All of
 * ours have a protocol number of their own; nothing else in the namespace is touched.
 */
import * as z from "zod";
import { type IpFamily, widthOf } from "../../core/ip-range.ts";
import { innerUplinkName, type NetworkPlan, type PeeringPlan, type SubnetPlan } from "./network-plan.ts";
import { outsideMark } from "./outside-mark.ts";
import type { UplinkPair } from "./uplink-pair.ts";

/** Of our rules and routes; as free as any (/etc/iproute2/rt_protos). */
export const routeProtocol = 83;
const mainTable = 254;
const outsideTable = 900;
const firstSubnetTable = 1000;
const mark = `0x${outsideMark.toString(16)}/0x${outsideMark.toString(16)}`;
/** Both mean "the other end of this link", which alone is there; permanent neighbour entries lead to it. */
export const otherEnd: Readonly<Record<IpFamily, string>> = { 4: "169.254.255.254", 6: "fe80::ffff:ffff" };

/** What a network's plan becomes on this host. */
export interface PlacedNetwork extends NetworkPlan {
  pair: UplinkPair;
  /** Uids of the peerings whose link is there or is to be made. */
  joined: ReadonlySet<string>;
}

export interface Routing {
  /** Each: what follows `ip -FAMILY rule add`. */
  rules: ReadonlySet<string>;
  /** Each: what follows `ip -FAMILY route replace`. */
  routes: ReadonlySet<string>;
}

export function planRouting(network: PlacedNetwork, family: IpFamily): Routing {
  return { rules: planRules(network, family), routes: planRoutes(network, family) };
}

function planRules(network: PlacedNetwork, family: IpFamily): Set<string> {
  const { pair } = network;
  const own = family === 4 ? network.cidr : network.ipv6Cidr;
  const outside = outsideOf(network, family) && network.internet;
  return new Set(
    [
      `pref 100 oif ${innerUplinkName} lookup ${outsideTable}`,
      ...(own === undefined ? [] : [`pref 200 to ${own} lookup ${mainTable}`]),
      `pref 201 to ${family === 4 ? pair.cidr : pair.cidr6} lookup ${mainTable}`,
      `pref 300 fwmark ${mark} lookup ${outsideTable}`,
      ...network.subnets
        .filter((subnet) => subnet.routes)
        .map(
          ({ index, bridge }) =>
            `pref ${firstSubnetTable + index} iif ${bridge} lookup ${firstSubnetTable + index}`,
        ),
      `pref 33000 iif lo lookup ${outsideTable}`,
      outside ? `pref 33001 lookup ${outsideTable}` : "pref 33001 unreachable",
    ].map((rule) => `${rule} protocol ${routeProtocol}`),
  );
}

function planRoutes(network: PlacedNetwork, family: IpFamily): Set<string> {
  const own = family === 4 ? network.cidr : network.ipv6Cidr;
  const found = new Map<string, string>();
  // Of two routes to one destination the first counts, as the kernel has only one.
  const add = (table: number, destination: string, rest: string, metric?: number) => {
    const key = `${table} ${destination} ${metric}`;
    if (!found.has(key)) found.set(key, routeText(family, { destination, rest, table, metric }));
  };
  const source = network.subnets[0]?.[family === 4 ? "v4" : "v6"]?.gateway;
  const viaPeering = (peering: PeeringPlan | undefined) =>
    peering && network.joined.has(peering.uid)
      ? // With this source the gateway's errors go back, and no address of the uplink gets out.
        `via ${otherEnd[family]} dev ${peering.link}${source === undefined ? "" : ` src ${source}`}`
      : refusal;
  const viaUplink = outsideOf(network, family)
    ? `via ${family === 4 ? network.pair.hostAddress : network.pair.hostAddress6} dev ${innerUplinkName}`
    : refusal;

  add(outsideTable, "default", viaUplink);
  // A subnet's own range is a longer prefix; connected routes come with the bridge's address.
  if (own !== undefined && !network.subnets.some((subnet) => subnetCidr(subnet, family) === own)) {
    add(mainTable, own, refusal);
  }
  for (const peering of network.peerings) {
    for (const range of peering.ranges) {
      if (range.family === family) add(mainTable, range.cidr, viaPeering(peering));
    }
  }
  for (const { index, routes } of network.subnets) {
    for (const { destination, target, ...route } of routes ?? []) {
      if (route.family !== family) continue;
      const rest =
        target === "internet"
          ? viaUplink
          : target === "none"
            ? refusal
            : viaPeering(network.peerings.find(({ uid }) => uid === target.peering));
      add(firstSubnetTable + index, destination, rest);
    }
    if (routes) add(firstSubnetTable + index, "default", refusal, 0xffff_ffff);
  }
  return new Set(found.values());
}

const refusal = "unreachable";
/** RTN_UNREACHABLE, as `ip -N` lists it. */
const refusalNumber = "7";

function subnetCidr(subnet: SubnetPlan, family: IpFamily): string | undefined {
  return (family === 4 ? subnet.v4 : subnet.v6)?.cidr;
}

function outsideOf(network: NetworkPlan, family: IpFamily): boolean {
  return family === 4 || network.outside6;
}

interface RouteParts {
  destination: string;
  rest: string;
  table: number;
  metric: number | undefined;
}

function routeText(family: IpFamily, { destination, rest, table, metric }: RouteParts): string {
  const end = `table ${table}${metric === undefined ? "" : ` metric ${metric}`} proto ${routeProtocol}`;
  const short = destination === "0.0.0.0/0" || destination === "::/0" ? "default" : bare(family, destination);
  return rest === refusal ? `${refusal} ${short} ${end}` : `${short} ${rest} ${end} onlink`;
}

/** The kernel lists a single address without its prefix length. */
function bare(family: IpFamily, cidr: string): string {
  const end = `/${widthOf(family)}`;
  return cidr.endsWith(end) ? cidr.slice(0, -end.length) : cidr;
}

const ruleSchema = z.object({
  priority: z.number(),
  src: z.string().optional(),
  dst: z.string().optional(),
  dstlen: z.number().optional(),
  iif: z.string().optional(),
  oif: z.string().optional(),
  fwmark: z.string().optional(),
  fwmask: z.string().optional(),
  table: z.string().optional(),
  action: z.string().optional(),
  protocol: z.string().optional(),
});

const routeSchema = z.object({
  type: z.string().optional(),
  dst: z.string(),
  gateway: z.string().optional(),
  dev: z.string().optional(),
  table: z.string().optional(),
  prefsrc: z.string().optional(),
  metric: z.number().optional(),
});

/** From `ip -N -j -FAMILY rule show`: ours, as planned ones are written. */
export function parseRules(json: string, family: IpFamily): Set<string> {
  const rules = z.array(ruleSchema).parse(JSON.parse(json || "[]"));
  return new Set(
    rules
      .filter(({ protocol }) => protocol === String(routeProtocol))
      .map((rule) =>
        [
          `pref ${rule.priority}`,
          ...(rule.dst === undefined ? [] : [`to ${rule.dst}/${rule.dstlen ?? widthOf(family)}`]),
          ...(rule.fwmark === undefined ? [] : [`fwmark ${rule.fwmark}/${rule.fwmask ?? "0xffffffff"}`]),
          ...(rule.iif === undefined ? [] : [`iif ${rule.iif}`]),
          ...(rule.oif === undefined ? [] : [`oif ${rule.oif}`]),
          rule.table === undefined ? actionName(rule.action) : `lookup ${rule.table}`,
          `protocol ${routeProtocol}`,
        ].join(" "),
      ),
  );
}

/** FR_ACT_UNREACHABLE, which `ip -N` lists by the number of the route type of that name. */
function actionName(action = ""): string {
  return action === refusalNumber ? refusal : action;
}

/** From `ip -N -j -FAMILY route show table all proto 83`. */
export function parseRoutes(json: string, family: IpFamily): Set<string> {
  const routes = z.array(routeSchema).parse(JSON.parse(json || "[]"));
  return new Set(
    routes.map(({ type, dst, gateway, dev, table, prefsrc, metric }) => {
      const refused = type === refusalNumber;
      const via = `via ${gateway} dev ${dev}${prefsrc === undefined ? "" : ` src ${prefsrc}`}`;
      // Without one, IPv6 has 1024 and IPv4 none.
      const own = metric === 1024 && family === 6 ? undefined : metric;
      return routeText(family, {
        destination: dst,
        rest: refused ? refusal : via,
        table: Number(table ?? mainTable),
        metric: own,
      });
    }),
  );
}
