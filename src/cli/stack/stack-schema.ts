/**
 * A stack file as a person writes it: what belongs together, under short names and with sizes such as 512MiB. It is
 * translated into resources of the API by `expand-stack.ts`; the kinds' own rules are checked there.
 */
import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import { parseMib, sizeRule } from "../../core/units.ts";
import { addressKind } from "../../kinds/address.ts";
import { certificateKind } from "../../kinds/certificate.ts";
import { applicationSchema, healthCheckSchema, metadataServiceSchema } from "../../kinds/instance.ts";
import { nameSchema } from "../../kinds/kind.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { networkKind } from "../../kinds/network.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { peeringKind } from "../../kinds/peering.ts";
import { publishedPortKind } from "../../kinds/published-port.ts";
import { routeTableKind } from "../../kinds/route-table.ts";
import { securityGroupKind } from "../../kinds/security-group.ts";
import { subnetKind } from "../../kinds/subnet.ts";

/** Limits of one stack. */
export const stackLimits = {
  fileBytes: 1024 * 1024,
  instances: 1000,
  count: 500,
  fileSourceBytes: 512 * 1024,
} as const;

const size = z.string({ error: `must be ${sizeRule}` }).transform((text, context) => {
  try {
    return parseMib(text);
  } catch (error) {
    context.addIssue({
      code: "custom",
      message: error instanceof StrataError ? error.message : String(error),
    });
    return z.NEVER;
  }
});

const path = z.string().min(1).max(4096);

const imageEntry = z.strictObject({
  description: z.string().optional(),
  /** A Debian suite. */
  debian: z.string().optional(),
  packages: z.array(z.string()).optional(),
  /** A name of the catalogue, such as debian/12. */
  catalogue: z.string().optional(),
  url: z.string().optional(),
  sha256: z.string().optional(),
  format: z.string().optional(),
  /** How virtual machines start from a disk: direct or firmware. */
  boot: z.string().optional(),
  /** A root tarball, disk image or appliance on this machine. */
  file: path.optional(),
  /** A directory with a Dockerfile: relative to the stack file, inside its directory. */
  build: path.optional(),
  /** The Dockerfile's path in that directory. */
  dockerfile: path.optional(),
  /** Values of its ARGs. */
  args: z.record(z.string(), z.string()).optional(),
  /** The stage that becomes the image. */
  target: z.string().optional(),
  /** A simplestreams server. */
  simplestreams: z.string().optional(),
  alias: z.string().optional(),
});

const keyPairEntry = z.strictObject({ file: path.optional(), publicKey: z.string().optional() });

const fileEntry = z.strictObject({
  /** Relative to the stack file, inside its directory. */
  source: path,
  /** In the instance. */
  path: z.string().regex(/^\/[^\0]{1,4095}$/, { error: "must be an absolute path" }),
  mode: z
    .string({ error: 'must be a string of octal digits, such as "0755" (with the quotes)' })
    .regex(/^0?[0-7]{3,4}$/, { error: 'must be octal digits, such as "0755"' })
    .optional(),
  owner: z
    .string()
    .regex(/^[a-z_][a-z0-9_-]*(:[a-z_][a-z0-9_-]*)?$/, { error: "must be USER or USER:GROUP" })
    .optional(),
});

const serviceEntry = z.strictObject({
  name: z.string(),
  port: z.number(),
  protocol: z.string().optional(),
  path: z.string().optional(),
});

const instanceEntry = z.strictObject({
  /** Left out: one instance of the bare name. Otherwise NAME-1 to NAME-count. */
  count: z.int().min(0).max(stackLimits.count).optional(),
  type: z.enum(["vm", "container"]),
  image: nameSchema,
  cpus: z.number().optional(),
  memory: size.optional(),
  disk: size.optional(),
  maxProcesses: z.number().optional(),
  network: z.string().optional(),
  subnet: z.string().optional(),
  ipAddress: z.string().optional(),
  ipv6Address: z.string().optional(),
  securityGroups: z.array(z.string()).optional(),
  metadata: metadataServiceSchema.optional(),
  application: applicationSchema.optional(),
  /** Text, or `{file: PATH}`. */
  userData: z
    .preprocess(
      (value) => (typeof value === "string" ? { text: value } : value),
      z.strictObject({ file: path.optional(), text: z.string().optional() }),
    )
    .optional(),
  /** Files for the instance, added to its user data. */
  files: z.array(fileEntry).max(64).optional(),
  keyPairs: z.array(z.string()).optional(),
  restartPolicy: z.string().optional(),
  protected: z.boolean().optional(),
  services: z.array(serviceEntry).optional(),
  healthCheck: healthCheckSchema.optional(),
  driver: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
});
export type InstanceEntry = z.infer<typeof instanceEntry>;

/** What members are made of; the rest is a group's spec as the API has it. */
const groupEntry = z.looseObject({
  template: instanceEntry.omit({
    count: true,
    ipAddress: true,
    ipv6Address: true,
    protected: true,
    labels: true,
  }),
  labels: z.record(z.string(), z.string()).optional(),
});
export type ImageEntry = z.infer<typeof imageEntry>;

/** Resources by name, written as the API has them; `name:` alone takes all defaults. */
function section<Spec>(spec: z.ZodType<Spec>) {
  return z
    .record(
      z.string(),
      z.preprocess((value) => value ?? {}, spec),
    )
    .default({});
}

export const stackSchema = z.strictObject({
  stack: nameSchema,
  /** Left out: a project of the stack's name, made and removed with it. */
  project: nameSchema.optional(),
  images: z.record(z.string(), imageEntry).default({}),
  keyPairs: z.record(z.string(), keyPairEntry).default({}),
  networks: section(networkKind.spec),
  peerings: section(peeringKind.spec),
  routeTables: section(routeTableKind.spec),
  subnets: section(subnetKind.spec),
  securityGroups: section(securityGroupKind.spec),
  instances: z.record(z.string(), instanceEntry).default({}),
  groups: z.record(z.string(), groupEntry).default({}),
  certificates: section(certificateKind.spec),
  loadBalancers: section(loadBalancerKind.spec),
  networkInterfaces: section(networkInterfaceKind.spec),
  addresses: section(addressKind.spec),
  publishedPorts: section(publishedPortKind.spec),
});
export type Stack = z.infer<typeof stackSchema>;
