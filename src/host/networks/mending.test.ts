import { describe, expect, it } from "vitest";
import { parseIpv4 } from "./ipv4.ts";
import { planMending, type SeenInside, type SeenNetwork } from "./mending.ts";
import { planNetwork } from "./network-plan.ts";

const plan = planNetwork(
  { namespace: "strata", runDir: "/run/strata" },
  { uid: "0123456789abcdef", cidr: "10.77.0.0/24", gateway: "10.77.0.1", domain: "demo.internal" },
  { hostAddress: "100.64.0.1", mtu: 1500 },
);
const gateway = parseIpv4("10.77.0.1") ?? 0;
const host = parseIpv4("100.64.0.1") ?? 0;

const inside: SeenInside = {
  links: ["lo", "uplink", "br0", "port1"],
  routes: [
    { device: "uplink", range: { base: 0, prefixLength: 0 }, gateway: host },
    { device: "br0", range: plan.range, gateway: 0 },
  ],
  addresses: new Set([gateway]),
  forwarding: true,
  rules: "the rules",
};
const service = { pid: 7, netns: 100, current: true };
const healthy: SeenNetwork = {
  netns: { state: "there", inode: 100, inside },
  uplink: "ready",
  hostRoutes: [{ device: plan.uplink, range: plan.range, gateway }],
  services: { dns: service, dhcp: { ...service, pid: 8 } },
  forgotten: false,
};

function within(change: Partial<SeenInside>): SeenNetwork {
  return { ...healthy, netns: { state: "there", inode: 100, inside: { ...inside, ...change } } };
}

describe("planMending", () => {
  it("leaves a healthy network alone", () => {
    expect(planMending(plan, healthy, "the rules")).toEqual({
      wrong: [],
      dropInnerUplink: false,
      restart: [],
    });
  });

  it("makes everything where nothing is", () => {
    const nothing: SeenNetwork = {
      netns: { state: "absent" },
      uplink: "absent",
      hostRoutes: [],
      services: {},
      forgotten: false,
    };
    expect(planMending(plan, nothing, undefined)).toEqual({
      wrong: ["no namespace", "no uplink", "no DNS process", "no DHCP process"],
      dropInnerUplink: false,
      hostLinks: { netns: "make", staleUplink: false, uplink: true },
      inside: { ports: [] },
      restart: ["dns", "dhcp"],
    });
  });

  it("gives a namespace in which its processes live its name back, and restarts nothing", () => {
    const mending = planMending(plan, { ...healthy, netns: { state: "absent" } }, "the rules");
    expect(mending.hostLinks).toEqual({ netns: { attach: 7 }, staleUplink: false, uplink: false });
    expect(mending.restart).toEqual([]);
  });

  it("replaces what leads into a namespace that is no more", () => {
    const seen: SeenNetwork = { ...healthy, netns: { state: "leftover" }, services: {} };
    expect(planMending(plan, seen, "the rules").hostLinks).toEqual({
      netns: "make",
      staleUplink: true,
      uplink: true,
    });
  });

  it("moves into a namespace that somebody made in place of ours", () => {
    const fresh = { ...inside, links: ["lo"], routes: [], addresses: new Set<number>(), rules: "" };
    const seen: SeenNetwork = { ...healthy, netns: { state: "there", inode: 101, inside: fresh } };
    expect(planMending(plan, seen, "the rules")).toMatchObject({
      hostLinks: { netns: "there", staleUplink: true, uplink: true },
      inside: { ports: [] },
      restart: ["dns", "dhcp"],
    });
  });

  it.each<[string, SeenNetwork]>([
    ["no uplink", { ...healthy, uplink: "absent" }],
    ["uplink not ready", { ...healthy, uplink: "broken" }],
    ["no route", { ...healthy, hostRoutes: [] }],
  ])("mends the host's side: %s", (fault, seen) => {
    const mending = planMending(plan, seen, "the rules");
    expect(mending.wrong).toEqual([fault]);
    expect(mending.hostLinks?.netns).toBe("there");
    expect(mending.restart).toEqual([]);
  });

  it("takes an inner uplink without its other end out of the way", () => {
    expect(planMending(plan, { ...healthy, uplink: "absent" }, "the rules").dropInnerUplink).toBe(true);
    const both = { ...within({ links: ["lo", "br0"] }), uplink: "absent" as const };
    expect(planMending(plan, both, "the rules").dropInnerUplink).toBe(false);
  });

  it.each<[string, Partial<SeenInside>]>([
    ["bridge not ready", { routes: inside.routes.slice(0, 1) }],
    ["no default route", { routes: inside.routes.slice(1) }],
    ["no gateway address", { addresses: new Set<number>() }],
    ["no forwarding", { forwarding: false }],
    ["rules changed", { rules: "" }],
  ])("mends the inside: %s", (fault, change) => {
    const mending = planMending(plan, within(change), "the rules");
    expect(mending).toEqual({ wrong: [fault], dropInnerUplink: false, inside: { ports: [] }, restart: [] });
  });

  it("verifies rules that this process did not make", () => {
    expect(planMending(plan, healthy, undefined).wrong).toEqual(["rules not verified"]);
  });

  it("gives ports back to a new bridge, and binds DHCP to it", () => {
    const links = ["lo", "uplink", "port1", "odd name;"];
    const mending = planMending(plan, within({ links, routes: inside.routes.slice(0, 1) }), "the rules");
    expect(mending.inside).toEqual({ ports: ["port1"] });
    expect(mending.restart).toEqual(["dhcp"]);
  });

  it("restarts a process that is gone, outdated, elsewhere, or remembers too much", () => {
    const restart = (change: Partial<SeenNetwork>) =>
      planMending(plan, { ...healthy, ...change }, "the rules").restart;
    const dhcp = service;
    expect(restart({ services: { dhcp } })).toEqual(["dns"]);
    expect(restart({ services: { dhcp, dns: { ...service, current: false } } })).toEqual(["dns"]);
    expect(restart({ services: { dhcp, dns: { ...service, netns: 99 } } })).toEqual(["dns"]);
    expect(restart({ forgotten: true })).toEqual(["dhcp"]);
  });
});
