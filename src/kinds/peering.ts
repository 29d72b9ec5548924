import * as z from "zod";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

/**
 * Joins two networks whose ranges do not overlap. Not transitive: a peer's peers stay out of reach. Within a project
 * one peering suffices; between projects each side creates one, and it is active when both are there.
 */
export const peeringKind = defineKind({
  name: "Peering",
  plural: "peerings",
  scope: "project",
  summary: "Joins two networks, so that their instances reach one another.",
  spec: z.strictObject({
    network: nameSchema,
    peerNetwork: nameSchema,
    /** Default: this project. */
    peerProject: nameSchema.optional(),
  }),
  status: z.strictObject({
    /** `waiting`: for the other project's side. */
    state: z.enum(["waiting", "active"]),
    message: z.string().max(1024),
  }),
  initialStatus: () => ({ state: "waiting" as const, message: "" }),
  validateUpdate: (next, previous) => immutable(next, previous, ["network", "peerNetwork", "peerProject"]),
});
export type Peering = ResourceOf<typeof peeringKind>;
