/** How each kind looks in a table or a tree. Pure. */

import { shortId } from "../core/ids.ts";
import type { Json } from "../core/json.ts";
import { formatBytes, formatMib } from "../core/units.ts";
import type { Event } from "../kinds/event.ts";
import type { Host } from "../kinds/host.ts";
import type { Image } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import type { KeyPair } from "../kinds/key-pair.ts";
import type { Condition, Resource } from "../kinds/kind.ts";
import type { Project } from "../kinds/project.ts";
import type { Token } from "../kinds/token.ts";
import type { Reach } from "./networks/reach.ts";
import type { Branch, Cell, Tone } from "./output.ts";

/** The columns of a kind and how a resource fills them. */
export interface TableForm<R> {
  columns: readonly string[];
  row(resource: R): readonly Cell[];
}

const tones: Record<string, Tone> = {
  running: "good",
  ready: "good",
  active: "good",
  bound: "good",
  attached: "good",
  available: "dim",
  free: "dim",
  failed: "bad",
  backoff: "bad",
  "not-ready": "bad",
  stopped: "dim",
};

export function stateCell(resource: { metadata: { deletedAt?: string | undefined } }, state: string): Cell {
  const shown = resource.metadata.deletedAt ? "deleting" : state;
  return { text: shown, tone: tones[shown] ?? "busy" };
}

/** `reach`: where a person finds what an instance serves. */
export function instanceForm(reach: Reach): TableForm<Instance> {
  return {
    columns: ["NAME", "TYPE", "STATE", "ADDRESS", "URL", "IMAGE", "ID"],
    row: (instance) => [
      instance.metadata.name,
      instance.spec.type,
      instanceState(instance),
      reach.address(instance),
      reach.urls(instance)[0] ?? { text: reach.hint(instance), tone: "dim" },
      shortDigest(instance.status.imageDigest) || instance.spec.image,
      shortId(instance.metadata.uid),
    ],
  };
}

export function instanceState(instance: Instance): Cell {
  if (instance.status.state === "running" && !instance.metadata.deletedAt) {
    const ready = instance.status.conditions.find((condition) => condition.type === "Ready");
    if (ready && ready.status !== "true") return { text: "running (not ready)", tone: "busy" };
  }
  return stateCell(instance, instance.status.state);
}

export const imageForm: TableForm<Image> = {
  columns: ["NAME", "STATE", "OS", "TYPES", "SIZE", "DIGEST", "SOURCE"],
  row: (image) => [
    image.metadata.name,
    stateCell(image, image.status.state),
    image.status.os ?? "",
    image.status.types.join(", "),
    image.status.sizeBytes === undefined ? "" : formatBytes(image.status.sizeBytes),
    shortDigest(image.status.digest),
    sourceText(image.spec.source),
  ],
};

export function sourceText(source: Image["spec"]["source"]): string {
  switch (source.type) {
    case "debian":
      return `debian ${source.suite}`;
    case "dockerfile":
      return source.file;
    case "url":
      return source.url;
    case "catalogue":
      return source.name;
    case "simplestreams":
      return `${source.server} ${source.alias}`;
    case "upload":
      return `upload (${source.format})`;
    case "instance":
      return `instance ${source.instance}`;
    case "backup":
      return `backup ${source.backup}`;
  }
}

export const hostForm: TableForm<Host> = {
  columns: ["NAME", "STATE", "CPUS", "MEMORY", "DISK", "DRIVERS"],
  row: (host) => [
    host.metadata.name,
    host.spec.cordoned
      ? { text: `${host.status.state}, cordoned`, tone: "busy" }
      : stateCell(host, host.status.state),
    String(host.status.allocatable.cpus),
    formatMib(host.status.allocatable.memoryMib),
    formatMib(host.status.allocatable.diskMib),
    Object.entries(host.status.drivers)
      .filter(([, driver]) => driver.available)
      .map(([name]) => name)
      .join(", "),
  ],
};

export const projectForm: TableForm<Project> = {
  columns: ["NAME", "STATE", "DESCRIPTION"],
  row: (project) => [
    project.metadata.name,
    stateCell(project, project.status.state),
    project.spec.description,
  ],
};

export const keyPairForm: TableForm<KeyPair> = {
  columns: ["NAME", "TYPE", "COMMENT"],
  row: (keyPair) => {
    const [type = "", , ...comment] = keyPair.spec.publicKey.split(" ");
    return [keyPair.metadata.name, type, comment.join(" ")];
  },
};

export const tokenForm: TableForm<Token> = {
  columns: ["NAME", "ROLE", "PROJECT", "EXPIRES"],
  row: (token) => [
    token.metadata.name,
    token.spec.role,
    token.spec.project ?? "all",
    token.spec.expiresAt ?? "never",
  ],
};

export function eventLine(event: Event): string {
  const { subject, severity, reason, message } = event.spec;
  const mark = severity === "warning" ? "!" : " ";
  return `${event.metadata.createdAt} ${mark} ${subject.kind.toLowerCase()}/${subject.name}  ${reason}  ${message}`;
}

/** A resource without what only programs want. */
export function resourceTree(resource: Resource): Branch[] {
  const { metadata } = resource;
  const identity: Branch[] = [
    { label: "name", value: metadata.name },
    { label: "kind", value: resource.kind },
    ...(metadata.project ? [{ label: "project", value: metadata.project }] : []),
    { label: "id", value: metadata.uid },
    { label: "created", value: metadata.createdAt },
    ...(metadata.deletedAt ? [{ label: "deleting since", value: metadata.deletedAt }] : []),
  ];
  const labels = Object.entries(metadata.labels).map(([label, value]) => ({ label, value }));
  const { conditions, ...status } = resource.status as Record<string, Json> & { conditions?: Condition[] };
  const branches = [
    ...identity,
    ...(labels.length > 0 ? [{ label: "labels", children: labels }] : []),
    { label: "spec", children: jsonBranches(resource.spec as Json) },
    { label: "status", children: jsonBranches(status) },
  ];
  if (conditions && conditions.length > 0) {
    branches.push({ label: "conditions", children: conditions.map(conditionBranch) });
  }
  return branches;
}

function conditionBranch(condition: Condition): Branch {
  const tone: Tone = condition.status === "true" ? "good" : "busy";
  const text = [condition.status, condition.reason, condition.message].filter(Boolean).join("  ");
  return { label: condition.type, value: { text, tone } };
}

export function jsonBranches(value: Json): Branch[] {
  if (value === null || typeof value !== "object") return [{ label: String(value) }];
  return Object.entries(value).map(([label, child]): Branch => {
    if (child === null || typeof child !== "object") return { label, value: clipped(String(child)) };
    const children = jsonBranches(child);
    if (children.length === 0) return { label, value: Array.isArray(child) ? "none" : "{}" };
    const scalars = Array.isArray(child) && child.every((item) => item === null || typeof item !== "object");
    return scalars ? { label, value: child.join(", ") } : { label, children };
  });
}

const longestValue = 160;

function clipped(text: string): string {
  return text.length <= longestValue ? text : `${text.slice(0, longestValue)}… (${text.length} characters)`;
}

/** The first 12 digits, as image tools show them. */
export function shortDigest(digest: string | undefined): string {
  return digest?.replace(/^sha256:/, "").slice(0, 12) ?? "";
}

/** Resources go out as the API sent them. */
export function asJson(value: unknown): Json {
  return value as Json;
}
