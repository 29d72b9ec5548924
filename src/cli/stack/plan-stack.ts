/** What has to happen so that what is there becomes what the stack says. Pure. */
import { createHash } from "node:crypto";
import { type FieldError, StrataError } from "../../core/errors.ts";
import { canonicalJson, isJsonObject, type Json, type JsonObject, jsonEquals } from "../../core/json.ts";
import { closest } from "../../core/spelling.ts";
import { formatMib } from "../../core/units.ts";
import { certificateKind, hiddenKey } from "../../kinds/certificate.ts";
import { groupKind, type MemberTemplate } from "../../kinds/group.ts";
import type { Host } from "../../kinds/host.ts";
import { instanceKind } from "../../kinds/instance.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { networkKind } from "../../kinds/network.ts";
import { projectKind } from "../../kinds/project.ts";
import { kindTitle } from "../resolve.ts";
import { type Desired, stackLabel } from "./expand-stack.ts";
import { isForLife, referencesOf, settledFields } from "./stack-kinds.ts";

export interface Existing {
  kind: Kind;
  resource: Resource;
}

export type Change =
  | { action: "create"; desired: Desired }
  | { action: "update"; desired: Desired; existing: Existing; fields: string[] }
  | { action: "replace"; desired: Desired; existing: Existing; reasons: FieldError[] }
  | { action: "delete"; existing: Existing }
  | { action: "unchanged"; desired: Desired; existing: Existing };

export interface Plan {
  stack: string;
  project: string;
  changes: Change[];
}

/**
 * `existing`: all resources of the stack's kinds in its project, and the project itself.
 * @throws Invalid for names that nothing has; Conflict when a name belongs to something outside the stack.
 */
export function planStack(
  stack: { name: string; project: string; desired: readonly Desired[] },
  existing: readonly Existing[],
): Plan {
  const present = existing.filter(({ resource }) => resource.metadata.deletedAt === undefined);
  const byName = new Map(present.map((item) => [keyOf(item.kind, item.resource.metadata.name), item]));
  checkReferences(stack.desired, byName);
  checkOwnership(stack, byName);
  const changes = stack.desired.map((desired) =>
    changeFor(desired, byName.get(keyOf(desired.kind, desired.name))),
  );
  spreadReplacements(changes);
  const wanted = new Set(stack.desired.map((desired) => keyOf(desired.kind, desired.name)));
  const removed = present
    .filter(({ resource }) => resource.metadata.labels[stackLabel] === stack.name)
    .filter(({ resource }) => resource.metadata.owner === undefined)
    .filter(({ kind, resource }) => kind !== projectKind && !wanted.has(keyOf(kind, resource.metadata.name)))
    .map((item): Change => ({ action: "delete", existing: item }));
  return { stack: stack.name, project: stack.project, changes: [...changes, ...removed] };
}

/** True when nothing has to be done. */
export function isSettled(plan: Plan): boolean {
  return plan.changes.every((change) => change.action === "unchanged");
}

function changeFor(desired: Desired, existing: Existing | undefined): Change {
  if (!existing) return { action: "create", desired };
  // A project that was there before is used as it is.
  if (desired.kind === projectKind) return { action: "unchanged", desired, existing };
  const { kind } = desired;
  const completed = adopted(desired, existing.resource);
  const next = completed.spec;
  const previous = existing.resource.spec as Json;
  const reasons = kind.validateUpdate(next, previous, existing.resource.status);
  if (reasons.length > 0) return { action: "replace", desired: completed, existing, reasons };
  const fields = changedFields(previous, asShown(kind, next));
  if (!jsonEquals(existing.resource.metadata.labels, completed.labels)) fields.push("labels");
  return fields.length === 0
    ? { action: "unchanged", desired: completed, existing }
    : { action: "update", desired: completed, existing, fields };
}

/** The desired spec with its defaults, and what only the existing resource knows. */
function adopted(desired: Desired, existing: Resource): Desired {
  const spec = desired.kind.spec.parse(desired.spec) as JsonObject;
  const previous = existing.spec as JsonObject;
  if (desired.kind === instanceKind) {
    spec.restarts = previous.restarts ?? 0;
    spec.rebuilds = previous.rebuilds ?? 0;
  }
  for (const field of settledFields(desired.kind)) {
    if (spec[field] === undefined && previous[field] !== undefined) spec[field] = previous[field];
  }
  const source = previous.source;
  if (desired.upload && isJsonObject(source) && source.sha256 === desired.upload.sha256) {
    // The same bytes were sent before; only the name of that upload differs.
    spec.source = { ...(spec.source as JsonObject), upload: source.upload ?? "" };
    const { upload: _sent, ...rest } = desired;
    return { ...rest, spec };
  }
  return { ...desired, spec };
}

/** As the API shows it: private keys are hidden. */
function asShown(kind: Kind, spec: JsonObject): JsonObject {
  const { own } = spec;
  if (kind.name !== certificateKind.name || !isJsonObject(own)) return spec;
  const digest = createHash("sha256").update(String(own.privateKey)).digest("hex");
  return { ...spec, own: { ...own, privateKey: hiddenKey(digest) } };
}

function changedFields(previous: Json, next: Json): string[] {
  const before = isJsonObject(previous) ? previous : {};
  const after = isJsonObject(next) ? next : {};
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].filter(
    (key) => canonicalJson(before[key] ?? null) !== canonicalJson(after[key] ?? null),
  );
}

/**
 * What is replaced is deleted first, which only works when nothing refers to it: what cannot do without is replaced with
 * it, what can is written again. Changes are in the order of creation, so one pass follows any chain.
 */
function spreadReplacements(changes: Change[]): void {
  const replaced = new Set<string>();
  for (const [index, change] of changes.entries()) {
    const next = change.action === "delete" ? change : afterReplacements(change, replaced);
    changes[index] = next;
    if (next.action === "replace") replaced.add(keyOf(next.desired.kind, next.desired.name));
  }
}

function afterReplacements(
  change: Exclude<Change, { action: "delete" }>,
  replaced: ReadonlySet<string>,
): Change {
  if (change.action !== "unchanged" && change.action !== "update") return change;
  const { desired, existing } = change;
  const lost = referencesOf(desired.kind, desired.spec).filter((one) =>
    replaced.has(keyOf(one.kind, one.name)),
  );
  const reasons = lost
    .filter((one) => isForLife(desired.kind, one.kind))
    .map(({ kind, name }) => ({
      path: `spec.${kindTitle(kind)}`,
      message: `the ${kindTitle(kind)} "${name}" is replaced`,
    }));
  if (reasons.length > 0) return { action: "replace", desired, existing, reasons };
  if (lost.length === 0) return change;
  const more = lost.map(({ kind }) => kindTitle(kind));
  const fields = [...new Set([...(change.action === "update" ? change.fields : []), ...more])];
  return { action: "update", desired, existing, fields };
}

function checkOwnership(
  stack: { name: string; desired: readonly Desired[] },
  byName: ReadonlyMap<string, Existing>,
): void {
  const fields: FieldError[] = [];
  for (const desired of stack.desired) {
    if (desired.kind === projectKind) continue;
    const owner = byName.get(keyOf(desired.kind, desired.name))?.resource.metadata.labels;
    if (!owner || owner[stackLabel] === stack.name) continue;
    const whose = owner[stackLabel] ? `belongs to the stack "${owner[stackLabel]}"` : "was made by hand";
    fields.push({
      path: desired.where,
      message: `exists already and ${whose}; choose another name or project`,
    });
  }
  if (fields.length > 0) {
    throw new StrataError("Conflict", "the stack would take over what is not its own; nothing was changed", {
      fields,
    });
  }
}

/** What specs refer to must be in the stack or in the project. */
function checkReferences(desired: readonly Desired[], byName: ReadonlyMap<string, Existing>): void {
  const fields = new Map<string, FieldError>();
  const known = knownNames(desired, byName);
  for (const one of desired) {
    for (const { kind, name } of referencesOf(one.kind, one.spec)) {
      const names = known.get(kind.name) ?? new Set();
      if (names.has(name)) continue;
      const guess = closest(name, names);
      fields.set(`${one.where} ${kind.name} ${name}`, {
        path: one.where,
        message: `there is no ${kindTitle(kind)} "${name}" in the stack or its project${guess ? `; did you mean "${guess}"?` : ""}`,
        ...(names.size > 0 ? { allowed: [...names].join(", ") } : {}),
      });
    }
  }
  if (fields.size > 0) {
    throw new StrataError("Invalid", "the stack names what does not exist; nothing was changed", {
      fields: [...fields.values()],
    });
  }
}

/** By kind. A network that divides itself has a subnet of its own name. */
function knownNames(
  desired: readonly Desired[],
  byName: ReadonlyMap<string, Existing>,
): Map<string, Set<string>> {
  const known = new Map<string, Set<string>>();
  const add = (kind: string, name: string) => {
    known.set(kind, (known.get(kind) ?? new Set()).add(name));
  };
  const all = [
    ...desired,
    ...[...byName.values()].map(({ kind, resource }) => ({
      kind,
      name: resource.metadata.name,
      spec: resource.spec,
    })),
  ];
  for (const { kind, name, spec } of all) {
    add(kind.name, name);
    const divided = (spec as { subnets?: string }).subnets === "custom";
    if (kind.name === networkKind.name && !divided) add("Subnet", name);
  }
  return known;
}

/**
 * Refuses instances that no host could ever run, before anything is changed.
 * @throws Invalid
 */
export function checkHosts(desired: readonly Desired[], hosts: readonly Host[]): void {
  const ready = hosts.filter((host) => host.status.state === "ready");
  if (ready.length === 0) return; // they may come; the instances wait
  const fields = new Map<string, FieldError>();
  for (const instance of desired) {
    const spec = templateOf(instance);
    const problem = spec && unfit(spec, ready);
    if (problem) fields.set(instance.where, { path: instance.where, ...problem });
  }
  if (fields.size > 0) {
    throw new StrataError("Invalid", "the stack needs more than any host has; nothing was changed", {
      fields: [...fields.values()],
    });
  }
}

/** What the instances that it stands for are like. */
export function templateOf({ kind, spec }: Desired): MemberTemplate | undefined {
  if (kind.name === groupKind.name) return groupKind.spec.parse(spec).template;
  return kind.name === instanceKind.name ? instanceKind.spec.parse(spec) : undefined;
}

function unfit(
  spec: MemberTemplate,
  hosts: readonly Host[],
): { message: string; allowed: string } | undefined {
  const most = (value: (host: Host) => number) => Math.max(...hosts.map(value));
  const memory = most((host) => host.status.allocatable.memoryMib);
  if (spec.memoryMib > memory) {
    return {
      message: `${formatMib(spec.memoryMib)} of memory are more than any host has`,
      allowed: `up to ${formatMib(memory)}`,
    };
  }
  const disk = most((host) => host.status.allocatable.diskMib);
  if (spec.diskMib > disk) {
    return {
      message: `${formatMib(spec.diskMib)} of disk are more than any host has`,
      allowed: `up to ${formatMib(disk)}`,
    };
  }
  const cpus = most((host) => Math.floor(host.status.allocatable.cpus * host.spec.cpuOvercommit));
  if (spec.cpus > cpus)
    return { message: `${spec.cpus} CPUs are more than any host offers`, allowed: `up to ${cpus}` };
  const drivers = hosts.flatMap((host) => Object.entries(host.status.drivers));
  const able = drivers.some(
    ([name, driver]) =>
      driver.available &&
      driver.types.includes(spec.type) &&
      (spec.driver === undefined || spec.driver === name),
  );
  if (!able) {
    const reasons = drivers.flatMap(([name, driver]) =>
      driver.available ? [] : [`${name}: ${driver.message}`],
    );
    const offered = [...new Set(drivers.flatMap(([, driver]) => (driver.available ? driver.types : [])))];
    return {
      message: `no host can run a ${spec.type}${spec.driver ? ` with the driver ${spec.driver}` : ""}${reasons.length > 0 ? ` (${reasons.join("; ")})` : ""}`,
      allowed: offered.join(", ") || "nothing",
    };
  }
  return undefined;
}

export function keyOf(kind: Pick<Kind, "plural">, name: string): string {
  return `${kind.plural}/${name}`;
}
