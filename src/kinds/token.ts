import * as z from "zod";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

export const roles = ["admin", "member", "viewer"] as const;
/** viewer reads; member also writes in its project; admin does everything there, or everywhere without a project. */
export type Role = (typeof roles)[number];

export const tokenSpecSchema = z.strictObject({
  role: z.enum(roles),
  /** The only project it opens; without one, all of them (admins only). */
  project: nameSchema.optional(),
  /** SHA-256 of the secret (256 random bits, so no slow hash is needed). The secret is shown once and never stored. */
  secretHash: z.string().regex(/^[0-9a-f]{64}$/),
  expiresAt: z.iso.datetime().optional(),
});

export const tokenKind = defineKind({
  name: "Token",
  plural: "tokens",
  scope: "cluster",
  summary: "A secret that opens the HTTPS API for one role, in one project or in all.",
  spec: tokenSpecSchema,
  status: z.strictObject({}),
  initialStatus: () => ({}),
  internal: true,
  validateUpdate: (next, previous) => immutable(next, previous, ["role", "project", "secretHash"]),
});
export type Token = ResourceOf<typeof tokenKind>;
