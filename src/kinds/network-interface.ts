import * as z from "zod";
import { addressSchema } from "./ip-schemas.ts";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";
import { defaultSecurityGroup, securityGroupLimits } from "./security-group.ts";

/** Network cards of one instance, its own first one included. */
export const maxCards = 8;

/**
 * A network card beyond an instance's first. It keeps its addresses while it goes from one instance to another; it is
 * attached and detached by `instance`, while the instance runs.
 */
export const networkInterfaceKind = defineKind({
  name: "NetworkInterface",
  plural: "network-interfaces",
  scope: "project",
  summary: "A further network card, attached to an instance or kept for one.",
  spec: z.strictObject({
    network: nameSchema,
    /** Default: the network's only subnet. */
    subnet: nameSchema.optional(),
    /** Fixed addresses; left out, free ones. */
    ipAddress: addressSchema(4).optional(),
    ipv6Address: addressSchema(6).optional(),
    securityGroups: z.array(nameSchema).max(securityGroupLimits.groupsOfCard).default([defaultSecurityGroup]),
    /** The instance it is plugged into. */
    instance: nameSchema.optional(),
  }),
  status: z.strictObject({
    state: z.enum(["available", "attaching", "attached", "detaching", "failed"]),
    message: z.string().max(1024),
    /** For life. */
    subnet: z.string().optional(),
    macAddress: z.string().optional(),
    ipAddress: z.string().optional(),
    ipv6Address: z.string().optional(),
    /** Of the instance it is plugged into or has yet to leave. */
    host: z.string().optional(),
    instance: z.string().optional(),
    /** Which one of that instance's cards it is, while it is plugged in: 1 for `eth1`. The instance's own is 0. */
    device: z.int().min(1).optional(),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({ state: "available" as const, message: "", observedGeneration: 0 }),
  validateUpdate: (next, previous) =>
    immutable(next, previous, ["network", "subnet", "ipAddress", "ipv6Address"]),
});
export type NetworkInterface = ResourceOf<typeof networkInterfaceKind>;
