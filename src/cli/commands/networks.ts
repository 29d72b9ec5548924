/** Networks, subnets, route tables and peerings. */
import { writeFile } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { type Network, networkKind } from "../../kinds/network.ts";
import { peeringKind } from "../../kinds/peering.ts";
import { parseTarget } from "../../kinds/reachability/ends.ts";
import { traceRoute } from "../../kinds/reachability/trace.ts";
import { routeTableKind } from "../../kinds/route-table.ts";
import { subnetKind } from "../../kinds/subnet.ts";
import type { Call, CommandSpec } from "../command.ts";
import { networkTree } from "../networks/network-tree.ts";
import { networkPicture } from "../networks/picture.ts";
import { readWorld } from "../networks/read-world.ts";
import { drawNetwork } from "../networks/svg.ts";
import { traceBranches } from "../networks/trace-tree.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson } from "../show.ts";
import { networkForm, peeringForm, routeTableForm, subnetForm } from "../show-networks.ts";
import { createResource } from "./creation.ts";
import { deleteResources, listOptions, listResources } from "./listings.ts";

const group = "Networks";
const networkArgument = { name: "<network>", summary: "its name", completes: "networks" } as const;
const networkOption = { flags: "--network <name>", summary: "its network (default: default)" };

export const networkCommands: readonly CommandSpec[] = [
  {
    path: "network create",
    group,
    summary: "Create a virtual network",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      {
        flags: "--cidr <range>",
        summary: "any private range; other networks may have the same (default: a free one)",
      },
      { flags: "--ipv6-cidr <range>", summary: "a unique local /48 (default: a random one)" },
      {
        flags: "--custom-subnets",
        summary: "no subnet but those that you create (default: one over the whole range)",
      },
      { flags: "--no-internet", summary: "no way to the outside but what route tables and addresses give" },
      {
        flags: "--host-route",
        summary: "the host's own routes lead to it (default: only where Strata chose the range)",
      },
      { flags: "--mtu <bytes>", summary: "largest packet (default: that of the host's way to the outside)" },
    ],
    examples: [
      "strata network create lab",
      "strata network create shop --cidr 10.0.0.0/16 --custom-subnets --no-internet",
    ],
    run: createNetwork,
  },
  {
    path: "network list",
    group,
    summary: "List virtual networks",
    options: listOptions,
    examples: ["strata network list -p campus"],
    run: (call) => listResources(call, "networks"),
  },
  {
    path: "network show",
    group,
    summary: "Draw a network: subnets, routes, instances, what is published, who may talk to whom",
    arguments: [networkArgument],
    options: [{ flags: "--svg <file>", summary: "write the drawing to a file" }],
    examples: ["strata network show shop", "strata network show shop --svg shop.svg"],
    run: showNetwork,
  },
  {
    path: "network trace",
    group,
    summary: "Say rule by rule whether a packet passes, and why; the exit status is 1 when it does not",
    arguments: [
      { name: "<from>", summary: "an instance, an address, `outside` or `host`", completes: "instances" },
      { name: "<to>", summary: "TO:PORT, TO:PORT/udp or TO/icmp", completes: "instances" },
    ],
    options: [{ flags: "-6, --ipv6", summary: "by the instances' IPv6 addresses" }],
    examples: [
      "strata network trace web db:5432",
      "strata network trace outside web:443",
      "strata network trace 10.0.1.10 10.0.2.1:53/udp --json",
    ],
    run: traceNetwork,
  },
  {
    path: "network peer",
    group,
    summary: "Join two networks whose ranges do not overlap",
    arguments: [
      networkArgument,
      { name: "<peer>", summary: "the other one, or PROJECT/NETWORK", completes: "networks" },
    ],
    options: [{ flags: "--name <name>", summary: "of the peering (default: made of both)" }],
    examples: ["strata network peer shop office", "strata network peer shop partner/warehouse"],
    run: peerNetworks,
  },
  {
    path: "network unpeer",
    group,
    summary: "Part networks again",
    arguments: [{ name: "<peering...>", summary: "names of peerings", completes: "peerings" }],
    examples: ["strata network unpeer shop-office"],
    run: (call) => deleteResources(call, "peerings", call.args),
  },
  {
    path: "network delete",
    group,
    summary: "Delete networks that nothing uses any more",
    arguments: [{ ...networkArgument, name: "<network...>" }],
    examples: ["strata network delete lab"],
    run: (call) => deleteResources(call, "networks", call.args),
  },
  {
    path: "subnet create",
    group,
    summary: "Create a subnet in a network with custom subnets",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      networkOption,
      { flags: "--cidr <range>", summary: "part of the network's range (required)" },
      { flags: "--ipv6-cidr <range>", summary: "a /64 of the network's (default: a free one)" },
      {
        flags: "--route-table <name>",
        summary: "where its packets may go (default: the network's own routes)",
      },
    ],
    examples: ["strata subnet create inner --network shop --cidr 10.0.2.0/24"],
    run: createSubnet,
  },
  {
    path: "subnet list",
    group,
    summary: "List subnets",
    options: listOptions,
    examples: ["strata subnet list"],
    run: (call) => listResources(call, "subnets"),
  },
  {
    path: "subnet delete",
    group,
    summary: "Delete subnets that no network card is in",
    arguments: [{ name: "<subnet...>", summary: "their names", completes: "subnets" }],
    examples: ["strata subnet delete inner"],
    run: (call) => deleteResources(call, "subnets", call.args),
  },
  {
    path: "route-table create",
    group,
    summary: "Create a route table for subnets of a network",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      networkOption,
      {
        flags: "--route <range=target>",
        summary: "target: internet, none or the name of a peering",
        repeatable: true,
      },
    ],
    examples: ["strata route-table create closed --network shop --route 10.1.0.0/16=shop-office"],
    run: createRouteTable,
  },
  {
    path: "route-table list",
    group,
    summary: "List route tables",
    options: listOptions,
    examples: ["strata route-table list"],
    run: (call) => listResources(call, "route-tables"),
  },
  {
    path: "route-table delete",
    group,
    summary: "Delete route tables that no subnet has",
    arguments: [{ name: "<table...>", summary: "their names", completes: "route-tables" }],
    examples: ["strata route-table delete closed"],
    run: (call) => deleteResources(call, "route-tables", call.args),
  },
];

function createNetwork(call: Call): Promise<Output> {
  const { options } = call;
  return createResource(call, networkKind, networkForm, {
    cidr: options.text("cidr"),
    ipv6Cidr: options.text("ipv6-cidr"),
    subnets: options.flag("custom-subnets") ? "custom" : undefined,
    internet: options.off("internet") ? false : undefined,
    hostRoute: options.flag("host-route") ? true : undefined,
    mtu: options.count("mtu"),
  });
}

function createSubnet(call: Call): Promise<Output> {
  const { options } = call;
  const cidr = options.text("cidr");
  if (cidr === undefined)
    throw new StrataError("Invalid", "say which part of the network's range: --cidr RANGE");
  return createResource(call, subnetKind, subnetForm, {
    network: options.text("network") ?? "default",
    cidr,
    ipv6Cidr: options.text("ipv6-cidr"),
    routeTable: options.text("route-table"),
  });
}

function createRouteTable(call: Call): Promise<Output> {
  const { options } = call;
  return createResource(call, routeTableKind, routeTableForm, {
    network: options.text("network") ?? "default",
    routes: options.texts("route").map(parseRoute),
  });
}

function parseRoute(text: string): JsonObject {
  const [, destination, target] = /^([^=]+)=(.+)$/.exec(text) ?? [];
  if (destination === undefined || target === undefined) {
    throw new StrataError(
      "Invalid",
      `--route must be RANGE=TARGET, such as 0.0.0.0/0=internet, not "${text}"`,
    );
  }
  return target === "internet" || target === "none"
    ? { destination, target }
    : { destination, target: "peering", via: target };
}

function peerNetworks(call: Call): Promise<Output> {
  const [network = "", peer = ""] = call.args;
  const [first = "", second] = peer.split("/");
  const peerNetwork = second ?? first;
  return createResource(
    call,
    peeringKind,
    peeringForm,
    { network, peerNetwork, peerProject: second === undefined ? undefined : first },
    call.options.text("name") ?? `${network}-${peerNetwork}`.slice(0, 63).replace(/-+$/, ""),
  );
}

async function showNetwork(call: Call): Promise<Output> {
  const { session } = call;
  const client = await session.client();
  const network: Network = await resolve(
    client,
    networkKind,
    session.project,
    call.args[0] ?? "",
    session.signal,
  );
  const world = await readWorld(client, session.project, session.signal);
  const picture = networkPicture(world, network);
  const file = call.options.text("svg");
  if (file === undefined) return { type: "tree", branches: networkTree(picture), json: asJson(picture) };
  const path = resolvePath(session.cwd, file);
  await writeFile(path, drawNetwork(picture)).catch((cause: NodeJS.ErrnoException) => {
    throw new StrataError("Invalid", `cannot write the drawing to ${path} (${cause.code})`, { cause });
  });
  return { type: "message", text: `drawn in ${path}`, json: asJson(picture) };
}

async function traceNetwork(call: Call): Promise<Output> {
  const { session } = call;
  const [from = "", to = ""] = call.args;
  const target = parseTarget(to);
  const world = await readWorld(await session.client(), session.project, session.signal);
  const family = call.options.flag("ipv6") ? 6 : 4;
  const trace = traceRoute(world, { project: session.project, from, to: target, family });
  return {
    type: "tree",
    branches: traceBranches(trace),
    json: asJson(trace),
    status: trace.passes ? 0 : 1,
  };
}
