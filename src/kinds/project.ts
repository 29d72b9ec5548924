import * as z from "zod";
import { defineKind, type ResourceOf } from "./kind.ts";

/** What a project may have of each unless its quota says otherwise. */
export const defaultCounts = { groups: 200, loadBalancers: 50, certificates: 200, hostPorts: 200 };

const bound = z.int().min(0).optional();

export const projectSpecSchema = z.strictObject({
  description: z.string().max(200).default(""),
  quota: z
    .strictObject({
      /** Over all instances of the project; absent means no bound but the hosts' capacity. */
      instances: bound,
      cpus: bound,
      memoryMib: bound,
      diskMib: bound,
      /** Absent means `defaultCounts`. Ports are those that are published, and those of listeners of load balancers. */
      groups: bound,
      loadBalancers: bound,
      certificates: bound,
      hostPorts: bound,
    })
    .default({}),
});

export const projectKind = defineKind({
  name: "Project",
  plural: "projects",
  scope: "cluster",
  summary: "A tenant: a name space with its own instances, images, network, quota and tokens.",
  spec: projectSpecSchema,
  status: z.strictObject({ state: z.enum(["active", "deleting"]), message: z.string().max(1024) }),
  initialStatus: () => ({ state: "active" as const, message: "" }),
  finalizers: ["contents"],
});
export type Project = ResourceOf<typeof projectKind>;
