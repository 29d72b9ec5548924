import * as z from "zod";
import { privateRangeSchema } from "./ip-schemas.ts";
import { conditionSchema, defineKind, immutable, type ResourceOf } from "./kind.ts";

/** IPv6 asks for 1,280 on every link (RFC 8200, 5). */
export const mtuLimits = { min: 1280, max: 9216 } as const;

export const networkSpecSchema = z.strictObject({
  /** The range, such as 10.0.0.0/16; other networks may have the same. Left out, Strata takes a free one and keeps it. */
  cidr: privateRangeSchema(4, { widest: 8, narrowest: 28, example: "10.0.0.0/16" }).optional(),
  /** Unique local range (RFC 4193). Left out, a random one. */
  ipv6Cidr: privateRangeSchema(6, { widest: 48, narrowest: 48, example: "fd12:3456:789a::/48" }).optional(),
  /** `auto`: one subnet of the network's name has the whole range. `custom`: none but those that are created. */
  subnets: z.enum(["auto", "custom"]).default("auto"),
  /** False: no way to the outside but what route tables and addresses give. */
  internet: z.boolean().default(true),
  /**
   * True: the host's own routing table leads to the range, which then must not overlap another such network's. Default:
   * true for a range that Strata chose. Otherwise the host reaches guests by published ports and addresses.
   */
  hostRoute: z.boolean().optional(),
  /** In bytes. Default: that of the host's way to the outside. */
  mtu: z.int().min(mtuLimits.min).max(mtuLimits.max).optional(),
});

export const networkStatusSchema = z.strictObject({
  state: z.enum(["pending", "ready", "failed"]),
  message: z.string().max(1024),
  /** The ranges in force, from spec or allocated on creation; never change. */
  cidr: z.string().optional(),
  ipv6Cidr: z.string().optional(),
  hostRoute: z.boolean().default(false),
  /** DNS domain of the guests: `PROJECT.internal` for the network `default`, else `NETWORK.PROJECT.internal`. */
  domain: z.string().optional(),
  observedGeneration: z.int().min(0),
  /** Whoever on the host sends from this address reaches the guests, also where ranges overlap. By host. */
  hostAddresses: z.record(z.string(), z.string()).default({}),
  conditions: z.array(conditionSchema),
});

export const networkKind = defineKind({
  name: "Network",
  plural: "networks",
  scope: "project",
  summary: "A virtual network: a network namespace with its own subnets, firewall, DHCP and DNS.",
  spec: networkSpecSchema,
  status: networkStatusSchema,
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for its first instance",
    hostRoute: false,
    observedGeneration: 0,
    hostAddresses: {},
    conditions: [],
  }),
  finalizers: ["agent"],
  validateUpdate: (next, previous) =>
    immutable(next, previous, ["cidr", "ipv6Cidr", "subnets", "hostRoute", "mtu"]),
});
export type Network = ResourceOf<typeof networkKind>;
export type NetworkStatus = Network["status"];
