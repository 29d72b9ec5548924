/** Projects, hosts, networks, tokens, events. */
import { fromTimestamp, toTimestamp } from "../../core/clock.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { type Event, eventKind } from "../../kinds/event.ts";
import { hostKind } from "../../kinds/host.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { defaultCounts, projectKind } from "../../kinds/project.ts";
import { roles } from "../../kinds/token.ts";
import type { Call, CommandSpec } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson, eventLine, hostForm, projectForm } from "../show.ts";
import { follow, patience } from "../watching.ts";
import { deleteResources, listResources, showResource } from "./listings.ts";

const group = "Administration";
const quotaOptions = [
  { flags: "--max-instances <number>", summary: "at most so many instances" },
  { flags: "--max-cpus <number>", summary: "at most so many CPUs in all" },
  { flags: "--max-memory <size>", summary: "at most so much memory in all" },
  { flags: "--max-disk <size>", summary: "at most so much disk in all" },
  { flags: "--max-groups <number>", summary: `at most so many groups (default ${defaultCounts.groups})` },
  {
    flags: "--max-load-balancers <number>",
    summary: `at most so many load balancers (default ${defaultCounts.loadBalancers})`,
  },
  {
    flags: "--max-certificates <number>",
    summary: `at most so many certificates (default ${defaultCounts.certificates})`,
  },
  {
    flags: "--max-ports <number>",
    summary: `at most so many ports of the host (default ${defaultCounts.hostPorts})`,
  },
];

const projectCommands: readonly CommandSpec[] = [
  {
    path: "project create",
    group,
    summary: "Create a project",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [{ flags: "--description <text>", summary: "for people" }, ...quotaOptions],
    examples: ["strata project create school --max-instances 20 --max-memory 64GiB"],
    run: async (call) => {
      const { session, options } = call;
      const spec = { description: options.text("description") ?? "", quota: quotaOf(call) };
      const client = await session.client();
      const draft = { name: call.args[0] ?? "", spec };
      const created = await client.create(projectKind, draft, { signal: session.signal });
      const row = projectForm.row(created);
      return { type: "table", columns: projectForm.columns, rows: [row], empty: "", json: asJson(created) };
    },
  },
  {
    path: "project list",
    group,
    summary: "List projects",
    examples: ["strata project list"],
    run: (call) => listResources(call, "projects"),
  },
  {
    path: "project info",
    group,
    summary: "Show all about a project",
    arguments: [{ name: "<name>", summary: "its name", completes: "projects" }],
    examples: ["strata project info school"],
    run: (call) => showResource(call, "projects", call.args[0] ?? ""),
  },
  {
    path: "project delete",
    group,
    summary: "Delete an empty project, or with --force one with all that is in it",
    arguments: [{ name: "<name>", summary: "its name", completes: "projects" }],
    options: [{ flags: "--force", summary: "delete instances, images and networks in it as well" }],
    examples: ["strata project delete school", "strata project delete school --force --yes"],
    run: deleteProject,
  },
];

function quotaOf({ options }: Call): JsonObject {
  const given = {
    instances: options.count("max-instances"),
    cpus: options.count("max-cpus"),
    memoryMib: options.mib("max-memory"),
    diskMib: options.mib("max-disk"),
    groups: options.count("max-groups"),
    loadBalancers: options.count("max-load-balancers"),
    certificates: options.count("max-certificates"),
    hostPorts: options.count("max-ports"),
  };
  const quota: JsonObject = {};
  for (const [key, value] of Object.entries(given)) if (value !== undefined) quota[key] = value;
  return quota;
}

async function deleteProject(call: Call): Promise<Output> {
  const { session, options } = call;
  const { signal } = session;
  const client = await session.client();
  const project = await resolve(client, projectKind, "", call.args[0] ?? "", signal);
  const { name, uid } = project.metadata;
  const cascade = options.flag("force");
  const inside = cascade ? (await client.list(instanceKind, { project: name }, { signal })).items.length : 0;
  await session.confirm(
    cascade
      ? `The project ${name} with ${inside} instances and all data in it will be destroyed. Go on?`
      : `The project ${name} will be deleted. Go on?`,
  );
  session.onInterrupt("interrupted; the deletion goes on in the background: see `strata project list`");
  await client.deleteProject(name, { signal, cascade });
  if (session.wait) {
    await follow(
      client,
      projectKind,
      {},
      patience(session),
      (seen) => ![...seen.values()].some((other) => other.metadata.uid === uid),
      () => `deleting the project ${name}`,
    );
  }
  return { type: "message", text: `deleted ${name}`, json: asJson(project) };
}

const hostCommands: readonly CommandSpec[] = [
  {
    path: "host list",
    group,
    summary: "List the machines that run instances",
    examples: ["strata host list"],
    run: (call) => listResources(call, "hosts"),
  },
  {
    path: "host info",
    group,
    summary: "Show all about a host: capacity, drivers, what was proven",
    arguments: [{ name: "[name]", summary: "its name; left out, the only one", completes: "hosts" }],
    examples: ["strata host info"],
    run: hostInfo,
  },
  ...(["cordon", "uncordon"] as const).map(
    (verb): CommandSpec => ({
      path: `host ${verb}`,
      group,
      summary: verb === "cordon" ? "Place nothing new on a host; what runs stays" : "Use a host again",
      arguments: [{ name: "<name>", summary: "its name", completes: "hosts" }],
      examples: [`strata host ${verb} alpha`],
      run: async ({ session, args }) => {
        const client = await session.client();
        const { signal } = session;
        const host = await resolve(client, hostKind, "", args[0] ?? "", signal);
        const spec = { cordoned: verb === "cordon" };
        const patched = await client.patch(hostKind, { name: host.metadata.name }, { spec }, { signal });
        const row = hostForm.row(patched);
        return { type: "table", columns: hostForm.columns, rows: [row], empty: "", json: asJson(patched) };
      },
    }),
  ),
];

async function hostInfo(call: Call): Promise<Output> {
  const { session } = call;
  const [name] = call.args;
  if (name !== undefined) return await showResource(call, "hosts", name);
  const { items } = await (await session.client()).list(hostKind, {}, { signal: session.signal });
  const [only] = items;
  if (items.length > 1 || !only) {
    const names = items.map((host) => host.metadata.name).join(", ");
    throw new StrataError(
      only ? "Invalid" : "NotFound",
      only ? `name one of the hosts: ${names}` : "there is no host yet",
    );
  }
  return await showResource(call, "hosts", only.metadata.name);
}

const tokenCommands: readonly CommandSpec[] = [
  {
    path: "token create",
    group,
    summary: "Make a secret that opens the HTTPS interface; it is shown this once",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      { flags: "--role <role>", summary: "what it allows (default: member)", choices: roles },
      { flags: "--expires-in <days>", summary: "valid for so many days (default: for ever)" },
    ],
    examples: ["strata token create ci --role member -p school --expires-in 90"],
    run: createToken,
  },
  {
    path: "token list",
    group,
    summary: "List tokens, without their secrets",
    examples: ["strata token list"],
    run: (call) => listResources(call, "tokens"),
  },
  {
    path: "token delete",
    group,
    summary: "Delete tokens: what uses them is locked out at once",
    arguments: [{ name: "<name...>", summary: "names" }],
    examples: ["strata token delete ci"],
    run: (call) => deleteResources(call, "tokens", call.args),
  },
];

const dayMs = 24 * 3600 * 1000;

async function createToken(call: Call): Promise<Output> {
  const { session, options } = call;
  const role = options.text("role") ?? "member";
  const days = options.count("expires-in");
  const spec: JsonObject = {
    role,
    ...(session.projectGiven || role !== "admin" ? { project: session.project } : {}),
    ...(days === undefined ? {} : { expiresAt: toTimestamp(session.clock.now() + days * dayMs) }),
  };
  const client = await session.client();
  const { token, secret } = await client.createToken(
    { name: call.args[0] ?? "", spec },
    { signal: session.signal },
  );
  session.printer.note(`the secret of ${token.metadata.name} (${role}), shown this once:`);
  return { type: "message", text: secret, json: { ...(asJson(token) as JsonObject), secret } };
}

const eventCommands: readonly CommandSpec[] = [
  {
    path: "events",
    group,
    summary: "Show what happened, oldest first",
    arguments: [{ name: "[name]", summary: "only to the resource of this name", completes: "instances" }],
    options: [
      { flags: "-f, --follow", summary: "go on with what comes" },
      { flags: "-A, --all-projects", summary: "of all projects" },
    ],
    examples: ["strata events", "strata events lms -f", "strata events -A --json"],
    run: showEvents,
  },
];

async function showEvents(call: Call): Promise<Output> {
  const { session, options } = call;
  const { printer, signal } = session;
  const client = await session.client();
  const scope = options.flag("all-projects") ? {} : { project: session.project };
  const [subject] = call.args;
  const wanted = (event: Event) => subject === undefined || event.spec.subject.name === subject;
  const show = (event: Event) => printer.item(eventLine(event), asJson(event));
  let page = await client.list(eventKind, scope, { signal });
  const at = (event: Event) => fromTimestamp(event.metadata.createdAt) ?? 0;
  for (const event of page.items.filter(wanted).sort((a, b) => at(a) - at(b))) show(event);
  while (options.flag("follow")) {
    try {
      for await (const change of client.watch(eventKind, { ...scope, after: page.revision }, signal)) {
        if (change.type === "put" && wanted(change.resource)) show(change.resource);
      }
      signal.throwIfAborted();
    } catch (error) {
      if (!hasCode(error, "Compacted")) throw error;
      printer.note("some events were missed");
      page = await client.list(eventKind, scope, { signal });
    }
  }
  return { type: "done" };
}

export const administrationCommands: readonly CommandSpec[] = [
  ...projectCommands,
  ...hostCommands,
  ...eventCommands,
  ...tokenCommands,
];
