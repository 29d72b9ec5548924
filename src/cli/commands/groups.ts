/** Groups: instances of one template, as many as demand needs. */
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { type Group, groupKind } from "../../kinds/group.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { scalingDecisionKind } from "../../kinds/scaling-decision.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson } from "../show.ts";
import { decisionForm, groupForm, groupTree } from "../show-groups.ts";
import { awaitGroups } from "../stack/await-groups.ts";
import { follow, patience } from "../watching.ts";
import { tableOf } from "./creation.ts";
import { listOptions, listResources } from "./listings.ts";
import { parseLabel, templateOf, templateOptions } from "./template-options.ts";

const group = "Groups";
const groupArgument = {
  name: "<group>",
  summary: "name or beginning of the id",
  completes: "groups",
} as const;
const sizeOptions = [
  { flags: "--min <number>", summary: "never fewer members" },
  { flags: "--max <number>", summary: "never more members" },
] as const;
const updateOptions = [
  { flags: "--surge <number>", summary: "members beyond the desired number while an update runs" },
  {
    flags: "--settle <seconds>",
    summary: "how long a new member has to be healthy before the next is replaced",
  },
  { flags: "--update-timeout <seconds>", summary: "a new member that is not healthy by then has failed" },
  {
    flags: "--on-failure <what>",
    summary: "of an update: roll-back to the version before, or stop for a person",
    choices: ["roll-back", "stop"],
  },
] as const;

export const groupCommands: readonly CommandSpec[] = [
  {
    path: "group create",
    group,
    summary: "Create a group and its members",
    arguments: [
      { name: "<name>", summary: "its name; members are called NAME-xxxxx" },
      { name: "<image>", summary: "name of an image of the project", completes: "images" },
      { name: "[command...]", summary: "after --: what runs in an application container (driver docker)" },
    ],
    options: [
      ...sizeOptions,
      { flags: "--desired <number>", summary: "members wanted by hand (default: min)" },
      { flags: "--warm <number>", summary: "further members that run and wait" },
      { flags: "--priority <number>", summary: "who gets capacity first when it is short (default: 0)" },
      ...updateOptions,
      ...templateOptions,
      { flags: "--label <key=value>", summary: "label", repeatable: true },
    ],
    examples: [
      "strata group create web debian12 --min 2 --max 6 --memory 256MiB --service web:80/http",
      "strata group create api debian12 --max 4 --driver docker -- python3 -m http.server 80",
    ],
    run: create,
  },
  {
    path: "group list",
    group,
    summary: "List groups",
    options: listOptions,
    examples: ["strata group list"],
    run: (call) => listResources(call, "groups"),
  },
  {
    path: "group show",
    group,
    summary: "Show a group and its members",
    arguments: [groupArgument],
    examples: ["strata group show web"],
    run: show,
  },
  {
    path: "group scale",
    group,
    summary: "Say how many members are wanted, and between which numbers policies may choose",
    arguments: [
      groupArgument,
      { name: "[desired]", summary: "members wanted by hand; auto: as few as allowed" },
    ],
    options: sizeOptions,
    examples: [
      "strata group scale web 5",
      "strata group scale web --min 2 --max 10",
      "strata group scale web auto",
    ],
    run: scale,
  },
  {
    path: "group update",
    group,
    summary: "Change what members are: they are replaced one after another",
    arguments: [groupArgument],
    options: [
      { flags: "--image <name>", summary: "image of the project" },
      { flags: "--cpus <number>", summary: "virtual CPUs" },
      { flags: "--memory <size>", summary: "such as 512MiB" },
      { flags: "--disk <size>", summary: "such as 8GiB" },
      ...updateOptions,
    ],
    examples: ["strata group update web --image debian13 --surge 2 --settle 10"],
    run: update,
  },
  {
    path: "group rollout",
    group,
    summary: "Show how far an update has come; waits for its end",
    arguments: [groupArgument],
    examples: ["strata group rollout web", "strata group rollout web --no-wait"],
    run: async (call) => complete(call, await find(call)),
  },
  {
    path: "group decisions",
    group,
    summary: "Show when the size changed, who wanted what and who won",
    arguments: [groupArgument],
    examples: ["strata group decisions web", "strata group decisions web --json"],
    run: decisions,
  },
  {
    path: "group delete",
    group,
    summary: "Delete groups with their members",
    arguments: [{ ...groupArgument, name: "<group...>" }],
    examples: ["strata group delete web"],
    run: deleteGroups,
  },
];

async function find(call: Call, index = 0): Promise<Group> {
  const { session, args } = call;
  return await resolve(await session.client(), groupKind, session.project, args[index] ?? "", session.signal);
}

async function create(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const client = await session.startedClient();
  const [name = "", image = ""] = args;
  // A launch has the image first; what follows -- is found alike.
  const template = await templateOf({ ...call, args: [image, name, ...args.slice(2)] }, image);
  const min = options.count("min");
  const desired = options.count("desired");
  const update = updateOf(call);
  const spec: JsonObject = {
    template,
    ...count("min", min),
    max: options.count("max") ?? Math.max(1, min ?? 0, desired ?? 0),
    ...count("desired", desired),
    ...count("warm", options.count("warm")),
    ...count("priority", options.count("priority")),
    ...(update ? { update } : {}),
  };
  const labels = Object.fromEntries(options.texts("label").map(parseLabel));
  const draft = { name, project: session.project, spec, labels };
  const made = await client.create(groupKind, draft, { signal: session.signal });
  return await complete(call, made);
}

async function show(call: Call): Promise<Output> {
  const { session } = call;
  const found = await find(call);
  const members = await membersOf(await session.client(), session, found);
  return {
    type: "tree",
    branches: groupTree(found, members),
    json: asJson({ ...found, members }),
  };
}

async function membersOf(
  client: Client,
  { project, signal }: Session,
  { metadata }: Group,
): Promise<Instance[]> {
  const { items } = await client.list(instanceKind, { project }, { signal });
  return items.filter((instance) => instance.metadata.owner?.uid === metadata.uid);
}

async function scale(call: Call): Promise<Output> {
  const [, wanted] = call.args;
  const { options } = call;
  const spec: JsonObject = {
    ...count("min", options.count("min")),
    ...count("max", options.count("max")),
    ...(wanted === undefined ? {} : { desired: wanted === "auto" ? null : number(wanted) }),
  };
  if (Object.keys(spec).length === 0) {
    throw new StrataError("Invalid", "say how many: a number of members, --min NUMBER, --max NUMBER or auto");
  }
  return await change(call, spec);
}

function number(text: string): number {
  if (/^\d{1,4}$/.test(text)) return Number(text);
  throw new StrataError("Invalid", `the number of members must be a whole number or auto, not "${text}"`);
}

async function update(call: Call): Promise<Output> {
  const { options } = call;
  const image = options.text("image");
  const template: JsonObject = {
    ...(image === undefined ? {} : { image }),
    ...count("cpus", options.count("cpus")),
    ...count("memoryMib", options.mib("memory")),
    ...count("diskMib", options.mib("disk")),
  };
  const behavior = updateOf(call);
  if (Object.keys(template).length === 0 && !behavior) {
    throw new StrataError(
      "Invalid",
      "say what shall change: --image, --cpus, --memory, --disk or how to update",
    );
  }
  return await change(call, {
    ...(Object.keys(template).length === 0 ? {} : { template }),
    ...(behavior ? { update: behavior } : {}),
  });
}

function updateOf({ options }: Call): JsonObject | undefined {
  const onFailure = options.text("on-failure");
  const update = {
    ...count("maxSurge", options.count("surge")),
    ...count("settleSeconds", options.count("settle")),
    ...count("timeoutSeconds", options.count("update-timeout")),
    ...(onFailure === undefined ? {} : { rollback: onFailure === "roll-back" }),
  };
  return Object.keys(update).length === 0 ? undefined : update;
}

function count(name: string, value: number | undefined): JsonObject {
  return value === undefined ? {} : { [name]: value };
}

async function change(call: Call, spec: JsonObject): Promise<Output> {
  const { session } = call;
  const { project, signal } = session;
  const client = await session.client();
  const { name } = (await find(call)).metadata;
  return await complete(call, await client.patch(groupKind, { project, name }, { spec }, { signal }));
}

/** A table of the group, once all of it is as wanted if the session waits. */
async function complete(call: Call, changed: Group): Promise<Output> {
  const { session } = call;
  if (!session.wait) return tableOf(groupForm, changed);
  const { name } = changed.metadata;
  session.onInterrupt(`interrupted; ${name} goes on in the background: see \`strata group show ${name}\``);
  const client = await session.client();
  const [group = changed] = await awaitGroups(
    client,
    session.project,
    [name],
    patience(session),
    session.printer,
  );
  return tableOf(groupForm, group);
}

async function decisions(call: Call): Promise<Output> {
  const { session } = call;
  const { metadata } = await find(call);
  const { project, signal } = session;
  const client = await session.client();
  const { items } = await client.list(scalingDecisionKind, { project }, { signal });
  const own = items.filter(({ spec }) => spec.group.uid === metadata.uid);
  return {
    type: "table",
    columns: decisionForm.columns,
    rows: own.map((decision) => decisionForm.row(decision)),
    empty: `the size of ${metadata.name} was never changed`,
    json: asJson(own),
  };
}

async function deleteGroups(call: Call): Promise<Output> {
  const { session } = call;
  const { project, signal } = session;
  const client = await session.client();
  const groups = await Promise.all(call.args.map((_, index) => find(call, index)));
  const names = groups.map(({ metadata }) => metadata.name);
  await session.confirm(`${names.join(", ")}, all members and the data on them will be destroyed. Go on?`);
  session.onInterrupt("interrupted; the deletion goes on in the background: see `strata group list`");
  for (const name of names) await client.delete(groupKind, { project, name }, { signal });
  if (session.wait) {
    const uids = new Set<string>(groups.map(({ metadata }) => metadata.uid));
    await follow(
      client,
      groupKind,
      { project },
      patience(session),
      (seen) => ![...seen.values()].some(({ metadata }) => uids.has(metadata.uid)),
      () => `deleting ${names.join(", ")}`,
    );
  }
  return { type: "message", text: `deleted ${names.join(", ")}`, json: asJson(groups) };
}
