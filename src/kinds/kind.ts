/**
 * The resource model. Everything a user can have is a kind: `spec` says what is wanted (users write it), `status`
 * what is seen (controllers and agents write it). Kinds are pure data and rules, shared by server, command line and
 * web: no I/O here.
 *
 * Invariants: a name is unique in its kind and project; a uid is never used twice; `generation` counts changes of the
 * spec, `status.observedGeneration` the last one acted on; a resource with finalizers stays (marked `deletedAt`) until
 * each owner of a finalizer has cleaned up and taken it out.
 */
import * as z from "zod";
import type { FieldError } from "../core/errors.ts";
import { namePattern, nameRule, type Uid } from "../core/ids.ts";

export const nameSchema = z.string().regex(namePattern, { error: `must be ${nameRule}` });
export const uidSchema = z
  .string()
  .regex(/^[0-9a-hjkmnp-tv-z]{16}$/)
  .transform((text) => text as Uid);
export const timestampSchema = z.iso.datetime();

const labelKey = z.string().regex(/^[a-z0-9](?:[a-z0-9./-]{0,61}[a-z0-9])?$/, {
  error: "must be 1 to 63 of a-z, 0-9, '.', '/' and '-'",
});
export const labelsSchema = z
  .record(labelKey, z.string().max(256))
  .refine((labels) => Object.keys(labels).length <= 64, { error: "at most 64 labels" });

export const ownerSchema = z.strictObject({ kind: z.string(), name: nameSchema, uid: z.string() });

export const metadataSchema = z.strictObject({
  name: nameSchema,
  /** Absent on kinds of cluster scope. */
  project: nameSchema.optional(),
  uid: uidSchema,
  /** The store revision of the last write; also the ETag. */
  revision: z.int().min(0),
  /** Starts at 1, one more with each change of spec. */
  generation: z.int().min(1),
  labels: labelsSchema,
  createdAt: timestampSchema,
  /** Set when deletion was asked for; never taken back. */
  deletedAt: timestampSchema.optional(),
  finalizers: z.array(z.string().max(64)).max(16),
  /** Deleted together with its owner. */
  owner: ownerSchema.optional(),
});
export type Metadata = z.infer<typeof metadataSchema>;

export interface Resource<Spec = unknown, Status = unknown> {
  kind: string;
  metadata: Metadata;
  spec: Spec;
  status: Status;
}

/** One aspect of a resource's state, with a reason that a person can act on. */
export const conditionSchema = z.strictObject({
  type: z.string().max(64),
  status: z.enum(["true", "false", "unknown"]),
  /** One CamelCase word, for programs. */
  reason: z.string().max(64),
  /** For people: what is the matter and what would help. Empty when all is well. */
  message: z.string().max(1024),
  /** When `status` last changed. */
  since: timestampSchema,
});
export type Condition = z.infer<typeof conditionSchema>;

/** How far a long operation has come. */
export const progressSchema = z.strictObject({
  step: z.string().max(200),
  /** 0 to 1; absent where nobody can know. */
  fraction: z.number().min(0).max(1).optional(),
});
export type Progress = z.infer<typeof progressSchema>;

export type Scope = "cluster" | "project";

export interface Kind<Spec = unknown, Status = unknown> {
  /** CamelCase singular: `KeyPair`. */
  readonly name: string;
  /** kebab-case plural, as in paths: `key-pairs`. */
  readonly plural: string;
  readonly scope: Scope;
  /** One sentence for documentation and help. */
  readonly summary: string;
  /** Parses and completes what a user writes: unknown keys are errors, defaults are filled in. */
  readonly spec: z.ZodType<Spec>;
  readonly status: z.ZodType<Status>;
  initialStatus(): Status;
  /** Rules that compare: fields that cannot change, or only in some states. An empty array allows the update. */
  validateUpdate(next: Spec, previous: Spec, status: Status): FieldError[];
  /** Finalizers a new resource starts with. */
  readonly finalizers: readonly string[];
  /** True: created and written by Strata itself; users may read and (where noted) delete it. */
  readonly internal: boolean;
}

/** The resource type of a kind. */
export type ResourceOf<K> = K extends Kind<infer Spec, infer Status> ? Resource<Spec, Status> : never;

/** Declares a kind and keeps its types. */
export function defineKind<Spec, Status>(
  kind: Omit<Kind<Spec, Status>, "finalizers" | "internal" | "validateUpdate"> &
    Partial<Pick<Kind<Spec, Status>, "finalizers" | "internal" | "validateUpdate">>,
): Kind<Spec, Status> {
  return { finalizers: [], internal: false, validateUpdate: () => [], ...kind };
}

/** FieldErrors for the named fields of spec that differ although they can't change after creation. */
export function immutable<Spec extends object>(
  next: Spec,
  previous: Spec,
  fields: readonly (keyof Spec & string)[],
): FieldError[] {
  return fields
    .filter((field) => JSON.stringify(next[field]) !== JSON.stringify(previous[field]))
    .map((field) => ({
      path: `spec.${field}`,
      message: "cannot change after creation; delete the resource and create it anew",
      allowed: JSON.stringify(previous[field]) ?? "nothing",
    }));
}

/**
 * The same conditions with `next` set; `since` moves only when `status` changes, so that repeating is no change.
 * `at` is an RFC 3339 time.
 */
export function withCondition(
  conditions: readonly Condition[],
  next: Omit<Condition, "since">,
  at: string,
): Condition[] {
  const previous = conditions.find((condition) => condition.type === next.type);
  const since = previous && previous.status === next.status ? previous.since : at;
  const others = conditions.filter((condition) => condition.type !== next.type);
  return [...others, { ...next, since }].sort((a, b) => (a.type < b.type ? -1 : 1));
}
