import { describe, expect, it, test } from "vitest";
import { type ConnectivityFacts, connectivityFindings, parseTrace } from "./connectivity.ts";

const good: ConnectivityFacts = {
  ...{ gateway: "passes", hostToGuest: "passes", outside: "passes", blocker: "", server: "192.0.2.53" },
};

test.each<[string, Partial<ConnectivityFacts>, string, RegExp]>([
  ["all passes", {}, "ok", /reaches its gateway, the host and the outside/],
  ["the machine has no outside", { outside: undefined }, "ok", /reaches its gateway and the host/],
  [
    "somebody drops it",
    { outside: "no answer", blocker: "ip filter FORWARD: policy drop" },
    "problem",
    /outside/,
  ],
  ["the guest is cut off", { gateway: "no answer" }, "problem", /do not reach each other/],
])("%s", (_name, change, level, title) => {
  const [finding, ...others] = connectivityFindings({ ...good, ...change });
  expect(others).toEqual([]);
  expect(finding?.level).toBe(level);
  expect(finding?.title).toMatch(title);
  if (change.blocker) expect(finding?.facts["blocked by"]).toBe(change.blocker);
});

describe("parseTrace", () => {
  it("names the rule that dropped a packet", () => {
    const trace = `trace id 9ab1 ip strata-doctor-trace trace packet: iif "s1" oif "" ip saddr 192.0.2.2 ip daddr 192.0.2.53
trace id 9ab1 ip strata-doctor-trace trace rule ip daddr 192.0.2.53 tcp dport 53 meta nftrace set 1 (verdict continue)
trace id 9ab1 ip strata-doctor-trace trace verdict continue
trace id 9ab1 ip filter FORWARD rule iifname "s1" counter packets 1 bytes 60 drop (verdict drop)
`;
    expect(parseTrace(trace)).toBe('ip filter FORWARD: iifname "s1" counter packets 1 bytes 60 drop');
  });

  it("names a chain whose policy did", () => {
    expect(
      parseTrace(
        "trace id 9ab1 ip filter FORWARD verdict continue\ntrace id 9ab1 ip filter FORWARD policy drop\n",
      ),
    ).toBe("ip filter FORWARD: policy drop");
  });

  it("is silent about a packet that left", () => {
    expect(parseTrace("trace id 9ab1 inet x forward policy accept\n")).toBe("");
    expect(parseTrace("")).toBe("");
  });
});
