import * as z from "zod";
import { rangeSchema } from "./ip-schemas.ts";
import { defineKind, immutable, nameSchema, type ResourceOf } from "./kind.ts";

export const routeSchema = z.strictObject({
  /** Of several that match, the longest prefix wins. The network's own range is always local. */
  destination: rangeSchema,
  /** `internet`: out by the host, behind its address. `peering`: the peering `via`. `none`: refused. */
  target: z.enum(["internet", "peering", "none"]),
  /** Name of a peering of this network; only with the target `peering`. */
  via: nameSchema.optional(),
});
export type Route = z.infer<typeof routeSchema>;

export const routeTableKind = defineKind({
  name: "RouteTable",
  plural: "route-tables",
  scope: "project",
  summary: "Where packets of a subnet may go beyond its network.",
  spec: z.strictObject({
    network: nameSchema,
    routes: z
      .array(
        routeSchema.refine((route) => (route.target === "peering") === (route.via !== undefined), {
          error: "needs `via` with the target peering, and only there",
          path: ["via"],
        }),
      )
      .max(100)
      .refine((routes) => new Set(routes.map((one) => one.destination)).size === routes.length, {
        error: "two routes have the same destination",
      }),
  }),
  status: z.strictObject({}),
  initialStatus: () => ({}),
  validateUpdate: (next, previous) => immutable(next, previous, ["network"]),
});
export type RouteTable = ResourceOf<typeof routeTableKind>;
