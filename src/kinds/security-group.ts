import * as z from "zod";
import { rangeSchema } from "./ip-schemas.ts";
import { defineKind, nameSchema, type ResourceOf } from "./kind.ts";

export const securityGroupLimits = {
  /** In one direction. */
  rules: 1_000,
  /** Of one network card. */
  groupsOfCard: 8,
} as const;

/** Ports of a rule, first and last. */
export interface PortRange {
  first: number;
  last: number;
}

/** "22" or "8000-8100"; undefined when it is neither, or reaches beyond 65535. */
export function parsePorts(text: string): PortRange | undefined {
  const match = /^(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  if (!match) return undefined;
  const first = Number(match[1]);
  const last = Number(match[2] ?? match[1]);
  return first >= 1 && last <= 65_535 && first <= last ? { first, last } : undefined;
}

export const securityRuleSchema = z
  .strictObject({
    protocol: z.enum(["any", "tcp", "udp", "icmp"]),
    /** One port or a range, `22` or `8000-8100`; left out: all. Only with tcp and udp. */
    ports: z
      .union([z.string(), z.number().transform(String)])
      .refine((text) => parsePorts(text) !== undefined, {
        error: "must be a port from 1 to 65535, or a range of them such as 8000-8100",
        params: { allowed: "1 to 65535" },
      })
      .optional(),
    /** The other side, by address. */
    cidr: rangeSchema.optional(),
    /** The other side, by its security group in this project. */
    group: nameSchema.optional(),
    description: z.string().max(255).default(""),
  })
  .refine((rule) => (rule.cidr === undefined) !== (rule.group === undefined), {
    error: "needs either cidr or group",
  })
  .refine((rule) => rule.ports === undefined || rule.protocol === "tcp" || rule.protocol === "udp", {
    error: "can only be given with the protocol tcp or udp",
    path: ["ports"],
  });
export type SecurityRule = z.infer<typeof securityRuleSchema>;

const rulesSchema = z.array(securityRuleSchema).max(securityGroupLimits.rules, {
  error: `has too many rules: at most ${securityGroupLimits.rules} in one direction; ranges of addresses and ports make them fewer`,
});

export const securityGroupKind = defineKind({
  name: "SecurityGroup",
  plural: "security-groups",
  scope: "project",
  summary: "Who may talk to the instances that have it, and to whom they may talk.",
  spec: z.strictObject({
    description: z.string().max(255).default(""),
    /** What may come in. Answers to what was allowed out always may. */
    ingress: rulesSchema.default([]),
    /** What may go out. Default: everything. */
    egress: rulesSchema.default([
      { protocol: "any", cidr: "0.0.0.0/0", description: "" },
      { protocol: "any", cidr: "::/0", description: "" },
    ]),
  }),
  status: z.strictObject({}),
  initialStatus: () => ({}),
});
export type SecurityGroup = ResourceOf<typeof securityGroupKind>;

/** The group that every project comes with; its members may talk to one another. */
export const defaultSecurityGroup = "default";
