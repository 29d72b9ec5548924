/** Load balancers: ports of the host in front of a group or of instances. */
import { StrataError } from "../../core/errors.ts";
import type { Json, JsonObject } from "../../core/json.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import type { Call, CommandSpec, OptionValues } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { balancerForm } from "../show-balancers.ts";
import { joinTerminal } from "../terminal-session.ts";
import { awaitState } from "./await-state.ts";
import { defined, tableOf } from "./creation.ts";
import { deleteResources, listOptions, listResources, showResource } from "./listings.ts";

const group = "Networks";
const balancerArgument = { name: "<name>", summary: "its name", completes: "load-balancers" } as const;

const settings = [
  { flags: "--group <name>", summary: "lead to the members of this group" },
  { flags: "--instance <name>", summary: "lead to this instance", repeatable: true },
  { flags: "--target-port <port>", summary: "port of the instances" },
  { flags: "--http <port>", summary: "listen there for HTTP", repeatable: true },
  { flags: "--https <port>", summary: "listen there for HTTPS; needs --certificate", repeatable: true },
  { flags: "--tcp <port>", summary: "listen there for any protocol", repeatable: true },
  { flags: "--tls <port>", summary: "the same, and take TLS off; needs --certificate", repeatable: true },
  { flags: "--certificate <name>", summary: "of the project; the first is the default", repeatable: true },
  { flags: "--redirect", summary: "the HTTP ports only redirect to the first HTTPS port" },
  { flags: "--allow-from <range>", summary: "who may connect (default: everybody)", repeatable: true },
  { flags: "--sticky <how>", summary: "none, cookie or source" },
  { flags: "--algorithm <name>", summary: "least-connections or round-robin" },
  { flags: "--health-path <path>", summary: "check instances with GET of this path" },
  { flags: "--max-per-instance <count>", summary: "requests that one instance gets at once" },
  { flags: "--slow-start <seconds>", summary: "until a new instance gets its full share" },
  { flags: "--queue <seconds>", summary: "how long a request waits when no instance is there" },
  { flags: "--http2-targets", summary: "instances speak HTTP/2 without TLS" },
];

export const loadBalancerCommands: readonly CommandSpec[] = [
  {
    path: "load-balancer create",
    group,
    summary: "Open ports of the host that spread requests over a group or instances",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: settings,
    examples: [
      "strata load-balancer create front --group web --http 80",
      "strata load-balancer create front --group web --http 80 --https 443 --certificate site --redirect",
      "strata load-balancer create db --instance db-1 --instance db-2 --tcp 5432",
    ],
    run: create,
  },
  {
    path: "load-balancer list",
    group,
    summary: "List load balancers",
    options: listOptions,
    examples: ["strata load-balancer list"],
    run: (call) => listResources(call, "load-balancers"),
  },
  {
    path: "load-balancer show",
    group,
    summary: "Show all about a load balancer",
    arguments: [balancerArgument],
    examples: ["strata load-balancer show front"],
    run: (call) => showResource(call, "load-balancers", call.args[0] ?? ""),
  },
  {
    path: "load-balancer set",
    group,
    summary: "Change a load balancer; no request is lost",
    arguments: [balancerArgument],
    options: settings,
    examples: [
      "strata load-balancer set front --sticky cookie",
      "strata load-balancer set front --instance web-1 --instance web-3",
    ],
    run: set,
  },
  {
    path: "load-balancer logs",
    group,
    summary: "Show the access log of a load balancer",
    arguments: [balancerArgument],
    options: [
      { flags: "-f, --follow", summary: "go on as it grows" },
      { flags: "--bytes <count>", summary: "so much of its end (default: 65536)" },
    ],
    examples: ["strata load-balancer logs front", "strata load-balancer logs front -f"],
    run: logs,
  },
  {
    path: "load-balancer delete",
    group,
    summary: "Delete load balancers; their ports close at once",
    arguments: [{ ...balancerArgument, name: "<name...>" }],
    examples: ["strata load-balancer delete front"],
    run: (call) => deleteResources(call, "load-balancers", call.args),
  },
];

async function create(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const spec = specOf(options, undefined);
  const listeners = spec.listeners as { port: number; protocol: string }[] | undefined;
  if (!listeners) {
    throw new StrataError("Invalid", "name a port to listen on: --http, --https, --tcp or --tls PORT");
  }
  const draft = {
    name: args[0] ?? "",
    project: session.project,
    // Most serve inside on the port that they are known by.
    spec: { targetPort: listeners[0]?.port ?? 80, ...spec },
  };
  const client = await session.startedClient();
  const created = await client.create(loadBalancerKind, draft, { signal: session.signal });
  return await settle(call, created);
}

async function set(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const client = await session.client();
  const found = await resolve(client, loadBalancerKind, session.project, args[0] ?? "", session.signal);
  const spec = specOf(options, found);
  if (Object.keys(spec).length === 0) throw new StrataError("Invalid", "name what to change");
  const ref = { project: session.project, name: found.metadata.name };
  const changed = await client.patch(loadBalancerKind, ref, { spec }, { signal: session.signal });
  return await settle(call, changed);
}

async function settle({ session }: Call, balancer: LoadBalancer): Promise<Output> {
  session.onInterrupt("interrupted; it goes on in the background: see `strata load-balancer list`");
  const client = await session.client();
  return tableOf(balancerForm, await awaitState(client, session, loadBalancerKind, balancer, ["active"]));
}

/** What the options say; of listeners, those that exist stay as they are unless some are named. */
function specOf(options: OptionValues, current: LoadBalancer | undefined): JsonObject {
  const instances = options.texts("instance");
  const healthPath = options.text("health-path");
  return defined({
    group: options.text("group") ?? (instances.length > 0 && current ? null : undefined),
    instances:
      instances.length > 0
        ? [...instances]
        : options.text("group") !== undefined && current
          ? null
          : undefined,
    targetPort: options.count("target-port"),
    listeners: listenersOf(options, current),
    sticky: options.text("sticky"),
    algorithm: options.text("algorithm"),
    healthCheck: healthPath === undefined ? undefined : { type: "http", path: healthPath },
    maxPerInstance: options.count("max-per-instance"),
    slowStartSeconds: options.count("slow-start"),
    queueSeconds: options.count("queue"),
    targetProtocol: options.flag("http2-targets") ? "http2" : undefined,
  });
}

type ListenerOption = "http" | "https" | "tcp" | "tls";

function listenersOf(options: OptionValues, current: LoadBalancer | undefined): Json[] | undefined {
  const certificates = options.texts("certificate");
  const allowFrom = options.texts("allow-from");
  const named = (["http", "https", "tcp", "tls"] as const).flatMap((protocol: ListenerOption) =>
    options.texts(protocol).map((text) => ({ port: parsePort(text), protocol })),
  );
  const changes = certificates.length > 0 || allowFrom.length > 0 || options.flag("redirect");
  if (named.length === 0 && !(current && changes)) return undefined;
  const before = current?.spec.listeners ?? [];
  const wanted = named.length > 0 ? named : before;
  const redirectTo = wanted.find(({ protocol }) => protocol === "https")?.port;
  return wanted.map(({ port, protocol }) => {
    const known = before.find((one) => one.port === port && one.protocol === protocol);
    const encrypted = protocol === "https" || protocol === "tls";
    return defined({
      ...(known as unknown as Record<string, Json> | undefined),
      port,
      protocol,
      certificates: encrypted && certificates.length > 0 ? [...certificates] : known?.certificates,
      allowFrom: allowFrom.length > 0 ? [...allowFrom] : known?.allowFrom,
      redirectTo: options.flag("redirect") && protocol === "http" ? redirectTo : known?.redirectTo,
    });
  });
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : 0;
  if (port < 1 || port > 65_535) {
    throw new StrataError("Invalid", `a port is a number from 1 to 65535, not "${text}"`);
  }
  return port;
}

async function logs(call: Call): Promise<Output> {
  const { session, options, args } = call;
  const client = await session.client();
  const found = await resolve(client, loadBalancerKind, session.project, args[0] ?? "", session.signal);
  const tailBytes = options.count("bytes");
  const parameters = { follow: options.flag("follow"), ...(tailBytes === undefined ? {} : { tailBytes }) };
  const ref = { project: session.project, name: found.metadata.name };
  const channel = await client.openSession("access-log", ref, parameters, session.signal);
  return { type: "done", status: await joinTerminal(session, channel, { raw: false, input: false }) };
}
