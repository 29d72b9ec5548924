import { describe, expect, test } from "vitest";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import { planBalancer } from "./plan.ts";
import { concernsTargets, targetsOf } from "./targets.ts";

type Phase = "warm" | "serving" | "draining";

function instanceOf(name: string, change: { phase?: Phase; ready?: boolean; deletedAt?: string } = {}) {
  const { phase, ready = true, deletedAt } = change;
  return {
    metadata: { name, uid: name, project: "p", ...(deletedAt ? { deletedAt } : {}) },
    status: {
      ...instanceKind.initialStatus(),
      nic: { network: "default", subnet: "default", macAddress: "", ipAddress: "10.0.0.2" },
      conditions: [{ type: "Ready", status: ready ? "true" : "false", reason: "", message: "", since: "" }],
      ...(phase ? { member: { revision: "1", phase, since: "" } } : {}),
    },
  } as unknown as Instance;
}

function balancerOf(spec: object, listed: string[] = []): LoadBalancer {
  const target = { address: "10.0.0.2", port: 80, network: "n", draining: false };
  return {
    metadata: { name: "front", uid: "b", project: "p", generation: 1 },
    spec: loadBalancerKind.spec.parse({ listeners: [{ port: 80 }], targetPort: 80, ...spec }),
    status: {
      ...loadBalancerKind.initialStatus(),
      host: "alpha",
      targets: listed.map((uid) => ({ uid, name: uid, ...target })),
    },
  } as unknown as LoadBalancer;
}

const group = { group: "webs" };
const named = { instances: ["a"] };
const deletedAt = "2026-11-28T00:00:00.000Z";

describe("targets", () => {
  test.each<[string, object, string[], Instance, boolean | undefined]>([
    ["a member that serves", group, [], instanceOf("a", { phase: "serving" }), false],
    [
      "a member that is not ready",
      group,
      ["a"],
      instanceOf("a", { phase: "serving", ready: false }),
      undefined,
    ],
    ["a warm member", group, [], instanceOf("a", { phase: "warm" }), undefined],
    ["a member that leaves", group, ["a"], instanceOf("a", { phase: "draining" }), true],
    ["one that leaves and fails", group, ["a"], instanceOf("a", { phase: "draining", ready: false }), true],
    ["one that leaves and never served", group, [], instanceOf("a", { phase: "draining" }), undefined],
    ["one that is deleted", group, ["a"], instanceOf("a", { phase: "serving", deletedAt }), true],
    ["a member without a phase yet", group, [], instanceOf("a"), undefined],
    ["an instance by name", named, [], instanceOf("a"), false],
    ["an instance by name that is not ready", named, [], instanceOf("a", { ready: false }), undefined],
  ])("%s", (_name, spec, listed, instance, draining) => {
    const targets = targetsOf(balancerOf(spec, listed), [{ instance, network: "n" }]);
    expect(targets.map((target) => target.draining)).toEqual(draining === undefined ? [] : [draining]);
  });

  test("change with what they are made of, and with nothing else", () => {
    const before = instanceOf("a", { phase: "serving" });
    const crashed = { ...before, status: { ...before.status, crashes: 7 } };
    expect(concernsTargets(crashed, before)).toBe(false);
    for (const change of [{ phase: "draining" }, { ready: false }, { deletedAt }] as const) {
      expect(concernsTargets(instanceOf("a", { phase: "serving", ...change }), before)).toBe(true);
    }
  });
});

describe("a decision", () => {
  const world = { hosts: [], balancers: new Map() };

  test("is made only when something is another", () => {
    const candidates = [{ instance: instanceOf("a", { phase: "serving" }), network: "n" }];
    const actions = (balancer: LoadBalancer) =>
      planBalancer({ ...world, balancer, candidates }).actions.length;
    expect(actions(balancerOf(group, ["a"]))).toBe(0);
    expect(actions(balancerOf(group, []))).toBe(1);
    expect(actions(balancerOf(group, ["b"]))).toBe(1);
  });

  test("without a host says why, once", () => {
    const fresh = balancerOf(group);
    const { host: _none, ...status } = fresh.status;
    const [decision] = planBalancer({ ...world, candidates: [], balancer: { ...fresh, status } }).actions;
    expect(decision?.host).toBeUndefined();
    expect(decision?.message).toContain("no host");
    const told = { ...status, message: decision?.message ?? "" };
    expect(planBalancer({ ...world, candidates: [], balancer: { ...fresh, status: told } }).actions).toEqual(
      [],
    );
  });
});
