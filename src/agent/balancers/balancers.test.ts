import { afterEach, beforeEach, expect, test } from "vitest";
import { type AgentBench, agentBench } from "../../../sim/agent-bench.ts";
import { FakeBalancers } from "../../../sim/fake-balancers.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";

let balancers: FakeBalancers;
let bench: AgentBench;
const ref = { project: "default", name: "front" };

beforeEach(async () => {
  balancers = new FakeBalancers();
  bench = await agentBench({ balancers });
  await bench.createImage();
  for (const name of ["one", "two"]) await bench.createInstance(name);
  for (const name of ["one", "two"]) await bench.until(name, ({ status }) => status.state === "running");
});
afterEach(async () => {
  await bench.stop();
  balancers.close();
});

async function front(): Promise<LoadBalancer> {
  return await bench.services.resources.require(bench.me, loadBalancerKind, ref);
}

async function create(instances: string[]): Promise<LoadBalancer> {
  const spec = { listeners: [{ port: 80 }], instances, targetPort: 80 };
  return await bench.services.resources.create(bench.me, loadBalancerKind, { ...ref, spec });
}

const change = (spec: object) =>
  bench.services.resources.patch(bench.me, loadBalancerKind, ref, { spec: spec as never });

/** By the name of the instance, as the status tells. */
async function untilServers(states: Record<string, string>): Promise<void> {
  let seen = "";
  await bench
    .waitFor("servers", async () => {
      const { status } = await front();
      const named = status.targets.map(({ uid, name }) => [name, status.servers[uid]?.state]);
      seen = JSON.stringify(Object.fromEntries(named.sort()));
      return status.state === "active" && seen === JSON.stringify(states);
    })
    .catch((error: unknown) => {
      throw new Error(`${error}; they are ${seen}`);
    });
}

function behind(uid: string): string[] {
  return [...(balancers.running.get(uid)?.servers.values() ?? [])].map((server) => server.state);
}

test("a balancer leads to its instances, and follows them without a reload", async () => {
  const { metadata } = await create(["one", "two"]);
  await untilServers({ one: "up", two: "up" });
  await change({ instances: ["two"] });
  await bench.waitFor("one is gone", () => behind(metadata.uid).length === 1);
  await change({ instances: ["one", "two"] });
  await untilServers({ one: "up", two: "up" });
  expect(balancers.ensures).toBe(1);
  await change({ maxConnections: 10 });
  await bench.waitFor("a reload", () => balancers.ensures === 2);
  await untilServers({ one: "up", two: "up" });
});

test("what still has requests stays until it has none", async () => {
  const { metadata } = await create(["one", "two"]);
  await untilServers({ one: "up", two: "up" });
  const one = (await bench.get("one"))?.metadata.uid ?? "";
  balancers.setSessions(metadata.uid, one, 2);
  await change({ instances: ["two"] });
  await bench.waitFor("one gets no new ones", () => behind(metadata.uid).includes("maintenance"));
  await bench.clock.advance(5_000);
  expect(behind(metadata.uid)).toHaveLength(2);
  balancers.setSessions(metadata.uid, one, 0);
  await bench.waitFor("one is gone", () => behind(metadata.uid).length === 1);
});

test("an end of HAProxy or of the agent is healed", async () => {
  const { metadata } = await create(["one"]);
  await untilServers({ one: "up" });
  balancers.crash(metadata.uid);
  await bench.waitFor("it is back", () => behind(metadata.uid).length === 1);
  expect(balancers.ensures).toBe(2);
  await bench.stopAgent();
  await change({ instances: ["one", "two"] });
  bench.startAgent();
  await untilServers({ one: "up", two: "up" });
  expect(balancers.ensures).toBe(2);
});

test("one that is deleted leaves nothing", async () => {
  await create(["one"]);
  await untilServers({ one: "up" });
  await bench.services.resources.delete(bench.me, loadBalancerKind, ref);
  const gone = async () => !(await bench.services.resources.get(bench.me, loadBalancerKind, ref));
  await bench.waitFor("it is gone", gone);
  expect(balancers.running.size).toBe(0);
});
