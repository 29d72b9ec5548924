/** What makes instances reachable from outside: floating addresses and published ports. */
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import { parseIp } from "../../core/ip-range.ts";
import { randomInt } from "../../core/random.ts";
import { type Address, addressKind } from "../../kinds/address.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { type PublishedPort, publishedPortKind } from "../../kinds/published-port.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { addressForm, publishedPortForm } from "../show-networks.ts";
import { awaitState } from "./await-state.ts";
import { createResource, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources } from "./listings.ts";

const group = "Networks";
const addressArgument = {
  name: "<address>",
  summary: "its name, or the address itself",
  completes: "addresses",
} as const;
const instanceArgument = {
  name: "<instance>",
  summary: "name or beginning of the id",
  completes: "instances",
} as const;
const udp = { flags: "--udp", summary: "a UDP port (default: TCP)" };

export const addressCommands: readonly CommandSpec[] = [
  {
    path: "address allocate",
    group,
    summary: "Take an address of the host's pool",
    arguments: [{ name: "[name]", summary: "its name; left out, one is made up" }],
    options: [
      { flags: "--ip <address>", summary: "this one of the pool (default: a free one)" },
      { flags: "--instance <name>", summary: "assign it at once" },
    ],
    examples: ["strata address allocate www", "strata address allocate www --instance web"],
    run: allocate,
  },
  {
    path: "address list",
    group,
    summary: "List addresses",
    options: listOptions,
    examples: ["strata address list"],
    run: (call) => listResources(call, "addresses"),
  },
  {
    path: "address assign",
    group,
    summary: "Give an address to an instance, also one that another instance has",
    arguments: [addressArgument, instanceArgument],
    examples: ["strata address assign www web-2"],
    run: assign,
  },
  {
    path: "address unassign",
    group,
    summary: "Take an address from its instance, and keep it",
    arguments: [addressArgument],
    examples: ["strata address unassign www"],
    run: unassign,
  },
  {
    path: "address release",
    group,
    summary: "Give addresses back to the pool",
    arguments: [{ ...addressArgument, name: "<address...>" }],
    examples: ["strata address release www"],
    run: release,
  },
  {
    path: "publish",
    group,
    summary: "Let a port of the host lead to an instance; one that is published already is moved",
    arguments: [
      { name: "<port>", summary: "of the host, on all of its own addresses" },
      {
        name: "<instance[:port]>",
        summary: "where it leads (default: the same port)",
        completes: "instances",
      },
    ],
    options: [
      udp,
      { flags: "--name <name>", summary: "of the published port (default: made of protocol and port)" },
    ],
    examples: ["strata publish 8080 web:80", "strata publish 5353 dns:53 --udp"],
    run: publish,
  },
  {
    path: "unpublish",
    group,
    summary: "Close ports of the host that were published",
    arguments: [{ name: "<port...>", summary: "numbers" }],
    options: [udp],
    examples: ["strata unpublish 8080"],
    run: unpublish,
  },
];

async function allocate(call: Call): Promise<Output> {
  const { options, session } = call;
  const name = call.args[0] ?? `address-${1000 + randomInt(session.random, 9000)}`;
  const spec = { ipAddress: options.text("ip"), instance: options.text("instance") };
  return await createResource(call, addressKind, addressForm, spec, name);
}

async function assign(call: Call): Promise<Output> {
  const { session, args } = call;
  const client = await session.client();
  const address = await findAddress(client, session, args[0] ?? "");
  const instance = await resolve(client, instanceKind, session.project, args[1] ?? "", session.signal);
  return await setInstance(client, session, address, instance);
}

async function unassign(call: Call): Promise<Output> {
  const { session } = call;
  const client = await session.client();
  const address = await findAddress(client, session, call.args[0] ?? "");
  return await setInstance(client, session, address, undefined);
}

async function setInstance(
  client: Client,
  session: Session,
  address: Address,
  instance: Instance | undefined,
): Promise<Output> {
  const { project, signal } = session;
  const { name } = address.metadata;
  const spec = { instance: instance?.metadata.name ?? null };
  const patched = await client.patch(addressKind, { project, name }, { spec }, { signal });
  session.onInterrupt("interrupted; the move goes on in the background: see `strata address list`");
  const waits = instance === undefined || instance.status.state === "running";
  const settled = waits
    ? await awaitState(client, session, addressKind, patched, instance ? ["bound"] : ["free"])
    : patched;
  return tableOf(addressForm, settled);
}

async function release(call: Call): Promise<Output> {
  const { session } = call;
  const client = await session.client();
  const found = await Promise.all(call.args.map((text) => findAddress(client, session, text)));
  return await deleteResources(
    call,
    "addresses",
    found.map((address) => address.metadata.name),
  );
}

async function findAddress(client: Client, { project, signal }: Session, text: string): Promise<Address> {
  if (!parseIp(text)) return await resolve(client, addressKind, project, text, signal);
  const { items } = await client.list(addressKind, { project }, { signal });
  const found = items.find((address) => address.status.ipAddress === text);
  if (!found) throw new StrataError("NotFound", `project ${project} has no address ${text}`);
  return found;
}

async function publish(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const port = parsePort(args[0] ?? "");
  const [, text = "", target] = /^(.*?)(?::(\d+))?$/.exec(args[1] ?? "") ?? [];
  const targetPort = target === undefined ? undefined : parsePort(target);
  const client = await session.startedClient();
  const { project, signal } = session;
  const instance = await resolve(client, instanceKind, project, text, signal);
  const protocol = options.flag("udp") ? "udp" : "tcp";
  const existing = await findPort(client, session, protocol, port);
  const spec = { instance: instance.metadata.name, targetPort: targetPort ?? null };
  const written = existing
    ? await client.patch(publishedPortKind, { project, name: existing.metadata.name }, { spec }, { signal })
    : await client.create(
        publishedPortKind,
        {
          name: options.text("name") ?? `${protocol}-${port}`,
          project,
          spec: {
            protocol,
            port,
            instance: instance.metadata.name,
            ...(targetPort === undefined ? {} : { targetPort }),
          },
        },
        { signal },
      );
  session.onInterrupt("interrupted; it goes on in the background: see `strata list published-ports`");
  const running = instance.status.state === "running";
  const settled = running
    ? await awaitState(client, session, publishedPortKind, written, ["active"])
    : written;
  return tableOf(publishedPortForm, settled);
}

async function unpublish(call: Call): Promise<Output> {
  const { session, options } = call;
  const client = await session.client();
  const protocol = options.flag("udp") ? "udp" : "tcp";
  const found = await Promise.all(
    call.args.map(async (text) => {
      const port = await findPort(client, session, protocol, parsePort(text));
      if (port) return port.metadata.name;
      throw new StrataError(
        "NotFound",
        `${protocol} port ${text} is not published in project ${session.project}; \`strata list published-ports\` shows those that are`,
      );
    }),
  );
  return await deleteResources(call, "published-ports", found);
}

async function findPort(
  client: Client,
  { project, signal }: Session,
  protocol: string,
  port: number,
): Promise<PublishedPort | undefined> {
  const { items } = await client.list(publishedPortKind, { project }, { signal });
  return items.find(({ spec }) => spec.port === port && spec.protocol === protocol);
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) {
    throw new StrataError("Invalid", `a port is a number from 1 to 65535, not "${text}"`);
  }
  return port;
}
