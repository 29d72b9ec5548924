import * as z from "zod";
import { addressSchema } from "./ip-schemas.ts";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

/** A floating address: what comes to it goes to its instance, and what that sends to the outside comes from it. */
export const addressKind = defineKind({
  name: "Address",
  plural: "addresses",
  scope: "project",
  summary: "An address of the host's pool, published for an instance and moved between instances.",
  spec: z.strictObject({
    /** One of the pool; left out, a free one. */
    ipAddress: addressSchema(4).optional(),
    /** Whose it is now; left out: nobody's. */
    instance: nameSchema.optional(),
  }),
  status: z.strictObject({
    /** For life. */
    ipAddress: z.string().optional(),
    /** `bound`: in force on the instance's host. */
    state: z.enum(["free", "binding", "bound", "failed"]),
    message: z.string().max(1024),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({ state: "free" as const, message: "", observedGeneration: 0 }),
  validateUpdate: (next, previous) => immutable(next, previous, ["ipAddress"]),
});
export type Address = ResourceOf<typeof addressKind>;
