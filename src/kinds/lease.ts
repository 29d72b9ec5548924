import * as z from "zod";
import { defineKind, type ResourceOf } from "./kind.ts";

/** Heartbeats and leadership, so that the store needs no time-outs of its own. */
export const leaseKind = defineKind({
  name: "Lease",
  plural: "leases",
  scope: "cluster",
  summary: "A claim that lapses when it is not renewed: a host's heartbeat, a controller's leadership.",
  spec: z.strictObject({
    holder: z.string().max(200),
    durationMs: z.int().min(100).max(600_000),
    renewedAt: z.iso.datetime(),
  }),
  status: z.strictObject({}),
  initialStatus: () => ({}),
  internal: true,
});
export type Lease = ResourceOf<typeof leaseKind>;
