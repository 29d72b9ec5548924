import { describe, expect, it } from "vitest";
import type { CardPolicy, NetworkPolicy } from "../networks.ts";
import type { FirewallNetwork } from "./firewall.ts";
import { forgetKnown, renderLearning } from "./forward-rules.ts";
import { parseHostTable, planHostTable } from "./host-table.ts";
import { emptyPolicy, ProfileNumbers, planNetworkRules } from "./network-rules.ts";
import { requireNetwork, requirePolicy } from "./policy-values.ts";
import { renderDifference, renderWhole } from "./ruleset.ts";

const web = "gweb000000000000";
const db = "gdb0000000000000";
const network: FirewallNetwork = {
  uid: "0123456789abcdef",
  netns: "/run/netns/x",
  uplink: { inner: "uplink", host: "sabcd0", innerAddress: "100.64.0.3", hostAddress: "100.64.0.2" },
  ranges: ["10.0.0.0/16", "fd00:1::/48"],
  subnets: [{ bridge: "br0", cidr: "10.0.0.0/24", gateway: "10.0.0.1" }],
  metadata: { port: 8775 },
  peerings: [{ name: "p0123", ranges: ["10.1.0.0/16"] }],
};
const card = (host: number, groups: readonly string[]): CardPolicy => ({
  uid: `card${String(host).padStart(12, "0")}`,
  subnet: "main",
  port: `g-${host}`,
  macAddress: `02:00:00:00:00:${host.toString(16).padStart(2, "0")}`,
  ipAddress: `10.0.0.${host}`,
  ipv6Address: `fd00:1::${host.toString(16)}`,
  groups,
  metadata: host === 5,
});
const policy: NetworkPolicy = {
  cards: [card(5, [web]), card(6, [db, web]), card(7, [])],
  groups: [
    {
      uid: web,
      ingress: [{ protocol: "tcp", ports: { first: 80, last: 80 }, peer: { cidr: "0.0.0.0/0" } }],
      egress: [{ protocol: "any", peer: { cidr: "0.0.0.0/0" } }],
    },
    {
      uid: db,
      ingress: [{ protocol: "tcp", ports: { first: 5432, last: 5432 }, peer: { group: web } }],
      egress: [],
    },
  ],
  publishedPorts: [{ protocol: "tcp", port: 8080, ipAddress: "10.0.0.5", targetPort: 80 }],
  addresses: [{ address: "192.0.2.7", ipAddress: "10.0.0.6" }],
};

describe("planNetworkRules", () => {
  it("writes these rules", () => {
    expect(renderWhole(planNetworkRules(network, policy, new ProfileNumbers()))).toMatchSnapshot();
  });

  it("costs elements, not rules, for one more card of a known profile", () => {
    const numbers = new ProfileNumbers();
    const before = planNetworkRules(network, policy, numbers);
    const after = planNetworkRules(
      network,
      { ...policy, cards: [...policy.cards, card(8, [web, db])] },
      numbers,
    );
    expect(renderDifference(before, after).split("\n")).toEqual([
      "add element inet strata profiles4 { 10.0.0.8 : 2 }",
      "add element inet strata profiles6 { fd00:1::8 : 2 }",
      'add element bridge strata cards { "g-8" . 02:00:00:00:00:08 }',
      'add element bridge strata cards4 { "g-8" . 02:00:00:00:00:08 . 10.0.0.8 }',
      'add element bridge strata cards6 { "g-8" . 02:00:00:00:00:08 . fd00:1::8 }',
      "",
    ]);
  });

  it("costs one element for one more rule", () => {
    const numbers = new ProfileNumbers();
    const before = planNetworkRules(network, policy, numbers);
    const groups = policy.groups.map((group) =>
      group.uid === web
        ? {
            ...group,
            ingress: [
              ...group.ingress,
              { protocol: "tcp" as const, ports: { first: 443, last: 443 }, peer: { cidr: "0.0.0.0/0" } },
            ],
          }
        : group,
    );
    expect(renderDifference(before, planNetworkRules(network, { ...policy, groups }, numbers))).toBe(
      `add element inet strata in-${web}-ports4-0 { 0.0.0.0/0 . tcp . 443 }\n`,
    );
  });

  it("knows connections only by a transaction of its own, and never by the rules that are planned", () => {
    const [inet] = planNetworkRules(network, policy, new ProfileNumbers()).tables;
    expect(inet?.chains.get("known")?.rules).toEqual([]);
    expect(inet?.chains.get("learning")?.rules).toEqual([]);
    const forget = ["flush chain inet strata known", "flush chain inet strata learning"];
    expect(forgetKnown.split("\n")).toEqual([...forget, ""]);
    expect(renderLearning(77).split("\n")).toEqual([
      ...forget,
      "add rule inet strata known ct mark 77 accept",
      "add rule inet strata learning ct mark set 77",
      "",
    ]);
  });

  it("has one base chain at the forward hook, where nothing accepts for good before both sides were asked", () => {
    const [inet] = planNetworkRules(network, policy, new ProfileNumbers()).tables;
    const chains = [...(inet?.chains ?? [])];
    const base = chains.filter(([, chain]) => chain.base?.includes("hook forward"));
    expect(base.map(([name]) => name)).toEqual(["forward"]);
    const accepting = chains.filter(
      ([, chain]) => chain.base === undefined && chain.rules.some((rule) => /\baccept$/.test(rule)),
    );
    // The metadata service's, which is never learned.
    expect(accepting.map(([name]) => name)).toEqual(["sending"]);
  });

  it("takes everything of a group away that no card has", () => {
    const numbers = new ProfileNumbers();
    planNetworkRules(network, policy, numbers);
    const text = renderWhole(planNetworkRules(network, { ...policy, cards: [card(7, [])] }, numbers));
    expect(text).not.toContain(web);
    expect(text).not.toContain("goto");
  });

  it("lets nothing in that is not what it claims to be", () => {
    const bad: Partial<NetworkPolicy>[] = [
      { cards: [{ ...card(5, []), port: 'x" } accept' }] },
      { cards: [{ ...card(5, []), macAddress: "02" }] },
      { cards: [{ ...card(5, []), ipAddress: "10.0.0.5 . 1" }] },
      { cards: [card(5, ["web; flush ruleset"])] },
      { cards: [card(5, []), card(5, [])] },
      { groups: [{ uid: web, ingress: [{ protocol: "tcp", peer: { cidr: "10.0.0.1/8" } }], egress: [] }] },
      {
        groups: [
          {
            uid: web,
            ingress: [{ protocol: "tcp", ports: { first: 1, last: 70_000 }, peer: { group: db } }],
            egress: [],
          },
        ],
      },
      { publishedPorts: [{ protocol: "tcp", port: 0, ipAddress: "10.0.0.5", targetPort: 1 }] },
      { addresses: [{ address: "192.0.2.7", ipAddress: "::1" }] },
    ];
    for (const part of bad) {
      expect(() => requirePolicy(network.uid, { ...emptyPolicy, ...part })).toThrow(/cannot have/);
    }
    expect(() => requirePolicy(network.uid, policy)).not.toThrow();
    expect(() => requireNetwork(network)).not.toThrow();
    expect(() => requireNetwork({ ...network, ranges: ["10.0.0.0"] })).toThrow(/range/);
  });
});

describe("the host's table", () => {
  const networks = new Map([
    ["0123456789abcdef", { ports: ["tcp . 8080"], addresses: ["192.0.2.7"], innerAddress: "100.64.0.3" }],
    ["0123456789abcdeg", { ports: ["udp . 53"], addresses: [], innerAddress: "100.64.0.5" }],
  ]);

  it("has these rules", () => {
    expect(renderWhole(planHostTable("demo", "sabcd", networks))).toMatchSnapshot();
  });

  it("is read back from the kernel's listing", () => {
    const listing = {
      nftables: [
        { metainfo: { version: "1.0.6" } },
        {
          map: {
            family: "inet",
            name: "ports",
            table: "demo-published",
            type: ["inet_proto", "inet_service"],
            map: "ipv4_addr",
            elem: [
              [{ elem: { val: { concat: ["tcp", 8080] }, comment: "0123456789abcdef" } }, "100.64.0.3"],
              [{ elem: { val: { concat: ["udp", 53] }, comment: "0123456789abcdeg" } }, "100.64.0.5"],
            ],
          },
        },
        {
          map: {
            family: "inet",
            name: "addresses",
            table: "demo-published",
            type: "ipv4_addr",
            map: "ipv4_addr",
            elem: [[{ elem: { val: "192.0.2.7", comment: "0123456789abcdef" } }, "100.64.0.3"]],
          },
        },
        { map: { name: "empty" } },
      ],
    };
    expect(parseHostTable(JSON.stringify(listing))).toEqual(networks);
  });
});
