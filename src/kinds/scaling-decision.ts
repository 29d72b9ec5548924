import * as z from "zod";
import { defineKind, type ResourceOf } from "./kind.ts";

/** At most this many are kept; the oldest go first. */
export const decisionRetention = 2000;

/** Why a group has the size it has: written with every change of `status.desired`, for people. Nothing depends on it. */
export const scalingDecisionKind = defineKind({
  name: "ScalingDecision",
  plural: "scaling-decisions",
  scope: "project",
  summary: "Why the size of a group was changed.",
  spec: z.strictObject({
    group: z.strictObject({ name: z.string().max(63), uid: z.string().max(16) }),
    /** `status.desired` before and after. */
    from: z.int().min(0),
    to: z.int().min(0),
    /** What each policy wanted, `manual` for spec.desired or spec.min. */
    wants: z
      .array(
        z.strictObject({
          policy: z.string().max(63),
          /** Undefined: it had nothing to say, and `reason` tells why. */
          members: z.int().min(0).optional(),
          reason: z.string().max(300),
        }),
      )
      .max(20),
    /** The policy that won. */
    winner: z.string().max(63),
    /** What then changed the winner's number: limits, cool-downs, capacity, lending. */
    limits: z.array(z.string().max(300)).max(10),
  }),
  status: z.strictObject({}),
  initialStatus: () => ({}),
  internal: true,
});
export type ScalingDecision = ResourceOf<typeof scalingDecisionKind>;
