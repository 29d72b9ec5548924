import { describe, expect, it } from "vitest";
import {
  findForwardChains,
  hasTable,
  parseRules,
  renderAcceptance,
  renderWithdrawal,
} from "./forward-chains.ts";

const metainfo = { metainfo: { version: "1.0.6", release_name: "Lester Gooch #5", json_schema_version: 1 } };
const listing = (...entries: unknown[]) => `${JSON.stringify({ nftables: [metainfo, ...entries] })}\n`;
const base = (family: string, table: string, name: string, hook: string, policy: string) => ({
  chain: { family, table, name, handle: 1, type: "filter", hook, prio: 0, policy },
});
const docker = { family: "ip", table: "filter", name: "FORWARD", policy: "drop" };
const rule = (handle: number, ...expr: unknown[]) => ({
  rule: { family: "ip", table: "filter", chain: "FORWARD", handle, expr },
});
const counter = { counter: { packets: 0, bytes: 0 } };
const match = (key: string, right: unknown) => ({ match: { op: "==", left: { meta: { key } }, right } });
const accept = { accept: null };

describe("findForwardChains", () => {
  it("finds other firewalls' chains that see forwarded packets of either family", () => {
    const text = listing(
      base("ip", "filter", "INPUT", "input", "accept"),
      base("ip", "filter", "FORWARD", "forward", "drop"),
      { chain: { family: "ip", table: "filter", name: "DOCKER-USER", handle: 2 } },
      base("ip6", "filter", "FORWARD", "forward", "drop"),
      base("bridge", "filter", "FORWARD", "forward", "drop"),
      base("inet", "firewalld", "filter_FORWARD", "forward", "accept"),
      base("inet", "strata-networks", "forward", "forward", "accept"),
      base("ip", "x y", "forward", "forward", "drop"),
      { chain: { ...base("ip", "nat", "PREROUTING", "forward", "accept").chain, type: "nat" } },
    );
    expect(findForwardChains(text, "strata-networks")).toEqual([
      docker,
      { ...docker, family: "ip6" },
      { family: "inet", table: "firewalld", name: "filter_FORWARD", policy: "accept" },
    ]);
    expect(hasTable(text, "inet", "strata-networks")).toBe(true);
    expect(hasTable(text, "inet", "other-networks")).toBe(false);
    expect(findForwardChains("", "strata-networks")).toEqual([]);
  });
});

describe("acceptance", () => {
  const both =
    'insert rule ip filter FORWARD oifname "sabcd*" accept\ninsert rule ip filter FORWARD iifname "sabcd*" accept\n';

  it("is put before a policy that drops", () => {
    const rules = parseRules(listing(docker, rule(3, counter, { jump: { target: "DOCKER-USER" } })), docker);
    expect(renderAcceptance(docker, rules, "sabcd*")).toBe(both);
  });

  it("is put before a final rule that drops or rejects, of nft or of iptables", () => {
    const open = { ...docker, policy: "accept" };
    for (const verdict of [
      { drop: null },
      { reject: { type: "icmpx", expr: "admin-prohibited" } },
      { xt: { type: "target", name: "REJECT" } },
    ]) {
      expect(renderAcceptance(open, parseRules(listing(rule(4, counter, verdict)), open), "sabcd*")).toBe(
        both,
      );
    }
  });

  it("is not put where only some packets are dropped", () => {
    const open = { ...docker, policy: "accept" };
    const some = parseRules(
      listing(
        rule(4, match("iifname", "eth1"), { drop: null }),
        rule(5, { xt: { type: "target", name: "LOG" } }),
      ),
      open,
    );
    expect(renderAcceptance(open, some, "sabcd*")).toBe("");
  });

  it("is completed and never doubled", () => {
    const half = parseRules(listing(rule(5, match("iifname", "sabcd*"), accept)), docker);
    expect(renderAcceptance(docker, half, "sabcd*")).toBe(
      'insert rule ip filter FORWARD oifname "sabcd*" accept\n',
    );
    const whole = parseRules(
      listing(
        rule(5, match("iifname", "sabcd*"), counter, accept),
        rule(6, match("oifname", "sabcd*"), accept),
      ),
      docker,
    );
    expect(renderAcceptance(docker, whole, "sabcd*")).toBe("");
  });

  it("is withdrawn by handle, and only ours", () => {
    const rules = parseRules(
      listing(
        rule(5, match("iifname", "sabcd*"), accept),
        rule(6, match("oifname", "sabcd*"), accept),
        rule(7, match("iifname", "sother*"), accept),
        rule(8, match("iifname", "sabcd*"), match("oifname", "eth0"), accept),
        rule(9, match("iifname", { set: ["sabcd*"] }), accept),
        { rule: { ...rule(10, match("iifname", "sabcd*"), accept).rule, chain: "INPUT" } },
      ),
      docker,
    );
    expect(renderWithdrawal(docker, rules, "sabcd*")).toBe(
      "delete rule ip filter FORWARD handle 5\ndelete rule ip filter FORWARD handle 6\n",
    );
  });
});
