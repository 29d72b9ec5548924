/** `list`, `info` and what the groups of other kinds make of them. */
import { StrataError } from "../../core/errors.ts";
import { didYouMean } from "../../core/spelling.ts";
import { addressKind } from "../../kinds/address.ts";
import { backupKind } from "../../kinds/backup.ts";
import { backupRepositoryKind } from "../../kinds/backup-repository.ts";
import { backupScheduleKind } from "../../kinds/backup-schedule.ts";
import { certificateKind } from "../../kinds/certificate.ts";
import { groupKind } from "../../kinds/group.ts";
import { hostKind } from "../../kinds/host.ts";
import { imageKind } from "../../kinds/image.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { keyPairKind } from "../../kinds/key-pair.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { networkKind } from "../../kinds/network.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { peeringKind } from "../../kinds/peering.ts";
import { projectKind } from "../../kinds/project.ts";
import { publishedPortKind } from "../../kinds/published-port.ts";
import { routeTableKind } from "../../kinds/route-table.ts";
import { securityGroupKind } from "../../kinds/security-group.ts";
import { snapshotKind } from "../../kinds/snapshot.ts";
import { storagePoolKind } from "../../kinds/storage-pool.ts";
import { subnetKind } from "../../kinds/subnet.ts";
import { tokenKind } from "../../kinds/token.ts";
import { volumeKind } from "../../kinds/volume.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import { cardBranches } from "../networks/cards.ts";
import { readReach } from "../networks/reach.ts";
import { readWorld, type Scope } from "../networks/read-world.ts";
import type { Branch, Output } from "../output.ts";
import { kindTitle, resolve } from "../resolve.ts";
import {
  asJson,
  hostForm,
  imageForm,
  instanceForm,
  keyPairForm,
  projectForm,
  resourceTree,
  type TableForm,
  tokenForm,
} from "../show.ts";
import { backupForm, backupRepositoryForm, backupScheduleForm } from "../show-backups.ts";
import { balancerForm, certificateForm } from "../show-balancers.ts";
import { groupForm } from "../show-groups.ts";
import {
  addressForm,
  interfaceForm,
  networkForm,
  peeringForm,
  publishedPortForm,
  routeTableForm,
  securityGroupForm,
  subnetForm,
} from "../show-networks.ts";
import { storagePoolForm } from "../show-storage-pools.ts";
import { snapshotForm, volumeForm } from "../show-volumes.ts";

interface Listed {
  kind: Kind;
  /** Instances: with where they can be found. */
  form: TableForm<Resource> | ((session: Session, scope: Scope) => Promise<TableForm<Resource>>);
  /** What to do when there is none. */
  hint: string;
}

function listed<S, T>(kind: Kind<S, T>, form: TableForm<Resource<S, T>>, hint: string): Listed {
  return { kind: kind as Kind, form: form as TableForm<Resource>, hint };
}

const instancesListed: Listed = {
  kind: instanceKind as Kind,
  form: async (session, scope) => {
    const reach = await readReach(await session.client(), scope, session.target, session.signal);
    return instanceForm(reach) as TableForm<Resource>;
  },
  hint: "`strata launch IMAGE` makes one",
};

const listedKinds: readonly Listed[] = [
  instancesListed,
  listed(groupKind, groupForm, "`strata group create NAME IMAGE` makes one"),
  listed(imageKind, imageForm, "`strata image build NAME --suite bookworm` makes one"),
  listed(keyPairKind, keyPairForm, "`strata key-pair create NAME` makes one"),
  listed(networkKind, networkForm, "each project gets one with its first instance"),
  listed(subnetKind, subnetForm, "`strata subnet create NAME --network NETWORK --cidr RANGE` makes one"),
  listed(routeTableKind, routeTableForm, "without one, subnets have their network's own routes"),
  listed(peeringKind, peeringForm, "`strata network peer NETWORK NETWORK` makes one"),
  listed(securityGroupKind, securityGroupForm, "`strata security-group create NAME` makes one"),
  listed(networkInterfaceKind, interfaceForm, "`strata interface create NAME --network NETWORK` makes one"),
  listed(snapshotKind, snapshotForm, "`strata snapshot create VOLUME NAME` makes one"),
  listed(volumeKind, volumeForm, "`strata volume create NAME --size 20GiB` makes one"),
  listed(storagePoolKind, storagePoolForm, "volumes without one lie in the daemon's own directory"),
  listed(backupKind, backupForm, "`strata backup create VOLUME` makes one"),
  listed(backupRepositoryKind, backupRepositoryForm, "`strata backup-repository create NAME` makes one"),
  listed(backupScheduleKind, backupScheduleForm, "`strata backup-schedule create NAME VOLUME` makes one"),
  listed(addressKind, addressForm, "`strata address allocate` makes one"),
  listed(publishedPortKind, publishedPortForm, "`strata publish PORT INSTANCE` makes one"),
  listed(loadBalancerKind, balancerForm, "`strata load-balancer create NAME --http PORT` makes one"),
  listed(certificateKind, certificateForm, "`strata certificate create NAME` makes one"),
  listed(projectKind, projectForm, "`strata project create NAME` makes one"),
  listed(hostKind, hostForm, "`strata daemon start` makes this machine one"),
  listed(tokenKind, tokenForm, "`strata token create NAME --role member` makes one"),
];

/** As their commands are called. */
const shortNames: Readonly<Record<string, string>> = {
  interface: "networkinterface",
  interfaces: "networkinterfaces",
};

/** By name, plural or any unambiguous spelling of them: `instances`, `KeyPair`, `key-pair`. */
export function kindNamed(text: string): Listed {
  const wanted = shortNames[text.toLowerCase()] ?? text.toLowerCase().replaceAll("-", "");
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
  const shown = typeof form === "function" ? await form(session, scope) : form;
  const showProject = all && kind.scope === "project";
  return {
    type: "table",
    columns: showProject ? ["PROJECT", ...shown.columns] : shown.columns,
    rows: items.map((item) => {
      const row = shown.row(item);
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
  const client = await session.client();
  const resource = await resolve(client, kind, session.project, text, session.signal);
  const more = kind.name === instanceKind.name ? await instanceBranches(session, resource as Instance) : [];
  return { type: "tree", branches: [...resourceTree(resource), ...more], json: asJson(resource) };
}

async function instanceBranches(session: Session, instance: Instance): Promise<Branch[]> {
  const client = await session.client();
  const scope = { project: session.project };
  const world = await readWorld(client, session.project, session.signal);
  const reach = await readReach(client, scope, session.target, session.signal);
  return cardBranches(world, instance, reach);
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
