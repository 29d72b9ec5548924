import * as z from "zod";
import { defineKind, type ResourceOf } from "./kind.ts";

/** At most this many are kept; the oldest go first. */
export const eventRetention = 2000;

/** Something that happened to a resource, for people. Nothing depends on an event. */
export const eventKind = defineKind({
  name: "Event",
  plural: "events",
  scope: "project",
  summary: "Something that happened to a resource.",
  spec: z.strictObject({
    subject: z.strictObject({ kind: z.string().max(64), name: z.string().max(63), uid: z.string().max(16) }),
    severity: z.enum(["normal", "warning"]),
    /** One CamelCase word. */
    reason: z.string().max(64),
    message: z.string().max(1024),
  }),
  status: z.strictObject({}),
  initialStatus: () => ({}),
  internal: true,
});
export type Event = ResourceOf<typeof eventKind>;
