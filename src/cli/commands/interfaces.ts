/** Further network cards of instances. */
import { StrataError } from "../../core/errors.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { interfaceForm } from "../show-networks.ts";
import { awaitState } from "./await-state.ts";
import { createResource, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources } from "./listings.ts";

const group = "Networks";
const interfaceArgument = {
  name: "<interface>",
  summary: "its name",
  completes: "network-interfaces",
} as const;

export const interfaceCommands: readonly CommandSpec[] = [
  {
    path: "interface create",
    group,
    summary: "Create a network card with addresses of its own",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      { flags: "--network <name>", summary: "its network (default: default)" },
      { flags: "--subnet <name>", summary: "its subnet, where the network has several" },
      { flags: "--ip <address>", summary: "its address (default: a free one)" },
      { flags: "--ipv6 <address>", summary: "its IPv6 address (default: a free one)" },
      {
        flags: "--security-group <name>",
        summary: "who may talk to it (default: default)",
        repeatable: true,
      },
      { flags: "--instance <name>", summary: "plug it in at once" },
    ],
    examples: ["strata interface create backup --network storage --instance lms"],
    run: create,
  },
  {
    path: "interface list",
    group,
    summary: "List network cards beyond instances' own",
    options: listOptions,
    examples: ["strata interface list"],
    run: (call) => listResources(call, "network-interfaces"),
  },
  {
    path: "interface attach",
    group,
    summary: "Plug a network card into an instance, also while it runs",
    arguments: [
      interfaceArgument,
      { name: "<instance>", summary: "name or beginning of the id", completes: "instances" },
    ],
    examples: ["strata interface attach backup lms"],
    run: attach,
  },
  {
    path: "interface detach",
    group,
    summary: "Unplug a network card; it keeps its addresses",
    arguments: [interfaceArgument],
    examples: ["strata interface detach backup"],
    run: detach,
  },
  {
    path: "interface delete",
    group,
    summary: "Delete network cards that are unplugged",
    arguments: [{ ...interfaceArgument, name: "<interface...>" }],
    examples: ["strata interface delete backup"],
    run: (call) => deleteResources(call, "network-interfaces", call.args),
  },
];

function create(call: Call): Promise<Output> {
  const { options } = call;
  const groups = options.texts("security-group");
  return createResource(call, networkInterfaceKind, interfaceForm, {
    network: options.text("network") ?? "default",
    subnet: options.text("subnet"),
    ipAddress: options.text("ip"),
    ipv6Address: options.text("ipv6"),
    securityGroups: groups.length === 0 ? undefined : [...groups],
    instance: options.text("instance"),
  });
}

async function attach(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const card = await resolve(client, networkInterfaceKind, project, args[0] ?? "", signal);
  const instance = await resolve(client, instanceKind, project, args[1] ?? "", signal);
  const { name } = card.metadata;
  const to = instance.metadata.name;
  const { instance: from } = card.spec;
  if (from !== undefined && from !== to) {
    throw new StrataError(
      "Conflict",
      `interface "${name}" is plugged into "${from}": \`strata interface detach ${name}\` unplugs it`,
    );
  }
  const patched = await client.patch(
    networkInterfaceKind,
    { project, name },
    { spec: { instance: to } },
    { signal },
  );
  session.onInterrupt("interrupted; it goes on in the background: see `strata interface list`");
  const running = instance.status.state === "running";
  const settled = running
    ? await awaitState(client, session, networkInterfaceKind, patched, ["attached"])
    : patched;
  return tableOf(interfaceForm, settled);
}

async function detach(call: Call): Promise<Output> {
  const { session, args } = call;
  const { project, signal } = session;
  const client = await session.client();
  const card = await resolve(client, networkInterfaceKind, project, args[0] ?? "", signal);
  const patched = await client.patch(
    networkInterfaceKind,
    { project, name: card.metadata.name },
    { spec: { instance: null } },
    { signal },
  );
  session.onInterrupt("interrupted; it goes on in the background: see `strata interface list`");
  const settled = await awaitState(client, session, networkInterfaceKind, patched, ["available"]);
  return tableOf(interfaceForm, settled);
}
