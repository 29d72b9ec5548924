import * as z from "zod";
import { privateRangeSchema } from "./ip-schemas.ts";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

export const subnetSpecSchema = z.strictObject({
  network: nameSchema,
  /** Part of the network's range that no other subnet has. */
  cidr: privateRangeSchema(4, { widest: 8, narrowest: 29, example: "10.0.1.0/24" }),
  /** A /64 of the network's IPv6 range. Left out, a free one. */
  ipv6Cidr: privateRangeSchema(6, { widest: 64, narrowest: 64, example: "fd12:3456:789a:1::/64" }).optional(),
  /** Left out: the network's own routes, which are its subnets, the outside (where it has one) and its peerings. */
  routeTable: nameSchema.optional(),
});

export const subnetStatusSchema = z.strictObject({
  /** The ranges in force; never change. */
  ipv6Cidr: z.string().optional(),
  /** First addresses of the ranges: default route, DHCP and DNS server of the guests. */
  gateway: z.string().optional(),
  ipv6Gateway: z.string().optional(),
  /** Which one of its network's subnets it is, from 0; its bridge is `br` and this. */
  index: z.int().min(0).optional(),
});

export const subnetKind = defineKind({
  name: "Subnet",
  plural: "subnets",
  scope: "project",
  summary: "A part of a network's range that instances get their addresses from.",
  spec: subnetSpecSchema,
  status: subnetStatusSchema,
  initialStatus: (): z.infer<typeof subnetStatusSchema> => ({}),
  validateUpdate: (next, previous) => immutable(next, previous, ["network", "cidr", "ipv6Cidr"]),
});
export type Subnet = ResourceOf<typeof subnetKind>;
export type SubnetStatus = Subnet["status"];

/** Subnets of one network. */
export const maxSubnets = 64;
