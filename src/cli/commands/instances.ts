/** The life of single instances: launch, start, stop, restart, delete. */
import type { Client } from "../../client/client.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { randomInt } from "../../core/random.ts";
import { imageKind } from "../../kinds/image.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import { readReach } from "../networks/reach.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson, instanceForm } from "../show.ts";
import { awaitInstances } from "../stack/await-stack.ts";
import { follow, patience } from "../watching.ts";
import { driftCommand } from "./drift.ts";
import { rebuildCommand } from "./rebuild.ts";
import { parseLabel, templateOf, templateOptions } from "./template-options.ts";

const instanceArgument = {
  name: "<instance>",
  summary: "name or beginning of the id",
  completes: "instances",
} as const;
const instancesArgument = { ...instanceArgument, name: "<instance...>" } as const;

export const instanceCommands: readonly CommandSpec[] = [
  {
    path: "launch",
    group: "Instances",
    summary: "Create and start an instance",
    arguments: [
      { name: "<image>", summary: "name of an image of the project", completes: "images" },
      { name: "[name]", summary: "its name; left out, one is made up" },
      { name: "[command...]", summary: "after --: what runs in an application container (driver docker)" },
    ],
    options: [
      ...templateOptions,
      { flags: "--ip <address>", summary: "its address (default: a free one)" },
      { flags: "--ipv6 <address>", summary: "its IPv6 address (default: a free one)" },
      { flags: "--protected", summary: "refuse deletion" },
      { flags: "--label <key=value>", summary: "label", repeatable: true },
      { flags: "--stopped", summary: "do not start it" },
    ],
    examples: [
      "strata launch debian12 web --type vm --memory 1GiB --key-pair me",
      "strata launch debian12 --user-data cloud-config.yaml --service web:80/http",
      "strata launch debian12 db --network shop --subnet inner --ip 10.0.2.10 --security-group db",
      "strata launch debian12 api --driver docker --env PORT=80 -- python3 -m http.server 80",
    ],
    run: launch,
  },
  {
    path: "start",
    group: "Instances",
    summary: "Start instances",
    arguments: [instancesArgument],
    examples: ["strata start lms"],
    run: (call) => setPower(call, "running"),
  },
  {
    path: "stop",
    group: "Instances",
    summary: "Shut instances down; they stay stopped",
    arguments: [instancesArgument],
    examples: ["strata stop lms", "strata stop enrollment-1 enrollment-2 --no-wait"],
    run: (call) => setPower(call, "stopped"),
  },
  {
    path: "restart",
    group: "Instances",
    summary: "Shut instances down and start them again",
    arguments: [instancesArgument],
    examples: ["strata restart lms"],
    run: restart,
  },
  {
    path: "resize",
    group: "Instances",
    summary: "Give an instance more or fewer CPUs and memory, while it runs where its driver can",
    arguments: [instanceArgument],
    options: [
      { flags: "--cpus <number>", summary: "virtual CPUs" },
      { flags: "--memory <size>", summary: "such as 2GiB" },
    ],
    examples: ["strata resize lms --cpus 4 --memory 2GiB"],
    run: resize,
  },
  driftCommand,
  rebuildCommand,
  {
    path: "delete",
    group: "Instances",
    summary: "Delete instances with their disks",
    arguments: [instancesArgument],
    examples: ["strata delete web", "strata delete web-1 web-2 --yes"],
    run: deleteInstances,
  },
];

async function launch(call: Call): Promise<Output> {
  const { session, args, options } = call;
  const client = await session.startedClient();
  const image = await resolve(client, imageKind, session.project, args[0] ?? "", session.signal);
  const spec = await launchSpec(call, image.metadata.name);
  const name = args.slice(0, args.length - call.rest.length)[1];
  const labels = Object.fromEntries(options.texts("label").map(parseLabel));
  const created = await createNamed(client, session, { name, image: image.metadata.name, spec, labels });
  session.onInterrupt(
    `interrupted; ${created.metadata.name} goes on in the background: see \`strata info ${created.metadata.name}\``,
  );
  return await settled(client, session, [created]);
}

async function launchSpec(call: Call, image: string): Promise<JsonObject> {
  const { options } = call;
  const ipAddress = options.text("ip");
  const ipv6Address = options.text("ipv6");
  return {
    ...(await templateOf(call, image)),
    ...(ipAddress === undefined ? {} : { ipAddress }),
    ...(ipv6Address === undefined ? {} : { ipv6Address }),
    protected: options.flag("protected"),
    power: options.flag("stopped") ? "stopped" : "running",
  };
}

/** Without a name: the image's and a number that is free. */
async function createNamed(
  client: Client,
  session: Session,
  wanted: { name: string | undefined; image: string; spec: JsonObject; labels: Record<string, string> },
): Promise<Instance> {
  const { project, signal } = session;
  const { spec, labels } = wanted;
  for (let attempt = 0; ; attempt++) {
    const name = wanted.name ?? `${wanted.image.slice(0, 56)}-${1000 + randomInt(session.random, 9000)}`;
    try {
      return await client.create(instanceKind, { name, project, spec, labels }, { signal });
    } catch (error) {
      if (wanted.name !== undefined || attempt > 8 || !hasCode(error, "AlreadyExists")) throw error;
    }
  }
}

/** A table of the instances, once they are as wanted if the session waits. */
export async function settled(
  client: Client,
  session: Session,
  instances: readonly Instance[],
): Promise<Output> {
  const names = instances.map((instance) => instance.metadata.name);
  const shown = session.wait
    ? await awaitInstances(client, session.project, names, patience(session), session.printer)
    : instances;
  const { project, target, signal } = session;
  const form = instanceForm(await readReach(client, { project }, target, signal));
  return {
    type: "table",
    columns: form.columns,
    rows: shown.map((instance) => form.row(instance)),
    empty: "no instances",
    json: asJson(shown),
  };
}

async function resolveAll(client: Client, call: Call): Promise<Instance[]> {
  const { session, args } = call;
  return await Promise.all(
    args.map((text) => resolve(client, instanceKind, session.project, text, session.signal)),
  );
}

async function patchEach(call: Call, patch: (instance: Instance) => JsonObject): Promise<Output> {
  const { session } = call;
  const { project, signal } = session;
  const client = await session.client();
  const instances = await resolveAll(client, call);
  session.onInterrupt("interrupted; what was asked for goes on in the background: see `strata list`");
  const patched = await Promise.all(
    instances.map((instance) =>
      client.patch(
        instanceKind,
        { project, name: instance.metadata.name },
        { spec: patch(instance) },
        { signal },
      ),
    ),
  );
  return await settled(client, session, patched);
}

function setPower(call: Call, power: "running" | "stopped"): Promise<Output> {
  return patchEach(call, () => ({ power }));
}

function restart(call: Call): Promise<Output> {
  return patchEach(call, (instance) => ({ restarts: instance.spec.restarts + 1, power: "running" }));
}

async function resize(call: Call): Promise<Output> {
  const cpus = call.options.count("cpus");
  const memoryMib = call.options.mib("memory");
  if (cpus === undefined && memoryMib === undefined) {
    throw new StrataError("Invalid", "say what it shall have: --cpus NUMBER, --memory SIZE or both");
  }
  const spec = { ...(cpus === undefined ? {} : { cpus }), ...(memoryMib === undefined ? {} : { memoryMib }) };
  const output = await patchEach(call, () => spec);
  const instances = (output.type === "table" ? output.json : []) as unknown as Instance[];
  for (const instance of instances) {
    const { name } = instance.metadata;
    const waiting = instance.status.conditions.find(
      ({ type, status }) => type === "RestartNeeded" && status === "true",
    );
    if (waiting)
      call.session.printer.note(`${name}: ${waiting.message || "takes effect with its next start"}`);
  }
  return output;
}

async function deleteInstances(call: Call): Promise<Output> {
  const { session } = call;
  const { project, signal } = session;
  const client = await session.client();
  const instances = await resolveAll(client, call);
  const names = instances.map((instance) => instance.metadata.name);
  await session.confirm(
    `${names.join(", ")} and all data on ${names.length > 1 ? "them" : "it"} will be destroyed. Go on?`,
  );
  session.onInterrupt("interrupted; the deletion goes on in the background: see `strata list`");
  await Promise.all(names.map((name) => client.delete(instanceKind, { project, name }, { signal })));
  if (session.wait) {
    const uids = new Set<string>(instances.map((instance) => instance.metadata.uid));
    await follow(
      client,
      instanceKind,
      { project },
      patience(session),
      (seen) => ![...seen.values()].some((instance) => uids.has(instance.metadata.uid)),
      () => `deleting ${names.join(", ")}`,
    );
  }
  return { type: "message", text: `deleted ${names.join(", ")}`, json: asJson(instances) };
}
