/** `list`, `info` and what the groups of other kinds make of them. */
import { StrataError } from "../../core/errors.ts";
import { didYouMean } from "../../core/spelling.ts";
import { hostKind } from "../../kinds/host.ts";
import { imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { keyPairKind } from "../../kinds/key-pair.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { networkKind } from "../../kinds/network.ts";
import { projectKind } from "../../kinds/project.ts";
import { tokenKind } from "../../kinds/token.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { kindTitle, resolve } from "../resolve.ts";
import {
  asJson,
  hostForm,
  imageForm,
  instanceForm,
  keyPairForm,
  networkForm,
  projectForm,
  resourceTree,
  type TableForm,
  tokenForm,
} from "../show.ts";

interface Listed {
  kind: Kind;
  form: TableForm<Resource>;
  /** What to do when there is none. */
  hint: string;
}

function listed<S, T>(kind: Kind<S, T>, form: TableForm<Resource<S, T>>, hint: string): Listed {
  return { kind: kind as Kind, form: form as TableForm<Resource>, hint };
}

const listedKinds: readonly Listed[] = [
  listed(instanceKind, instanceForm, "`strata launch IMAGE` makes one"),
  listed(imageKind, imageForm, "`strata image build NAME --suite bookworm` makes one"),
  listed(keyPairKind, keyPairForm, "`strata key-pair create NAME` makes one"),
  listed(networkKind, networkForm, "each project gets one with its first instance"),
  listed(projectKind, projectForm, "`strata project create NAME` makes one"),
  listed(hostKind, hostForm, "`strata daemon start` makes this machine one"),
  listed(tokenKind, tokenForm, "`strata token create NAME --role member` makes one"),
];

/** By name, plural or any unambiguous spelling of them: `instances`, `KeyPair`, `key-pair`. */
export function kindNamed(text: string): Listed {
  const wanted = text.toLowerCase().replaceAll("-", "");
  const found = listedKinds.find(({ kind }) =>
    [kind.name, kind.plural].some((name) => name.toLowerCase().replaceAll("-", "") === wanted),
  );
  if (found) return found;
  const names = listedKinds.map(({ kind }) => kind.plural);
  throw new StrataError("Invalid", `there is no kind "${text}"${didYouMean(text, names)}`, {
    fields: [{ path: "kind", message: "is not known", allowed: names.join(", ") }],
  });
}

export async function listResources(call: Call, plural: string): Promise<Output> {
  const { session, options } = call;
  const { kind, form, hint } = kindNamed(plural);
  const client = await session.client();
  const all = options.flag("all-projects");
  const scope = kind.scope === "project" && !all ? { project: session.project } : {};
  const state = options.text("state");
  const labels = labelFilter(options.texts("label"));
  const listOptions = { ...scope, ...(state ? { state } : {}), ...(labels ? { labels } : {}) };
  const { items } = await client.list(kind, listOptions, { signal: session.signal });
  const withProject =
    kind.scope === "project" &&
    !session.projectGiven &&
    (all || (await othersHaveSome(kind, items, session)));
  if (withProject && !all && items.length === 0) return await listResources(everywhere(call), plural);
  const showProject = all && kind.scope === "project";
  return {
    type: "table",
    columns: showProject ? ["PROJECT", ...form.columns] : form.columns,
    rows: items.map((item) => {
      const row = form.row(item);
      return showProject ? [item.metadata.project ?? "", ...row] : row;
    }),
    empty: `no ${kind.plural}${"project" in scope ? ` in project ${session.project}` : ""}; ${hint}`,
    json: asJson(items),
  };
}

/** Nothing in the default project and no project named: the person means what there is. */
async function othersHaveSome(kind: Kind, items: readonly Resource[], session: Session): Promise<boolean> {
  if (items.length > 0) return false;
  const client = await session.client();
  const page = await client.listPage(kind, { limit: 1 }, { signal: session.signal });
  return page.items.length > 0;
}

function everywhere(call: Call): Call {
  const flag = (name: string) => name === "all-projects" || call.options.flag(name);
  return { ...call, options: { ...call.options, flag } };
}

function labelFilter(texts: readonly string[]): Record<string, string> | undefined {
  if (texts.length === 0) return undefined;
  return Object.fromEntries(
    texts.map((text) => {
      const [, key, value] = /^([^=]+)=(.*)$/.exec(text) ?? [];
      if (key === undefined || value === undefined) {
        throw new StrataError("Invalid", `--label must be KEY=VALUE, not "${text}"`);
      }
      return [key, value];
    }),
  );
}

export async function showResource(call: Call, plural: string, text: string): Promise<Output> {
  const { session } = call;
  const { kind } = kindNamed(plural);
  const resource = await resolve(await session.client(), kind, session.project, text, session.signal);
  return { type: "tree", branches: resourceTree(resource), json: asJson(resource) };
}

/** Deletes by names or ids, after a yes. What users of it remain, the server says. */
export async function deleteResources(call: Call, plural: string, texts: readonly string[]): Promise<Output> {
  const { session } = call;
  const { kind } = kindNamed(plural);
  const { project, signal } = session;
  const client = await session.client();
  const found = await Promise.all(texts.map((text) => resolve(client, kind, project, text, signal)));
  const names = found.map((resource) => resource.metadata.name);
  await session.confirm(`${kindTitle(kind)} ${names.join(", ")} will be deleted. Go on?`);
  const scope = kind.scope === "project" ? { project } : {};
  for (const name of names) await client.delete(kind, { ...scope, name }, { signal });
  return { type: "message", text: `deleted ${names.join(", ")}`, json: asJson(found) };
}

export const listOptions = [
  { flags: "-A, --all-projects", summary: "of all projects" },
  { flags: "--label <key=value>", summary: "only with this label", repeatable: true },
  { flags: "--state <state>", summary: "only in this state" },
] as const;

export const listingCommands: readonly CommandSpec[] = [
  {
    path: "list",
    group: "Instances",
    summary: "List instances, or resources of another kind",
    arguments: [
      { name: "[kind]", summary: `one of ${listedKinds.map(({ kind }) => kind.plural).join(", ")}` },
    ],
    options: listOptions,
    examples: [
      "strata list",
      "strata list images -p campus",
      "strata list --label strata/stack=campus --json",
    ],
    run: (call) => listResources(call, call.args[0] ?? "instances"),
  },
  {
    path: "info",
    group: "Instances",
    summary: "Show all about an instance, or a resource of another kind",
    arguments: [
      { name: "<name>", summary: "name or beginning of the id", completes: "instances" },
      { name: "[kind]", summary: "its kind, when it is no instance" },
    ],
    examples: ["strata info lms", "strata info campus image", "strata info 3kx9 --json"],
    run: (call) => showResource(call, call.args[1] ?? "instances", call.args[0] ?? ""),
  },
];
