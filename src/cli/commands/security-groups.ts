/** Security groups and their rules. */
import type { Client } from "../../client/client.ts";
import { hasCode, StrataError } from "../../core/errors.ts";
import { parseIp } from "../../core/ip-range.ts";
import { type Json, type JsonObject, jsonEquals } from "../../core/json.ts";
import { formatRule } from "../../kinds/reachability/rules.ts";
import {
  type SecurityGroup,
  type SecurityRule,
  securityGroupKind,
  securityRuleSchema,
} from "../../kinds/security-group.ts";
import type { Call, CommandSpec, Session } from "../command.ts";
import type { Output } from "../output.ts";
import { resolve } from "../resolve.ts";
import { asJson, resourceTree } from "../show.ts";
import { securityGroupForm } from "../show-networks.ts";
import { createResource } from "./creation.ts";
import { deleteResources, listOptions, listResources } from "./listings.ts";

const group = "Networks";
const groupArgument = { name: "<group>", summary: "its name", completes: "security-groups" } as const;
const ruleOptions = [
  {
    flags: "--tcp <ports>",
    summary: "a TCP port or range, such as 80 or 8000-8100, or `all`",
    repeatable: true,
  },
  { flags: "--udp <ports>", summary: "the same of UDP", repeatable: true },
  { flags: "--icmp", summary: "ICMP and ICMPv6, such as ping" },
  { flags: "--any", summary: "every protocol and port" },
  { flags: "--from <who>", summary: "an address, a range, group:NAME or `anywhere`", repeatable: true },
  { flags: "--to <who>", summary: "the same, for what may go out", repeatable: true },
];

export const securityGroupCommands: readonly CommandSpec[] = [
  {
    path: "security-group create",
    group,
    summary: "Create a security group: nothing may come in, everything may go out",
    arguments: [{ name: "<name>", summary: "its name" }],
    options: [
      { flags: "--description <text>", summary: "for people" },
      { flags: "--no-egress", summary: "nothing may go out either" },
    ],
    examples: ["strata security-group create web --description 'web servers'"],
    run: (call) =>
      createResource(call, securityGroupKind, securityGroupForm, {
        description: call.options.text("description"),
        egress: call.options.off("egress") ? [] : undefined,
      }),
  },
  {
    path: "security-group list",
    group,
    summary: "List security groups",
    options: listOptions,
    examples: ["strata security-group list"],
    run: (call) => listResources(call, "security-groups"),
  },
  {
    path: "security-group show",
    group,
    summary: "Show the rules of a security group",
    arguments: [groupArgument],
    examples: ["strata security-group show web"],
    run: showGroup,
  },
  {
    path: "security-group allow",
    group,
    summary: "Add rules; in force at once, nothing is interrupted",
    arguments: [groupArgument],
    options: [...ruleOptions, { flags: "--description <text>", summary: "why, for people" }],
    examples: [
      "strata security-group allow web --tcp 80 --tcp 443 --from anywhere",
      "strata security-group allow db --tcp 5432 --from group:web",
      "strata security-group allow db --udp 53 --to 10.0.0.2",
    ],
    run: (call) => changeRules(call, "allow"),
  },
  {
    path: "security-group revoke",
    group,
    summary: "Take rules back; connections that only they allowed end",
    arguments: [groupArgument],
    options: ruleOptions,
    examples: ["strata security-group revoke web --tcp 80 --from anywhere"],
    run: (call) => changeRules(call, "revoke"),
  },
  {
    path: "security-group delete",
    group,
    summary: "Delete security groups that nothing names any more",
    arguments: [{ ...groupArgument, name: "<group...>" }],
    examples: ["strata security-group delete web"],
    run: (call) => deleteResources(call, "security-groups", call.args),
  },
];

async function showGroup(call: Call): Promise<Output> {
  const { session, args } = call;
  const client = await session.client();
  const found = await resolve(client, securityGroupKind, session.project, args[0] ?? "", session.signal);
  return groupOutput(found);
}

function groupOutput(found: SecurityGroup): Output {
  const identity = resourceTree(found).filter(({ label }) => label !== "spec" && label !== "status");
  const rules = (direction: "ingress" | "egress") =>
    found.spec[direction].map((rule, index) => ({
      label: `${index + 1}. ${formatRule(rule, direction)}`,
      ...(rule.description ? { value: rule.description } : {}),
    }));
  const branch = (label: string, direction: "ingress" | "egress") => {
    const children = rules(direction);
    return children.length > 0 ? { label, children } : { label, value: "nothing" };
  };
  return {
    type: "tree",
    branches: [
      ...identity,
      ...(found.spec.description ? [{ label: "description", value: found.spec.description }] : []),
      branch("may come in", "ingress"),
      branch("may go out", "egress"),
    ],
    json: asJson(found),
  };
}

type Direction = "ingress" | "egress";

async function changeRules(call: Call, verb: "allow" | "revoke"): Promise<Output> {
  const { session } = call;
  const wanted = wantedRules(call);
  const client = await session.client();
  const { metadata } = await resolve(
    client,
    securityGroupKind,
    session.project,
    call.args[0] ?? "",
    session.signal,
  );
  const changed = await rewrite(client, session, metadata.name, (found) =>
    verb === "allow" ? withRules(found, wanted) : withoutRules(found, wanted),
  );
  return groupOutput(changed);
}

const maxAttempts = 10;

/** Reads, changes and writes the group unless somebody else wrote meanwhile. */
async function rewrite(
  client: Client,
  { project, signal }: Session,
  name: string,
  change: (found: SecurityGroup) => JsonObject,
): Promise<SecurityGroup> {
  for (let attempt = 1; ; attempt++) {
    const found = await client.require(securityGroupKind, { project, name }, { signal });
    const spec = change(found);
    if (Object.keys(spec).length === 0) return found;
    try {
      const options = { signal, ifRevision: found.metadata.revision };
      return await client.patch(securityGroupKind, { project, name }, { spec }, options);
    } catch (error) {
      if (!hasCode(error, "Conflict") || attempt === maxAttempts) throw error;
    }
  }
}

interface WantedRule {
  direction: Direction;
  rule: SecurityRule;
}

function withRules(found: SecurityGroup, wanted: readonly WantedRule[]): JsonObject {
  const spec: JsonObject = {};
  for (const direction of ["ingress", "egress"] as const) {
    const present = found.spec[direction];
    const more = wanted.filter(
      (one) => one.direction === direction && !present.some((rule) => isSame(rule, one.rule)),
    );
    if (more.length > 0) spec[direction] = [...present, ...more.map(({ rule }) => rule)] as unknown as Json;
  }
  return spec;
}

function withoutRules(found: SecurityGroup, wanted: readonly WantedRule[]): JsonObject {
  const missing = wanted.find(
    ({ direction, rule }) => !found.spec[direction].some((other) => isSame(other, rule)),
  );
  if (missing) {
    const { direction, rule } = missing;
    const present = found.spec[direction].map((other) => formatRule(other, direction));
    throw new StrataError(
      "NotFound",
      `security group ${found.metadata.name} has no rule "${formatRule(rule, direction)}"; it has ${present.slice(0, 10).join("; ") || "none in this direction"}`,
    );
  }
  const spec: JsonObject = {};
  for (const direction of ["ingress", "egress"] as const) {
    const gone = wanted.filter((one) => one.direction === direction);
    if (gone.length === 0) continue;
    const kept = found.spec[direction].filter((rule) => !gone.some((one) => isSame(one.rule, rule)));
    spec[direction] = kept as unknown as Json;
  }
  return spec;
}

/** The same traffic and other side; the description does not matter. */
function isSame(a: SecurityRule, b: SecurityRule): boolean {
  const core = ({ description: _, ...rule }: SecurityRule) => rule as unknown as Json;
  return jsonEquals(core(a), core(b));
}

/** One rule for each traffic and each other side. */
function wantedRules({ options }: Call): WantedRule[] {
  const traffic = [
    ...options.texts("tcp").map((ports) => ({ protocol: "tcp" as const, ...portsOf(ports) })),
    ...options.texts("udp").map((ports) => ({ protocol: "udp" as const, ...portsOf(ports) })),
    ...(options.flag("icmp") ? [{ protocol: "icmp" as const }] : []),
    ...(options.flag("any") ? [{ protocol: "any" as const }] : []),
  ];
  if (traffic.length === 0) {
    throw new StrataError("Invalid", "say which traffic: --tcp PORTS, --udp PORTS, --icmp or --any");
  }
  const sides = [
    ...options.texts("from").flatMap((text) => sidesOf("from", text, "ingress")),
    ...options.texts("to").flatMap((text) => sidesOf("to", text, "egress")),
  ];
  if (sides.length === 0) {
    throw new StrataError(
      "Invalid",
      "say who: --from RANGE, --from group:NAME, --from anywhere, or --to for what goes out",
    );
  }
  const description = options.text("description") ?? "";
  return traffic.flatMap((one) =>
    sides.map(({ direction, peer }) => ({ direction, rule: checked({ ...one, ...peer, description }) })),
  );
}

function portsOf(text: string): { ports?: string } {
  return text === "all" ? {} : { ports: text };
}

function sidesOf(
  option: string,
  text: string,
  direction: Direction,
): { direction: Direction; peer: { cidr: string } | { group: string } }[] {
  if (text === "anywhere") return ["0.0.0.0/0", "::/0"].map((cidr) => ({ direction, peer: { cidr } }));
  if (text.startsWith("group:")) return [{ direction, peer: { group: text.slice("group:".length) } }];
  const address = parseIp(text);
  if (address) return [{ direction, peer: { cidr: `${text}/${address.family === 4 ? 32 : 128}` } }];
  if (text.includes("/")) return [{ direction, peer: { cidr: text } }];
  throw new StrataError(
    "Invalid",
    `--${option} must be an address, a range such as 10.0.0.0/8, group:NAME or anywhere, not "${text}"`,
  );
}

function checked(rule: JsonObject): SecurityRule {
  const parsed = securityRuleSchema.safeParse(rule);
  if (parsed.success) return parsed.data;
  const fields = parsed.error.issues.map((issue) => ({
    path: issue.path.join(".") || "rule",
    message: issue.message,
  }));
  throw new StrataError("Invalid", "this is no rule; nothing was changed", { fields });
}
