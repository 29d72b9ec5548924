import * as z from "zod";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

/** Published ports of one instance; an Address gives it all ports at once. */
export const maxPublishedPorts = 20;

const portSchema = z.int().min(1).max(65_535);

/** A port of the host that leads to an instance. The source stays the client's; security groups apply to it. */
export const publishedPortKind = defineKind({
  name: "PublishedPort",
  plural: "published-ports",
  scope: "project",
  summary: "A port of the host that leads to a port of an instance.",
  spec: z.strictObject({
    protocol: z.enum(["tcp", "udp"]).default("tcp"),
    /** On all of the host's own addresses. */
    port: portSchema,
    instance: nameSchema,
    /** Default: the same number. */
    targetPort: portSchema.optional(),
  }),
  status: z.strictObject({
    state: z.enum(["pending", "active", "failed"]),
    message: z.string().max(1024),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({ state: "pending" as const, message: "", observedGeneration: 0 }),
  validateUpdate: (next, previous) => immutable(next, previous, ["protocol", "port"]),
});
export type PublishedPort = ResourceOf<typeof publishedPortKind>;
