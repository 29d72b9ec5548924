import * as z from "zod";
import type { Json } from "../core/json.ts";
import { addressSchema } from "./ip-schemas.ts";
import {
  conditionSchema,
  defineKind,
  immutable,
  nameSchema,
  progressSchema,
  type ResourceOf,
} from "./kind.ts";
import { defaultSecurityGroup, securityGroupLimits } from "./security-group.ts";
import { diskLimits } from "./volume.ts";

/** Limits a spec may name. The hosts' capacity is checked on admission. */
export const instanceLimits = {
  maxCpus: 256,
  minMemoryMib: 16,
  maxMemoryMib: 16 * 1024 * 1024,
  userDataBytes: 64 * 1024,
  minProcesses: 16,
  maxProcesses: 4_194_304,
} as const;

/** A port that the instance serves on; it is Ready when every one accepts connections. */
export const serviceSchema = z.strictObject({
  name: nameSchema,
  port: z.int().min(1).max(65535),
  protocol: z.enum(["tcp", "http", "https"]).default("tcp"),
  /** For the URL only. */
  path: z
    .string()
    .regex(/^\/[^\s]{0,199}$/, { error: "must start with /" })
    .default("/"),
});

/**
 * How the host finds out whether a running instance works, beyond its services' ports. While it fails, the instance is
 * not Ready, and a group replaces it in the end. Left out: the services' ports are all that is asked.
 */
export const healthCheckSchema = z
  .strictObject({
    /** `tcp`: a port accepts connections; `http`: GET is answered with 2xx or 3xx; `command`: exits with 0 inside. */
    type: z.enum(["tcp", "http", "command"]),
    port: z.int().min(1).max(65_535).optional(),
    path: z
      .string()
      .regex(/^\/[\x21-\x7e]{0,199}$/, {
        error: "must start with / and be of printable ASCII without spaces (percent-encode the rest)",
      })
      .default("/"),
    /** Program and arguments; no shell. */
    command: z.array(z.string().max(4096)).min(1).max(256).optional(),
    intervalMs: z.int().min(100).max(3_600_000).default(5_000),
    timeoutMs: z.int().min(50).max(600_000).default(2_000),
    /** Successes in a row until it is healthy, failures in a row until it is not. */
    rise: z.int().min(1).max(100).default(1),
    fall: z.int().min(1).max(100).default(3),
  })
  .superRefine((check, context) => {
    const needs = check.type === "command" ? "command" : "port";
    const without = check.type === "command" ? "port" : "command";
    const refuse = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    if (check[needs] === undefined) refuse(needs, `must be given for type ${check.type}`);
    if (check[without] !== undefined) refuse(without, `is not for type ${check.type}`);
  });
export type HealthCheck = z.infer<typeof healthCheckSchema>;

/** The service at 169.254.169.254. */
export const metadataServiceSchema = z.strictObject({
  enabled: z.boolean().default(true),
  /** `optional`: also requests without a session token (IMDSv1) are answered. */
  tokens: z.enum(["required", "optional"]).default("required"),
});

/** Of an application container: what runs instead of the image's init. */
export const applicationSchema = z.strictObject({
  /** Program and arguments. */
  command: z.array(z.string().max(4096)).min(1).max(256),
  environment: z
    .record(
      z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: "must be the name of a variable" }),
      z.string(),
    )
    .default({}),
  workingDirectory: z.string().startsWith("/").max(1024).default("/"),
  /** `NAME`, `UID` or `UID:GID` inside. */
  user: z
    .string()
    .regex(/^[a-z0-9_][a-z0-9_.-]{0,31}(:[a-z0-9_][a-z0-9_.-]{0,31})?$/)
    .optional(),
  /** Directories that survive a restart and go with the instance. */
  volumes: z
    .array(z.strictObject({ name: nameSchema, path: z.string().regex(/^\/[^\0]{1,1023}$/) }))
    .max(16)
    .default([]),
  /** The instance is Ready once it succeeds, and is restarted by its policy when it fails for good. */
  healthCheck: z
    .strictObject({
      command: z.array(z.string().max(4096)).min(1).max(256),
      intervalSeconds: z.int().min(1).max(3600).default(10),
      timeoutSeconds: z.int().min(1).max(600).default(5),
      retries: z.int().min(1).max(100).default(3),
    })
    .optional(),
});

export const instanceSpecSchema = z.strictObject({
  type: z.enum(["vm", "container"]),
  /** Name of an image in the same project. */
  image: nameSchema,
  /**
   * A snapshot of an instance of the same type: its root and its volumes are what is on the disks at first. The machine
   * is a new one all the same, with a name, addresses, machine-id and host keys of its own. Or a backup of an instance, in
   * the same way: its root becomes the image that `image` names, which is made with the instance unless it is there.
   */
  source: z
    .strictObject({ snapshot: nameSchema.optional(), backup: nameSchema.optional() })
    .refine(({ snapshot, backup }) => (snapshot === undefined) !== (backup === undefined), {
      error: "needs snapshot or backup, and not both",
    })
    .optional(),
  cpus: z.int().min(1).max(instanceLimits.maxCpus).default(1),
  memoryMib: z.int().min(instanceLimits.minMemoryMib).max(instanceLimits.maxMemoryMib).default(512),
  diskMib: z.int().min(diskLimits.minMib).max(diskLimits.maxMib).default(8192),
  /** Processes and threads a container may have; a VM's kernel sets its own bound. */
  maxProcesses: z.int().min(instanceLimits.minProcesses).max(instanceLimits.maxProcesses).default(4096),
  network: nameSchema.default("default"),
  /** Default: the network's only subnet. */
  subnet: nameSchema.optional(),
  /** Fixed addresses of its own network card; left out, free ones. */
  ipAddress: addressSchema(4).optional(),
  ipv6Address: addressSchema(6).optional(),
  /** Of its own network card: who may talk to it, and to whom it may talk. */
  securityGroups: z.array(nameSchema).max(securityGroupLimits.groupsOfCard).default([defaultSecurityGroup]),
  metadata: metadataServiceSchema.default({ enabled: true, tokens: "required" }),
  application: applicationSchema.optional(),
  /** For cloud-init, as it is: `#cloud-config`, a script, or MIME. */
  userData: z
    .string()
    .refine((text) => Buffer.byteLength(text) <= instanceLimits.userDataBytes, {
      error: `must be at most ${instanceLimits.userDataBytes} bytes`,
    })
    .optional(),
  /** Names of key pairs in the same project, for the default user and root. */
  keyPairs: z.array(nameSchema).max(16).default([]),
  /** What happens when the guest ends by itself. A stop asked for by `power` is never undone. */
  restartPolicy: z.enum(["always", "on-failure", "never"]).default("always"),
  /** True: deletion is refused until this is set to false. */
  protected: z.boolean().default(false),
  power: z.enum(["running", "stopped"]).default("running"),
  /** Restarts asked for so far; one more than before restarts the guest once. */
  restarts: z.int().min(0).default(0),
  /**
   * Times that the root was asked to be made anew so far; one more than before does so once. All that was written to the
   * root is lost; volumes, addresses, cards and identity stay. `image` may change together with it.
   */
  rebuilds: z.int().min(0).default(0),
  services: z.array(serviceSchema).max(32).default([]),
  healthCheck: healthCheckSchema.optional(),
  /** A driver by name; left out, the host's preferred one for the type. */
  driver: nameSchema.optional(),
});
export type InstanceSpec = z.infer<typeof instanceSpecSchema>;

/**
 * | state    | meaning                                                          | leads to                    |
 * |----------|------------------------------------------------------------------|-----------------------------|
 * | pending  | waits for an image, a network or a host; `message` says for which | starting, failed, deleting  |
 * | starting | its disk, network and guest are being made                        | running, stopped, failed, deleting |
 * | running  | the guest runs (Ready tells whether it answers)                   | stopping, backoff, deleting |
 * | stopping | was asked to shut down; killed when the grace period ends         | stopped                     |
 * | stopped  | does not run, as wanted                                           | starting, deleting          |
 * | backoff  | ended by itself; starts again at `nextStartAt`                    | starting                    |
 * | failed   | cannot go on without a change; `message` says which               | starting, deleting          |
 * | deleting | guest, disk and addresses are being taken away                    | gone                        |
 */
export const instanceStates = [
  "pending",
  "starting",
  "running",
  "stopping",
  "stopped",
  "backoff",
  "failed",
  "deleting",
] as const;
export type InstanceState = (typeof instanceStates)[number];

const jsonSchema = z.json().transform((value) => value as Json);

export const instanceStatusSchema = z.strictObject({
  state: z.enum(instanceStates),
  reason: z.string().max(64),
  message: z.string().max(1024),
  /** Written once by placement. */
  host: z.string().optional(),
  /** The instance's for life; allocated in the commit that creates it. */
  nic: z
    .strictObject({
      network: z.string(),
      subnet: z.string(),
      macAddress: z.string(),
      ipAddress: z.string(),
      ipv6Address: z.string().optional(),
    })
    .optional(),
  driver: z.string().optional(),
  /** The driver's own; recorded before the guest starts. */
  handle: jsonSchema.optional(),
  /** What the running guest really has: spec's may take effect with the next start only. */
  size: z.strictObject({ cpus: z.int().min(1), memoryMib: z.int().min(1) }).optional(),
  /** The content the root disk was made from. */
  imageDigest: z.string().optional(),
  /** Where the disks of spec.source.snapshot are: the snapshot, and in it the root volume. Known from its creation. */
  source: z.strictObject({ snapshotUid: z.string(), rootUid: z.string(), host: z.string() }).optional(),
  observedGeneration: z.int().min(0),
  /** The `spec.restarts` that the running guest was started with. */
  observedRestarts: z.int().min(0),
  /** The `spec.rebuilds` that the root was made for; left out: 0. */
  observedRebuilds: z.int().min(0).optional(),
  /** Starts after the guest ended by itself, since creation. */
  crashes: z.int().min(0),
  /** Consecutive ones, for the back-off; 0 again after ten minutes of running. */
  recentCrashes: z.int().min(0),
  startedAt: z.string().optional(),
  nextStartAt: z.string().optional(),
  progress: progressSchema.optional(),
  /**
   * `Ready`: every service of spec accepts connections, and the health check succeeds (reason `Healthy`). `RestartNeeded`, while it is so:
   * a changed size takes effect with the next start only.
   */
  conditions: z.array(conditionSchema),
  /** Of a member of a group; written by the group's controller. */
  member: z
    .strictObject({
      /** Version of the group's template it was made from. */
      revision: z.string().max(16),
      /** `warm`: runs, gets no requests yet; `serving`: gets requests once Ready; `draining`: gets no new ones. */
      phase: z.enum(["warm", "serving", "draining"]),
      /** When the phase began, RFC 3339. */
      since: z.string(),
      /** When it was first seen healthy, RFC 3339; absent while it never was. */
      readyAt: z.string().optional(),
    })
    .optional(),
});
export type InstanceStatus = z.infer<typeof instanceStatusSchema>;

export const instanceKind = defineKind({
  name: "Instance",
  plural: "instances",
  scope: "project",
  summary: "A virtual server: a virtual machine or a system container.",
  spec: instanceSpecSchema,
  status: instanceStatusSchema,
  initialStatus: () => ({
    state: "pending" as const,
    reason: "Created",
    message: "waiting for a host",
    observedGeneration: 0,
    observedRestarts: 0,
    crashes: 0,
    recentCrashes: 0,
    conditions: [],
  }),
  finalizers: ["agent"],
  validateUpdate(next, previous) {
    const errors = immutable(next, previous, [
      "type",
      "source",
      "diskMib",
      "maxProcesses",
      "network",
      "subnet",
      "ipAddress",
      "ipv6Address",
      "application",
      "userData",
      "keyPairs",
      "driver",
    ]);
    if (next.image !== previous.image && next.rebuilds <= previous.rebuilds) {
      errors.push({
        path: "spec.image",
        message: "can change only when the root is made anew: with one more in spec.rebuilds",
        allowed: JSON.stringify(previous.image),
      });
    }
    if (next.rebuilds < previous.rebuilds) {
      errors.push({ path: "spec.rebuilds", message: "can only grow", allowed: `>= ${previous.rebuilds}` });
    }
    if (next.restarts < previous.restarts) {
      errors.push({ path: "spec.restarts", message: "can only grow", allowed: `>= ${previous.restarts}` });
    }
    return errors;
  },
});
export type Instance = ResourceOf<typeof instanceKind>;

/** Is its root to be made anew, and was not yet? */
export function wantsRebuild({ spec, status }: Pick<Instance, "spec" | "status">): boolean {
  // Instances of earlier versions have neither.
  return (spec.rebuilds ?? 0) > (status.observedRebuilds ?? 0);
}
