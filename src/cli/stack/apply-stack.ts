/**
 * Carries out a plan. Every step may be repeated: another `up` of the same stack, a daemon that restarts in the middle
 * or a second try change nothing that is already as it should be.
 */
import { createReadStream } from "node:fs";
import type { Client } from "../../client/client.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import type { Json, JsonObject } from "../../core/json.ts";
import { addressKind } from "../../kinds/address.ts";
import { groupKind } from "../../kinds/group.ts";
import { imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind } from "../../kinds/kind.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { peeringKind } from "../../kinds/peering.ts";
import { publishedPortKind } from "../../kinds/published-port.ts";
import { type Route, routeTableKind } from "../../kinds/route-table.ts";
import { type SecurityRule, securityGroupKind } from "../../kinds/security-group.ts";
import { packContext } from "../build/pack-context.ts";
import { kindTitle } from "../resolve.ts";
import { follow, type Patience, retrying } from "../watching.ts";
import type { Desired, Upload } from "./expand-stack.ts";
import { type Change, type Existing, keyOf, type Plan } from "./plan-stack.ts";
import { goesLast, stackKinds } from "./stack-kinds.ts";

export interface Reporter {
  progress(key: string, text: string, more?: { percent?: string; settled?: boolean }): void;
}

/** Kinds that are not yet what they should be when they are stored; the others are there. */
const takesTime: ReadonlySet<string> = new Set(
  [imageKind, instanceKind, groupKind, networkInterfaceKind, addressKind, publishedPortKind].map(
    ({ name }) => name,
  ),
);

/** What goes first, then what is made or changed, in the order of the kinds, then what others referred to until then. */
export async function applyPlan(
  client: Client,
  plan: Plan,
  limits: Patience,
  reporter: Reporter,
): Promise<void> {
  const deletions = plan.changes.flatMap((change) => (change.action === "delete" ? [change.existing] : []));
  const replaced = plan.changes.flatMap((change) => (change.action === "replace" ? [change.existing] : []));
  const last = deletions.filter(({ kind }) => goesLast.has(kind));
  const first = [...deletions.filter(({ kind }) => !goesLast.has(kind)), ...replaced];
  await withdrawRoutes(client, plan, first, limits);
  await deleteAll(client, first, limits, reporter);
  const wanted = plan.changes.flatMap((change) =>
    change.action === "delete" || change.action === "unchanged" ? [] : [change],
  );
  for (const kind of stackKinds) {
    const changes = wanted.filter((change) => change.desired.kind === kind);
    for (const batch of batchesOf(changes)) {
      await Promise.all(
        batch.map(async (one) => {
          reporter.progress(keyOf(kind, one.name), "asked for");
          await ensure(client, one, limits);
          if (!takesTime.has(kind.name)) settled(reporter, keyOf(kind, one.name), "there");
        }),
      );
    }
  }
  await deleteAll(client, last, limits, reporter);
}

/** Nothing that stays in the plan may name a route table or peering that goes now; what it shall name comes later. */
async function withdrawRoutes(
  client: Client,
  plan: Plan,
  gone: readonly Existing[],
  limits: Patience,
): Promise<void> {
  const names = (kind: string) =>
    new Set(gone.filter((one) => one.kind.name === kind).map(({ resource }) => resource.metadata.name));
  const tables = names(routeTableKind.name);
  const peerings = names(peeringKind.name);
  for (const change of plan.changes) {
    if (change.action !== "update") continue;
    const { kind, resource } = change.existing;
    const { routeTable, routes } = resource.spec as { routeTable?: string; routes?: Route[] };
    const kept = routes?.filter(({ via }) => via === undefined || !peerings.has(via));
    const spec: JsonObject = {
      ...(routeTable !== undefined && tables.has(routeTable) ? { routeTable: null } : {}),
      ...(kept !== undefined && kept.length !== routes?.length ? { routes: kept as unknown as Json } : {}),
    };
    if (Object.keys(spec).length > 0) await patch(client, { kind, resource }, spec, limits);
  }
}

async function patch(
  client: Client,
  { kind, resource }: Existing,
  spec: JsonObject,
  limits: Patience,
): Promise<void> {
  const { name, project } = resource.metadata;
  const ref = { name, ...(project ? { project } : {}) };
  await retrying(() => client.patch(kind, ref, { spec }, { signal: limits.signal }), limits).catch(
    (error: unknown) => {
      if (!hasCode(error, "NotFound")) throw error;
    },
  );
}

/** What may be written at the same time. Security groups may name one another: first they are made, then complete. */
function batchesOf(changes: readonly Exclude<Change, { action: "delete" }>[]): Desired[][] {
  const all = changes.map((change) => change.desired);
  const created = new Set(
    changes.flatMap((change) =>
      change.action === "create" && change.desired.kind.name === securityGroupKind.name
        ? [change.desired.name]
        : [],
    ),
  );
  const cut = all.map((one) => {
    const others = new Set([...created].filter((name) => name !== one.name));
    return created.size > 0 ? withoutRulesOf(one, others) : one;
  });
  const incomplete = all.filter((one, index) => cut[index] !== one);
  const begun = cut.filter((one, index) => one === all[index] || created.has(one.name));
  return incomplete.length === 0 ? [all] : [begun, incomplete];
}

/** The same group when none of its rules name one of `groups`. */
function withoutRulesOf<G extends { spec: unknown }>(group: G, groups: ReadonlySet<string>): G {
  const { ingress = [], egress } = group.spec as Partial<Record<"ingress" | "egress", SecurityRule[]>>;
  const keep = (rules: readonly SecurityRule[]) =>
    rules.filter((rule) => rule.group === undefined || !groups.has(rule.group));
  const kept = { ingress: keep(ingress), ...(egress ? { egress: keep(egress) } : {}) };
  const same = kept.ingress.length === ingress.length && kept.egress?.length === egress?.length;
  return same ? group : { ...group, spec: { ...(group.spec as object), ...kept } };
}

function settled(reporter: Reporter, key: string, text: string): void {
  reporter.progress(key, text, { settled: true });
}

async function ensure(client: Client, desired: Desired, limits: Patience): Promise<void> {
  const { kind, name, project, labels } = desired;
  const spec = await completed(client, desired, limits);
  await retrying(
    () =>
      client.apply(kind, { name, ...(project ? { project } : {}), labels, spec }, { signal: limits.signal }),
    limits,
  ).catch((error: unknown) => {
    throw located(error, desired);
  });
}

/** Sends what the spec needs. */
async function completed(client: Client, desired: Desired, limits: Patience): Promise<JsonObject> {
  const { upload } = desired;
  if (!upload) return desired.spec;
  const sent = await retrying(() => client.upload(contentOf(upload), { signal: limits.signal }), limits);
  if (sent.sha256 !== upload.sha256) {
    throw new StrataError("Conflict", `${upload.path} changed while it was read; try again`);
  }
  return { ...desired.spec, source: { ...(desired.spec.source as JsonObject), upload: sent.upload } };
}

function contentOf({ path, dockerfile }: Upload): AsyncIterable<Uint8Array> {
  return dockerfile === undefined
    ? createReadStream(path)
    : packContext({ directory: path, file: dockerfile });
}

/** What the server says about a spec, with the place in the stack file. */
function located(error: unknown, desired: Desired): unknown {
  if (!(error instanceof StrataError)) return error;
  return new StrataError(
    error.code,
    `cannot create ${kindTitle(desired.kind)} "${desired.name}": ${error.message}`,
    {
      cause: error,
      fields: error.fields.map((field) => ({ ...field, path: `${desired.where}: ${field.path}` })),
    },
  );
}

/** Deletes in the reverse order of creation and waits until each kind is gone. */
export async function deleteAll(
  client: Client,
  resources: readonly Existing[],
  limits: Patience,
  reporter: Reporter,
): Promise<void> {
  for (const kind of [...stackKinds].reverse()) {
    const own = resources.filter((item) => item.kind === kind);
    if (own.length === 0) continue;
    await release(client, kind, own, limits);
    await Promise.all(own.map((item) => requestDeletion(client, item, limits, reporter)));
    await awaitGone(client, kind, own, limits, reporter);
  }
}

/** Takes back what keeps resources from being deleted: rules by which groups name one another, and plugged-in cards. */
async function release(
  client: Client,
  kind: Kind,
  doomed: readonly Existing[],
  limits: Patience,
): Promise<void> {
  const names = doomed.map(({ resource }) => resource.metadata.name);
  for (const { resource } of doomed) {
    const { name, deletedAt } = resource.metadata;
    if (deletedAt !== undefined) continue;
    let spec: JsonObject | undefined;
    if (kind.name === securityGroupKind.name) {
      const others = new Set(names.filter((other) => other !== name));
      const released = withoutRulesOf(resource, others);
      if (released !== resource) spec = released.spec as JsonObject;
    }
    const { instance } = resource.spec as { instance?: string };
    if (kind.name === networkInterfaceKind.name && instance !== undefined) spec = { instance: null };
    if (spec !== undefined) await patch(client, { kind, resource }, spec, limits);
  }
}

/** How long something may still be in use after all that used it went away. */
const releaseTimeMs = 120_000;

async function requestDeletion(
  client: Client,
  { kind, resource }: Existing,
  limits: Patience,
  reporter: Reporter,
): Promise<void> {
  const { name, project, uid, deletedAt } = resource.metadata;
  if (deletedAt !== undefined) return;
  const ref = { name, ...(project ? { project } : {}) };
  reporter.progress(keyOf(kind, name), "deleting");
  const protectedBy = (resource.spec as { protected?: boolean }).protected;
  if (protectedBy) {
    throw new StrataError(
      "Conflict",
      `${kindTitle(kind)} "${name}" is protected; set protected to false first`,
    );
  }
  const deadlineMs = Math.min(limits.deadlineMs, limits.clock.monotonicMs() + releaseTimeMs);
  await retrying(
    async () => {
      const current = await client.get(kind, ref, { signal: limits.signal });
      if (current?.metadata.uid !== uid || current.metadata.deletedAt !== undefined) return;
      await client.delete(kind, ref, { signal: limits.signal, ifRevision: current.metadata.revision });
    },
    { ...limits, deadlineMs },
  ).catch((error: unknown) => {
    if (!hasCode(error, "NotFound")) throw error;
  });
}

async function awaitGone(
  client: Client,
  kind: Kind,
  resources: readonly Existing[],
  limits: Patience,
  reporter: Reporter,
): Promise<void> {
  const left = new Map(
    resources.map(({ resource }) => [resource.metadata.uid as string, resource.metadata.name]),
  );
  const project = resources[0]?.resource.metadata.project;
  await follow(
    client,
    kind,
    project === undefined ? {} : { project },
    limits,
    (seen) => {
      const uids = new Set([...seen.values()].map((resource) => resource.metadata.uid as string));
      for (const [uid, name] of left) {
        if (uids.has(uid)) continue;
        left.delete(uid);
        settled(reporter, keyOf(kind, name), "gone");
      }
      return left.size === 0;
    },
    () => `deleting ${[...left.values()].join(", ")}`,
  );
}
