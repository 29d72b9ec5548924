/** `up`, `diff` and `down`: whole stacks. */
import { access } from "node:fs/promises";
import { resolve as resolvePath } from "node:path";
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import { didYouMean } from "../../core/spelling.ts";
import { groupKind } from "../../kinds/group.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { type Project, projectKind } from "../../kinds/project.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import { readReach } from "../networks/reach.ts";
import type { Output } from "../output.ts";
import { kindTitle } from "../resolve.ts";
import { asJson, instanceForm } from "../show.ts";
import { deleteAll } from "../stack/apply-stack.ts";
import { bringUp } from "../stack/bring-up.ts";
import { stackLabel } from "../stack/expand-stack.ts";
import { type LoadedStack, loadStack, readStackIdentity } from "../stack/load-stack.ts";
import {
  type Change,
  checkHosts,
  type Existing,
  isSettled,
  type Plan,
  planStack,
  templateOf,
} from "../stack/plan-stack.ts";
import { readHosts, readProject } from "../stack/read-stack.ts";
import { comesByItself } from "../stack/stack-kinds.ts";
import { patience, retrying } from "../watching.ts";

const file = { name: "<file>", summary: "stack file (YAML)", completes: "files" } as const;
const replaceOption = {
  flags: "--replace",
  summary: "delete and create anew what cannot be changed in place",
};

export const stackCommands: readonly CommandSpec[] = [
  {
    path: "up",
    group: "Stacks",
    summary: "Bring up all that a stack file describes; run again, change only what differs",
    arguments: [file],
    options: [replaceOption],
    examples: ["sudo strata up examples/campus.yaml", "strata up stack.yaml --yes --no-wait"],
    run: up,
  },
  {
    path: "diff",
    group: "Stacks",
    summary: "Show what `up` would change",
    arguments: [file],
    examples: ["strata diff examples/campus.yaml"],
    run: diff,
  },
  {
    path: "down",
    group: "Stacks",
    summary: "Delete all of a stack, and nothing else",
    arguments: [{ name: "<stack>", summary: "stack file or name of the stack", completes: "files" }],
    examples: ["strata down examples/campus.yaml", "strata down campus --yes"],
    run: down,
  },
];

async function load(call: Call): Promise<LoadedStack> {
  const { session } = call;
  const stack = await loadStack(call.args[0] ?? "", { cwd: session.cwd, home: session.env.HOME });
  if (session.projectGiven && session.project !== stack.project) {
    throw new StrataError(
      "Invalid",
      `the stack file says project "${stack.project}"; write "project: ${session.project}" into it instead of --project`,
    );
  }
  return stack;
}

async function planFor(client: Client, stack: LoadedStack, session: Session): Promise<Plan> {
  const limits = patience(session);
  const existing = await readProject(client, stack.project, limits);
  checkHosts(stack.desired, await readHosts(client, limits));
  return planStack(stack, existing);
}

async function diff(call: Call): Promise<Output> {
  const stack = await load(call);
  const plan = await planFor(await call.session.client(), stack, call.session);
  if (isSettled(plan)) return { type: "message", text: "nothing to change", json: planJson(plan) };
  return { type: "message", text: describePlan(plan, call.session).join("\n"), json: planJson(plan) };
}

async function up(call: Call): Promise<Output> {
  const { session, options } = call;
  const { printer } = session;
  const stack = await load(call);
  const client = await session.startedClient();
  const plan = await planFor(client, stack, session);
  const settled = isSettled(plan);
  printer.note(settled ? `${stack.name}: nothing to change` : describePlan(plan, session).join("\n"));
  refuseReplacing(plan, options.flag("replace"));
  const lost = plan.changes.filter((change) => change.action === "delete" || change.action === "replace");
  if (lost.length > 0) {
    await session.confirm(`${lost.map(nameOf).join(", ")} and all data on it will be destroyed. Go on?`);
  }
  session.onInterrupt(
    `interrupted; what was asked for goes on in the background: see \`strata list -p ${stack.project}\` and \`strata events -f -p ${stack.project}\``,
  );
  const instances = await bringUp(client, stack, plan, session);
  return await retrying(() => instanceTable(client, stack.project, instances, session), patience(session));
}

async function instanceTable(
  client: Client,
  project: string,
  instances: readonly Instance[],
  { target, signal }: Session,
): Promise<Output> {
  const form = instanceForm(await readReach(client, { project }, target, signal));
  return {
    type: "table",
    columns: form.columns,
    rows: instances.map((instance) => form.row(instance)),
    empty: "the stack has no instances",
    json: asJson(instances),
  };
}

function refuseReplacing(plan: Plan, allowed: boolean): void {
  if (allowed) return;
  const fields = plan.changes.flatMap((change) =>
    change.action === "replace"
      ? change.reasons.map((reason) => ({
          path: `${change.desired.where}: ${reason.path}`,
          message: "cannot change in place",
        }))
      : [],
  );
  if (fields.length === 0) return;
  throw new StrataError(
    "Conflict",
    "some of it must be replaced, which destroys its data; nothing was changed. Add --replace to do so",
    { fields },
  );
}

const verbs: Record<Change["action"], string> = {
  create: "+ create",
  update: "~ change",
  replace: "± replace",
  delete: "- delete",
  unchanged: "  keep",
};

function describePlan(plan: Plan, session: Session): string[] {
  const lines = plan.changes
    .filter((change) => change.action !== "unchanged")
    .map((change) => {
      const what = change.action === "delete" || change.action === "replace";
      const text = `  ${verbs[change.action]} ${nameOf(change)}${detail(change)}`;
      return session.printer.paint(text, what ? "bad" : "good");
    });
  const kept = plan.changes.filter((change) => change.action === "unchanged").length;
  return [
    `${plan.stack} in project ${plan.project}:`,
    ...lines,
    ...(kept > 0 ? [`  ${kept} unchanged`] : []),
  ];
}

function nameOf(change: Change): string {
  if (change.action === "delete") {
    return `${kindTitle(change.existing.kind)} ${change.existing.resource.metadata.name}`;
  }
  return `${kindTitle(change.desired.kind)} ${change.desired.name}`;
}

function detail(change: Change): string {
  if (change.action === "update") return ` (${change.fields.join(", ")})`;
  if (change.action === "replace") {
    return ` (${change.reasons.map((reason) => reason.path.replace(/^spec\./, "")).join(", ")})`;
  }
  const spec = change.action === "create" ? templateOf(change.desired) : undefined;
  if (change.action !== "create" || !spec) return "";
  const bounds =
    change.desired.kind.name === groupKind.name ? groupKind.spec.parse(change.desired.spec) : undefined;
  const count = bounds ? `${bounds.min} to ${bounds.max} times ` : "";
  return ` (${count}${spec.type}, image ${spec.image}, ${spec.cpus} CPU, ${spec.memoryMib} MiB)`;
}

function planJson(plan: Plan) {
  return plan.changes.map((change) => ({
    action: change.action,
    kind: change.action === "delete" ? change.existing.kind.name : change.desired.kind.name,
    name: change.action === "delete" ? change.existing.resource.metadata.name : change.desired.name,
    project: plan.project,
    ...(change.action === "update" ? { fields: change.fields } : {}),
    ...(change.action === "replace" ? { fields: change.reasons.map((reason) => reason.path) } : {}),
  }));
}

async function down(call: Call): Promise<Output> {
  const { session } = call;
  const limits = patience(session);
  const client = await session.client();
  const { name, projects } = await findStack(call, client);
  const existing = (
    await Promise.all(projects.map((project) => readProject(client, project, limits)))
  ).flat();
  const own = existing.filter(
    ({ resource }) => resource.metadata.labels[stackLabel] === name && resource.metadata.owner === undefined,
  );
  if (own.length === 0) {
    return { type: "message", text: `${name}: nothing is there`, json: [] };
  }
  const doomed = keepSharedProjects(own, existing, session);
  const lines = doomed
    .toReversed()
    .map((item) => `  - delete ${kindTitle(item.kind)} ${item.resource.metadata.name}`);
  session.printer.note([`${name}:`, ...lines].join("\n"));
  await session.confirm(`All of it and the data on it will be destroyed. Go on?`);
  session.onInterrupt(
    "interrupted; what was asked for goes on in the background; run `strata down` again to complete it",
  );
  await deleteAll(client, doomed, limits, session.printer);
  return {
    type: "message",
    text: `${name}: all gone`,
    json: doomed.map(({ kind, resource }) => ({
      action: "delete",
      kind: kind.name,
      name: resource.metadata.name,
    })),
  };
}

/** A project in which someone else has something stays. */
function keepSharedProjects(
  own: readonly Existing[],
  existing: readonly Existing[],
  session: Session,
): Existing[] {
  return own.filter((item) => {
    if (item.kind !== projectKind) return true;
    const project = item.resource.metadata.name;
    const foreign = existing.find(
      (other) =>
        other.resource.metadata.project === project &&
        !own.includes(other) &&
        !comesByItself(other.kind, other.resource),
    );
    if (!foreign) return true;
    session.printer.note(
      `the project ${project} stays: ${kindTitle(foreign.kind)} ${foreign.resource.metadata.name} in it is not of this stack`,
    );
    return false;
  });
}

/** By a stack file, or by name: the project that was made for it, else all that hold something of it. */
async function findStack(call: Call, client: Client): Promise<{ name: string; projects: string[] }> {
  const { session } = call;
  const text = call.args[0] ?? "";
  const isFile =
    /[./]/.test(text) ||
    (await access(resolvePath(session.cwd, text)).then(
      () => true,
      () => false,
    ));
  if (isFile) {
    const { name, project } = await readStackIdentity(text, session.cwd);
    return { name, projects: [project] };
  }
  if (session.projectGiven) return { name: text, projects: [session.project] };
  const limits = patience(session);
  const options = { signal: session.signal };
  const projects: Project[] = (await retrying(() => client.list(projectKind, {}, options), limits)).items;
  const instances = await retrying(() => client.list(instanceKind, {}, options), limits);
  const places = new Map<string, Set<string>>();
  for (const { metadata } of [...projects, ...instances.items]) {
    const name = metadata.labels[stackLabel];
    if (name === undefined) continue;
    places.set(name, (places.get(name) ?? new Set()).add(metadata.project ?? metadata.name));
  }
  const found = places.get(text);
  if (!found) {
    throw new StrataError("NotFound", `there is no stack "${text}"${didYouMean(text, places.keys())}`);
  }
  return { name: text, projects: [...found] };
}
