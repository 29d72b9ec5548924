import * as z from "zod";
import { conditionSchema, defineKind, type ResourceOf } from "./kind.ts";

/** What one driver can do on one host: proven there, never assumed. */
export const fingerprintSchema = z.strictObject({
  available: z.boolean(),
  /** True until the first proof has come in: nobody knows yet whether it is available. */
  probing: z.boolean().optional(),
  /** Why not available, and what would help. Empty when available. */
  message: z.string().max(1024),
  version: z.string().max(200),
  types: z.array(z.enum(["vm", "container"])),
  /** Optional abilities the driver has; a verb that is missing here is answered Unsupported. */
  abilities: z.array(
    z.enum([
      "exec",
      "exec-tty",
      "console",
      "cards",
      "snapshots",
      "memory",
      "resize",
      "volumes",
      "drift",
      "migration",
      "clone",
    ]),
  ),
  /** Facts for people and doctor, such as `accelerator: tcg`. */
  facts: z.record(z.string(), z.string()),
});
export type Fingerprint = z.infer<typeof fingerprintSchema>;

export const hostSpecSchema = z.strictObject({
  /** True: nothing new is placed here; what runs stays. */
  cordoned: z.boolean().default(false),
  /** How many virtual CPUs may be promised per real one. Memory is never promised twice. */
  cpuOvercommit: z.number().min(1).max(1000).default(8),
});

export const hostStatusSchema = z.strictObject({
  state: z.enum(["ready", "not-ready"]),
  message: z.string().max(1024),
  capacity: z.strictObject({
    cpus: z.int().min(0),
    memoryMib: z.int().min(0),
    diskMib: z.int().min(0),
  }),
  /** Capacity less what the host keeps for itself. */
  allocatable: z.strictObject({
    cpus: z.int().min(0),
    memoryMib: z.int().min(0),
    diskMib: z.int().min(0),
  }),
  drivers: z.record(z.string(), fingerprintSchema),
  /** Operating system, kernel, architecture and the like, for people. */
  facts: z.record(z.string(), z.string()),
  conditions: z.array(conditionSchema),
});

export const hostKind = defineKind({
  name: "Host",
  plural: "hosts",
  scope: "cluster",
  summary: "A machine that runs guests, registered by its agent.",
  spec: hostSpecSchema,
  status: hostStatusSchema,
  initialStatus: () => ({
    state: "not-ready" as const,
    message: "the agent has not reported yet",
    capacity: { cpus: 0, memoryMib: 0, diskMib: 0 },
    allocatable: { cpus: 0, memoryMib: 0, diskMib: 0 },
    drivers: {},
    facts: {},
    conditions: [],
  }),
});
export type Host = ResourceOf<typeof hostKind>;
export type HostStatus = Host["status"];
