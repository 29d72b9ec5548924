import * as z from "zod";
import { type InstanceSpec, instanceSpecSchema } from "./instance.ts";
import { defineKind, immutable, type ResourceOf } from "./kind.ts";
import { scalingProblems } from "./scaling/group-rules.ts";
import { policySchema } from "./scaling/policy-schema.ts";

export const groupLimits = {
  maxMembers: 1000,
  maxWarm: 100,
  maxPolicies: 16,
} as const;

/** What each member is: an instance without what is one instance's own. */
export const memberTemplateSchema = instanceSpecSchema.omit({
  ipAddress: true,
  ipv6Address: true,
  protected: true,
  power: true,
  restarts: true,
  rebuilds: true,
});
export type MemberTemplate = Omit<
  InstanceSpec,
  "ipAddress" | "ipv6Address" | "protected" | "power" | "restarts" | "rebuilds"
>;

const count = z.int().min(0).max(groupLimits.maxMembers);
const seconds = z.int().min(0).max(86_400);

/** How fast a group may change, whatever its policies want. */
const behaviorSchema = z.strictObject({
  /** Scaling out: at most this many more at once, and then not again for so long. */
  outStep: z.int().min(1).max(groupLimits.maxMembers).default(groupLimits.maxMembers),
  outCooldownSeconds: seconds.default(0),
  /** Scaling in: only to the most that was wanted within the last so many seconds. */
  inStabilizationSeconds: seconds.default(120),
  inStep: z.int().min(1).max(groupLimits.maxMembers).default(groupLimits.maxMembers),
  inCooldownSeconds: seconds.default(30),
});

/** How a changed template reaches the members. */
const updateSchema = z.strictObject({
  /** Members beyond the desired number while an update runs. No member is taken away before its successor serves. */
  maxSurge: z.int().min(1).max(100).default(1),
  /** A new member has to be healthy for so long before the next one is replaced. */
  settleSeconds: seconds.default(0),
  /** A new member that is not healthy after so long has failed: the update stops. */
  timeoutSeconds: z.int().min(1).max(86_400).default(300),
  /** After a failure: back to the version that served before (true), or stop and wait for a person. */
  rollback: z.boolean().default(true),
});

const defaults = { behavior: behaviorSchema.parse({}), update: updateSchema.parse({}) };

export const groupSpecSchema = z
  .strictObject({
    template: memberTemplateSchema,
    min: count.default(1),
    max: count.default(1),
    /** What is wanted by hand; policies may want more. Left out: `min`. */
    desired: count.optional(),
    /** Further members that run and are healthy but get no requests until they are needed. */
    warm: z.int().min(0).max(groupLimits.maxWarm).default(0),
    /** When capacity is short, higher ones get theirs first. */
    priority: z.int().min(0).max(1000).default(0),
    /** What it has beyond `min` may be taken by groups of higher priority, as long as they need it. */
    lends: z.boolean().default(true),
    policies: z.array(policySchema).max(groupLimits.maxPolicies).default([]),
    behavior: behaviorSchema.default(defaults.behavior),
    update: updateSchema.default(defaults.update),
    /** A member whose health check fails for so long is replaced. */
    healAfterSeconds: seconds.default(30),
    /** A member that leaves may finish what it is doing for so long. */
    drainSeconds: z.int().min(0).max(3600).default(30),
    /** `hosts`: members go to different hosts as far as there are some. */
    spread: z.enum(["hosts", "none"]).default("hosts"),
  })
  .superRefine((spec, context) => {
    const refuse = (path: PropertyKey[], message: string) =>
      context.addIssue({ code: "custom", path, message });
    if (spec.min > spec.max) refuse(["min"], `is ${spec.min}, more than max (${spec.max})`);
    const { desired } = spec;
    if (desired !== undefined && (desired < spec.min || desired > spec.max)) {
      refuse(["desired"], `is ${desired}; it must lie between min (${spec.min}) and max (${spec.max})`);
    }
    const names = spec.policies.map((policy) => policy.name);
    const again = names.findIndex((name, index) => names.indexOf(name) < index);
    if (again >= 0) refuse(["policies", again, "name"], `is "${names[again]}" a second time`);
    for (const { path, message } of scalingProblems(spec)) refuse(path, message);
  });
export type GroupSpec = z.infer<typeof groupSpecSchema>;

/**
 * | state    | meaning                                                              |
 * |----------|----------------------------------------------------------------------|
 * | steady   | as many members as desired serve, all of the current version         |
 * | scaling  | members come or go                                                   |
 * | updating | a changed template reaches the members one after another             |
 * | stopped  | an update failed; the version before serves on; `message` says why   |
 * | short    | capacity is missing for what is desired; `message` says which        |
 * | deleting | the members are being taken away                                     |
 */
export const groupStates = ["steady", "scaling", "updating", "stopped", "short", "deleting"] as const;

const revisionSchema = z.string().max(16);

export const groupStatusSchema = z.strictObject({
  state: z.enum(groupStates),
  message: z.string().max(1024),
  observedGeneration: z.int().min(0),
  /** What the policies want, within min and max. */
  wanted: count,
  /** What it gets: `wanted` less what is lent. Members follow this number. */
  desired: count,
  /** Members that are to serve, and those of them that are healthy; warm ones that are ready. */
  members: z.int().min(0),
  ready: z.int().min(0),
  warm: z.int().min(0),
  /** Lent to groups of higher priority at the moment. */
  lent: z.int().min(0),
  /** Version (a digest of the template) that new members get, and its template. */
  revision: revisionSchema,
  /** The last version that all members had; a failed update goes back to it. */
  stable: z.strictObject({ revision: revisionSchema, template: memberTemplateSchema }).optional(),
  /** A version that failed: not tried again before the template changes. */
  failedRevision: revisionSchema.optional(),
  /** Why it gets less than is wanted; absent when it gets all of it. */
  shortage: z.string().max(1024).optional(),
  /** Instants of the last change of `desired`, for cool-downs, RFC 3339. */
  scaledOutAt: z.string().optional(),
  scaledInAt: z.string().optional(),
  /** When it last had to give members back for others, RFC 3339; some time passes before it gets some again. */
  yieldedAt: z.string().optional(),
});
export type GroupStatus = z.infer<typeof groupStatusSchema>;

/** Instances of one template, as many as demand needs. Members are instances that the group owns. */
export const groupKind = defineKind({
  name: "Group",
  plural: "groups",
  scope: "project",
  summary: "Instances of one template, as many as demand needs.",
  spec: groupSpecSchema,
  status: groupStatusSchema,
  initialStatus: (): GroupStatus => ({
    state: "scaling",
    message: "waiting for the first decision",
    observedGeneration: 0,
    wanted: 0,
    desired: 0,
    members: 0,
    ready: 0,
    warm: 0,
    lent: 0,
    revision: "",
  }),
  finalizers: ["group"],
  validateUpdate: (next, previous) =>
    immutable(next.template, previous.template, ["type"]).map((error) => ({
      ...error,
      path: error.path.replace("spec.", "spec.template."),
    })),
});
export type Group = ResourceOf<typeof groupKind>;
