import { z } from "zod";
import { conditionSchema, defineKind, immutable, type ResourceOf } from "./kind.ts";

export const networkSpecSchema = z.strictObject({
  /** The range, 10.x.y.0/24 form; left out, Strata takes a free one from the host's pool and keeps it. */
  cidr: z
    .string()
    .regex(/^\d{1,3}(\.\d{1,3}){3}\/(1[6-9]|2[0-8])$/, {
      error: "must be an IPv4 range from /16 to /28, such as 10.20.0.0/24",
    })
    .optional(),
});

export const networkStatusSchema = z.strictObject({
  state: z.enum(["pending", "ready", "failed"]),
  message: z.string().max(1024),
  /** The range in force, from spec or allocated on creation; never changes. */
  cidr: z.string().optional(),
  /** First address of the range: default route, DHCP and DNS server of the guests. */
  gateway: z.string().optional(),
  /** DNS domain of the guests: `PROJECT.internal`. */
  domain: z.string().optional(),
  observedGeneration: z.int().min(0),
  conditions: z.array(conditionSchema),
});

export const networkKind = defineKind({
  name: "Network",
  plural: "networks",
  scope: "project",
  summary: "A virtual network: a network namespace with its own bridge, firewall, DHCP and DNS.",
  spec: networkSpecSchema,
  status: networkStatusSchema,
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for its first instance",
    observedGeneration: 0,
    conditions: [],
  }),
  finalizers: ["agent"],
  validateUpdate: (next, previous) => immutable(next, previous, ["cidr"]),
});
export type Network = ResourceOf<typeof networkKind>;
export type NetworkStatus = Network["status"];
