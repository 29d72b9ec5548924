import * as z from "zod";
import { rangeSchema } from "./ip-schemas.ts";
import { defineKind, nameSchema, type ResourceOf } from "./kind.ts";

export const balancerLimits = {
  maxListeners: 16,
  /** Of one listener. HAProxy takes 64 words a line, and each is two of them. */
  maxCertificates: 25,
  maxTargets: 500,
  /** Requests held at once while no member is there. */
  maxHeld: 1000,
} as const;

const port = z.int().min(1).max(65_535);
const seconds = z.int().min(0).max(86_400);
const path = z.string().regex(/^\/(?!.*["'\\])[\x21-\x7e]{0,199}$/, {
  error: "must start with / and be of printable ASCII without spaces, quotes and backslashes",
});

/** Where clients arrive: a port of the host. */
const listenerSchema = z
  .strictObject({
    port,
    /** `http`: HTTP/1.1, HTTP/2 and WebSocket without TLS; `https`: the same with TLS; `tcp`, `tls`: any protocol. */
    protocol: z.enum(["http", "https", "tcp", "tls"]).default("http"),
    /** Names of certificates of the project; the first one is for clients that name no server (SNI). */
    certificates: z.array(nameSchema).max(balancerLimits.maxCertificates).default([]),
    /** Answers every request with a redirection to this https port instead of asking an instance. */
    redirectTo: port.optional(),
    /** Who may connect. */
    allowFrom: z.array(rangeSchema).min(1).max(100).default(["0.0.0.0/0", "::/0"]),
  })
  .superRefine(({ protocol, certificates, redirectTo }, context) => {
    const refuse = (path: string, message: string) =>
      context.addIssue({ code: "custom", path: [path], message });
    const encrypted = protocol === "https" || protocol === "tls";
    if (encrypted && certificates.length === 0)
      refuse("certificates", `must name one for protocol ${protocol}`);
    if (!encrypted && certificates.length > 0)
      refuse("certificates", `must be empty for protocol ${protocol}`);
    if (redirectTo !== undefined && protocol !== "http") refuse("redirectTo", "is for protocol http only");
  });

const healthCheckSchema = z.strictObject({
  /** `tcp`: it accepts connections; `http`: GET `path` is answered with a status of 2xx or 3xx. */
  type: z.enum(["tcp", "http"]).default("tcp"),
  path: path.default("/"),
  intervalMs: z.int().min(100).max(3_600_000).default(2_000),
  timeoutMs: z.int().min(50).max(600_000).default(2_000),
  /** Successes until it gets requests, failures until it gets none. */
  rise: z.int().min(1).max(100).default(1),
  fall: z.int().min(1).max(100).default(3),
});

const timeoutsSchema = z.strictObject({
  connectSeconds: z.int().min(1).max(600).default(5),
  /** Without a byte from the client, from the instance, and on a WebSocket or TCP connection. */
  clientSeconds: z.int().min(1).max(86_400).default(60),
  serverSeconds: z.int().min(1).max(86_400).default(60),
  tunnelSeconds: z.int().min(1).max(604_800).default(3600),
});

const defaults = { healthCheck: healthCheckSchema.parse({}), timeouts: timeoutsSchema.parse({}) };

export const loadBalancerSpecSchema = z
  .strictObject({
    listeners: z.array(listenerSchema).min(1).max(balancerLimits.maxListeners),
    /** What it leads to: the serving members of a group, or instances by name. One of the two. */
    group: nameSchema.optional(),
    instances: z.array(nameSchema).max(balancerLimits.maxTargets).optional(),
    targetPort: port,
    /** What instances speak behind an http or https listener: HTTP/1.1, or HTTP/2 without TLS. */
    targetProtocol: z.enum(["http1", "http2"]).default("http1"),
    algorithm: z.enum(["least-connections", "round-robin"]).default("least-connections"),
    /** A client stays with its instance: by a cookie (http and https only) or by its address. */
    sticky: z.enum(["none", "cookie", "source"]).default("none"),
    healthCheck: healthCheckSchema.default(defaults.healthCheck),
    /** A new instance gets its full share of requests only after so long. */
    slowStartSeconds: z.int().min(0).max(3600).default(0),
    timeouts: timeoutsSchema.default(defaults.timeouts),
    /** Connections of clients at once; further ones wait. */
    maxConnections: z.int().min(1).max(100_000).default(2_000),
    /** Requests that one instance gets at once; further ones wait (the metric `queue`). Left out: no bound. */
    maxPerInstance: z.int().min(1).max(100_000).optional(),
    /** How long a request waits for an instance when all are busy or none is there yet. */
    queueSeconds: seconds.default(30),
    accessLog: z.boolean().default(true),
  })
  .superRefine((spec, context) => {
    const refuse = (path: PropertyKey[], message: string) =>
      context.addIssue({ code: "custom", path, message });
    if ((spec.group === undefined) === (spec.instances === undefined)) {
      refuse(["group"], "or instances must be given, and not both");
    }
    const ports = spec.listeners.map((listener) => listener.port);
    const again = ports.findIndex((one, index) => ports.indexOf(one) < index);
    if (again >= 0) refuse(["listeners", again, "port"], `is ${ports[again]} a second time`);
    const modes = new Set(
      spec.listeners.map(({ protocol }) => (protocol.startsWith("http") ? "http" : "tcp")),
    );
    if (modes.size > 1) refuse(["listeners"], "must be all of http and https, or all of tcp and tls");
    if (spec.sticky === "cookie" && modes.has("tcp"))
      refuse(["sticky"], "is cookie, which needs http or https");
  });
export type LoadBalancerSpec = z.infer<typeof loadBalancerSpecSchema>;

/** Where it leads, decided by the control plane. */
export const targetSchema = z.strictObject({
  /** Uid and name of the instance. */
  uid: z.string(),
  name: z.string(),
  address: z.string(),
  port,
  /** Uid of the network in which the address is meant. */
  network: z.string(),
  /** True: it gets no new requests and finishes what it has. */
  draining: z.boolean(),
});
export type BalancerTarget = z.infer<typeof targetSchema>;

/** What the balancer makes of a target. `idle`: drained, nothing of it is under way any more. */
export const serverStates = ["up", "down", "draining", "idle"] as const;

export const loadBalancerStatusSchema = z.strictObject({
  /** `pending`: not set up yet; `active`: it serves; `failed`: `message` says why. */
  state: z.enum(["pending", "active", "failed"]),
  message: z.string().max(1024),
  observedGeneration: z.int().min(0),
  /** Written once. */
  host: z.string().optional(),
  targets: z.array(targetSchema).max(balancerLimits.maxTargets),
  /** By uid of the instance; reported by the host. */
  servers: z.record(z.string(), z.strictObject({ state: z.enum(serverStates) })),
  /** Requests held because no instance is there. */
  held: z.int().min(0),
  /** Tokens of the ACME challenges that it answers; reported by the host. */
  answers: z.array(z.string().max(256)).max(1000).optional(),
});
export type LoadBalancerStatus = z.infer<typeof loadBalancerStatusSchema>;

export const loadBalancerKind = defineKind({
  name: "LoadBalancer",
  plural: "load-balancers",
  scope: "project",
  summary: "Ports of the host whose requests are spread over the members of a group.",
  spec: loadBalancerSpecSchema,
  status: loadBalancerStatusSchema,
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for a host",
    observedGeneration: 0,
    targets: [],
    servers: {},
    held: 0,
  }),
  finalizers: ["agent"],
});
export type LoadBalancer = ResourceOf<typeof loadBalancerKind>;
