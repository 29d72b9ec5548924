/**
 * Firewalls of others on the host. A packet passes only when every chain at the forward hook lets it, so beside a
 * firewall that drops what it does not know (Docker's, ufw's, firewalld's) our own acceptance is worth nothing: rules
 * have to be put into theirs. They have the simplest form, which iptables can read and list as well.
 */
import * as z from "zod";
import { parseJson } from "./nft-json.ts";

export interface ForwardChain {
  family: string;
  table: string;
  name: string;
  policy: string;
}

export interface ForeignRule {
  handle: number;
  /** Drops or refuses whatever reaches it. */
  final: boolean;
  /** `iifname X accept` or `oifname X accept`, and nothing else. */
  accepts: { direction: "iifname" | "oifname"; interfaces: string } | undefined;
}

const chainSchema = z.object({
  chain: z.object({
    family: z.string(),
    table: z.string(),
    name: z.string(),
    type: z.string().optional(),
    hook: z.string().optional(),
    policy: z.string().optional(),
  }),
});

const ruleSchema = z.object({
  rule: z.object({
    family: z.string(),
    table: z.string(),
    chain: z.string(),
    handle: z.number(),
    expr: z.array(z.record(z.string(), z.unknown())),
  }),
});

const acceptSchema = z.tuple([
  z.object({
    match: z.object({
      op: z.literal("=="),
      left: z.object({ meta: z.object({ key: z.enum(["iifname", "oifname"]) }) }),
      right: z.string(),
    }),
  }),
  z.object({ accept: z.null() }),
]);

/** A verdict of nftables, or one of iptables' targets in compatible form. */
const refusalSchema = z.union([
  z.object({ drop: z.unknown() }).refine((statement) => "drop" in statement),
  z.object({ reject: z.unknown() }).refine((statement) => "reject" in statement),
  z.object({ xt: z.object({ type: z.literal("target"), name: z.enum(["REJECT", "DROP"]) }) }),
]);

/** Names that can be written back into a command of nft as they are. */
const plainName = /^[A-Za-z_][A-Za-z0-9_.-]*$/;

/** Chains at the forward hook that see forwarded packets, except those of `ownTable`. From `nft -j list chains`. */
export function findForwardChains(listing: string, ownTable: string): ForwardChain[] {
  return parseJson(listing)
    .map((entry) => chainSchema.safeParse(entry).data?.chain)
    .filter((chain) => chain !== undefined)
    .filter(
      ({ family, table, name, type, hook }) =>
        hook === "forward" &&
        type === "filter" &&
        (family === "ip" || family === "ip6" || family === "inet") &&
        !(family === "inet" && table === ownTable) &&
        plainName.test(table) &&
        plainName.test(name),
    )
    .map(({ family, table, name, policy }) => ({ family, table, name, policy: policy ?? "accept" }));
}

/** Whether `nft -j list chains` shows a table. */
export function hasTable(listing: string, family: string, table: string): boolean {
  return parseJson(listing).some((entry) => {
    const chain = chainSchema.safeParse(entry).data?.chain;
    return chain?.family === family && chain.table === table;
  });
}

/** The rules of one chain, in order. From `nft -j list chain …`. */
export function parseRules(listing: string, chain: ForwardChain): ForeignRule[] {
  return parseJson(listing)
    .map((entry) => ruleSchema.safeParse(entry).data?.rule)
    .filter((rule) => rule !== undefined)
    .filter((rule) => rule.family === chain.family && rule.table === chain.table && rule.chain === chain.name)
    .map(({ handle, expr }) => {
      const bare = expr.filter((statement) => !("counter" in statement));
      const accept = acceptSchema.safeParse(bare).data;
      return {
        handle,
        final: bare.length === 1 && refusalSchema.safeParse(bare[0]).success,
        accepts: accept && {
          direction: accept[0].match.left.meta.key,
          interfaces: accept[0].match.right,
        },
      };
    });
}

/** Commands that let our uplinks (`interfaces`, such as `sabcd*`) pass this chain; "" when they do already. */
export function renderAcceptance(
  chain: ForwardChain,
  rules: readonly ForeignRule[],
  interfaces: string,
): string {
  if (chain.policy !== "drop" && !rules.some((rule) => rule.final)) return "";
  return (["oifname", "iifname"] as const)
    .filter(
      (direction) =>
        !rules.some(({ accepts }) => accepts?.direction === direction && accepts.interfaces === interfaces),
    )
    .map(
      (direction) =>
        `insert rule ${chain.family} ${chain.table} ${chain.name} ${direction} "${interfaces}" accept\n`,
    )
    .join("");
}

/** Commands that take our rules out of this chain; "" when it has none. */
export function renderWithdrawal(
  chain: ForwardChain,
  rules: readonly ForeignRule[],
  interfaces: string,
): string {
  return rules
    .filter(({ accepts }) => accepts?.interfaces === interfaces)
    .map(({ handle }) => `delete rule ${chain.family} ${chain.table} ${chain.name} handle ${handle}\n`)
    .join("");
}
