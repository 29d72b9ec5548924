import { describe, expect, test } from "vitest";
import type { SeenBalancer, SeenServer, ServerRequest } from "../../host/balancers/balancers.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import { type BalancerWorld, drainLookMs, planBalancer } from "./plan.ts";

const spec = loadBalancerKind.spec.parse({ listeners: [{ port: 80 }], group: "web", targetPort: 80 });

function serverOf(uid: string, draining = false): ServerRequest {
  return { uid, address: "10.0.0.2", port: 80, source: "100.64.0.1", draining };
}

function seenServer(uid: string, change: Partial<SeenServer> = {}): SeenServer {
  return { name: `${uid}.1`, uid, state: "up", sessions: 0, connections: 0, ...change };
}

const calm: SeenBalancer = {
  structure: "s",
  servers: [],
  certificates: new Map(),
  challenges: new Map(),
};

function worldOf(
  servers: ServerRequest[],
  seen: Partial<SeenBalancer> | undefined,
  change: Partial<BalancerWorld> = {},
): BalancerWorld {
  const targets = servers.map(({ uid, address, port, draining }) => ({
    ...{ uid, name: uid, address, port, draining },
    network: "n",
  }));
  const balancer = {
    kind: "LoadBalancer",
    metadata: {
      name: "front",
      project: "p",
      uid: "b",
      revision: 1,
      generation: 3,
      labels: {},
      finalizers: ["agent"],
    },
    spec,
    status: { ...loadBalancerKind.initialStatus(), host: "here", targets },
  } as unknown as LoadBalancer;
  return {
    hostName: "here",
    balancer,
    request: { uid: "b", spec, certificates: new Map(), challenges: new Map(), servers },
    structure: "s",
    serverNames: new Map(servers.map((server) => [server, `${server.uid}.1`])),
    fingerprints: new Map(),
    seen: seen && { ...calm, ...seen },
    waiting: [],
    held: 0,
    ...change,
  };
}

const types = (world: BalancerWorld) => planBalancer(world).actions.map(({ type }) => type);

describe("a balancer", () => {
  test("is started, and reloaded when its structure is another", () => {
    expect(types(worldOf([], undefined))).toEqual(["ensure"]);
    expect(types(worldOf([], { structure: "old" }))).toEqual(["ensure"]);
    expect(types(worldOf([], {}))).toEqual([]);
  });

  test("of another host is left alone", () => {
    expect(types(worldOf([], undefined, { hostName: "there" }))).toEqual([]);
  });

  test("that is deleted is taken away before its finalizer", () => {
    const world = worldOf([], {});
    const metadata = { ...world.balancer?.metadata, deletedAt: "2026-11-28T00:00:00.000Z" };
    const balancer = { ...world.balancer, metadata } as LoadBalancer;
    expect(types({ ...world, balancer })).toEqual(["remove", "finalize"]);
  });
});

describe("servers", () => {
  test.each<[string, ServerRequest[], SeenServer[], string[]]>([
    ["new", [serverOf("a")], [], ["add-server"]],
    ["there", [serverOf("a")], [seenServer("a")], []],
    ["new and leaving at once", [serverOf("a", true)], [], []],
    ["leaving", [serverOf("a", true)], [seenServer("a")], ["drain-server"]],
    ["left, still named", [serverOf("a", true)], [seenServer("a", { state: "maintenance" })], []],
    ["come back", [serverOf("a")], [seenServer("a", { state: "maintenance" })], ["resume-server"]],
    ["named no more", [], [seenServer("a")], ["drain-server"]],
    ["named no more, busy", [], [seenServer("a", { state: "maintenance", sessions: 1 })], []],
    ["named no more, idle", [], [seenServer("a", { state: "maintenance" })], ["remove-server"]],
  ])("%s", (_name, wanted, seen, actions) => {
    expect(types(worldOf(wanted, { servers: seen }))).toEqual(actions);
  });

  test.each<[string, ServerRequest, SeenServer[], string]>([
    ["up", serverOf("a"), [seenServer("a")], "up"],
    ["down", serverOf("a"), [seenServer("a", { state: "down" })], "down"],
    ["not there yet", serverOf("a"), [], "down"],
    ["not drained yet", serverOf("a", true), [seenServer("a")], "draining"],
    ["busy", serverOf("a", true), [seenServer("a", { state: "maintenance", sessions: 2 })], "draining"],
    [
      "with a connection",
      serverOf("a", true),
      [seenServer("a", { state: "maintenance", connections: 1 })],
      "draining",
    ],
    ["idle", serverOf("a", true), [seenServer("a", { state: "maintenance" })], "idle"],
    ["never there", serverOf("a", true), [], "idle"],
  ])("are told: %s", (_name, wanted, seen, state) => {
    const plan = planBalancer(worldOf([wanted], { servers: seen }));
    expect(plan.status?.servers).toEqual({ a: { state } });
  });

  test("are looked at often only while something drains", () => {
    const look = (seen: SeenServer[], wanted: ServerRequest[]) =>
      planBalancer(worldOf(wanted, { servers: seen })).recheckAfterMs;
    expect(look([seenServer("a", { state: "maintenance", sessions: 1 })], [serverOf("a", true)])).toBe(
      drainLookMs,
    );
    expect(look([seenServer("a", { state: "maintenance" })], [serverOf("a", true)])).toBeGreaterThan(
      drainLookMs,
    );
    expect(look([seenServer("a")], [serverOf("a")])).toBeGreaterThan(drainLookMs);
  });
});

describe("contents", () => {
  test("of certificates are exchanged when the fingerprint is another", () => {
    const world = worldOf([], { certificates: new Map([["site", "A"]]) });
    const request = {
      ...world.request,
      certificates: new Map([["site", "pem"]]),
    } as BalancerWorld["request"];
    expect(types({ ...world, request, fingerprints: new Map([["site", "A"]]) })).toEqual([]);
    expect(types({ ...world, request, fingerprints: new Map([["site", "B"]]) })).toEqual(["set-certificate"]);
  });

  test("of challenges follow what is wanted", () => {
    const world = worldOf([], { challenges: new Map([["t", "1"]]) });
    expect(types(world)).toEqual(["set-challenges"]);
    const request = { ...world.request, challenges: new Map([["t", "1"]]) } as BalancerWorld["request"];
    expect(types({ ...world, request })).toEqual([]);
  });
});
