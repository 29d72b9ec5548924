import { z } from "zod";
import { defineKind, type ResourceOf } from "./kind.ts";

export const projectSpecSchema = z.strictObject({
  description: z.string().max(200).default(""),
  /** Upper bounds over all instances of the project; absent means no bound but the hosts' capacity. */
  quota: z
    .strictObject({
      instances: z.int().min(0).optional(),
      cpus: z.int().min(0).optional(),
      memoryMib: z.int().min(0).optional(),
      diskMib: z.int().min(0).optional(),
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
