import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type AgentBench, agentBench } from "../../sim/agent-bench.ts";
import type { NetworkPolicy } from "../host/networks/networks.ts";
import { addressKind } from "../kinds/address.ts";
import { imageKind } from "../kinds/image.ts";
import type { Instance } from "../kinds/instance.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { networkKind } from "../kinds/network.ts";
import { type NetworkInterface, networkInterfaceKind } from "../kinds/network-interface.ts";
import { peeringKind } from "../kinds/peering.ts";
import { projectKind } from "../kinds/project.ts";
import { publishedPortKind } from "../kinds/published-port.ts";
import { routeTableKind } from "../kinds/route-table.ts";
import { securityGroupKind } from "../kinds/security-group.ts";
import { subnetKind } from "../kinds/subnet.ts";

let bench: AgentBench;
let policies: NetworkPolicy[];

beforeEach(async () => {
  bench = await agentBench();
  policies = [];
  bench.host.onPolicy = (_network, policy) => policies.push(policy);
  await bench.createImage();
});
afterEach(() => bench.stop());

const project = "default";
const isRunning = (instance: Instance) => instance.status.state === "running";
const guestOf = (instance: Instance) => bench.host.world.guests.get(instance.metadata.uid);
const create = <S, T>(kind: Kind<S, T>, name: string, spec: object) =>
  bench.services.resources.create(bench.me, kind, { project, name, spec: spec as never }) as Promise<
    Resource<S, T>
  >;
const patch = <S, T>(kind: Kind<S, T>, name: string, spec: object) =>
  bench.services.resources.patch(bench.me, kind, { project, name }, { spec: spec as never });
const remove = <S, T>(kind: Kind<S, T>, name: string) =>
  bench.services.resources.delete(bench.me, kind, { project, name });
const networkUid = async (name: string) =>
  (await bench.client.require(networkKind, { project, name })).metadata.uid;
const onHost = async (name: string) => bench.host.bridges.get(await networkUid(name));

async function run(name: string, spec: object = {}): Promise<Instance> {
  await bench.createInstance(name, spec);
  return bench.until(name, isRunning);
}

async function untilState(kind: Kind, name: string, state: string): Promise<Resource> {
  let last: Resource | undefined;
  await bench.waitFor(`${kind.name} ${name} is ${state}`, async () => {
    last = await bench.client.require(kind as never, { project, name });
    return (last.status as { state: string }).state === state;
  });
  return last as Resource;
}
const untilCard = async (name: string, state: string) =>
  (await untilState(networkInterfaceKind as never, name, state)) as NetworkInterface;

describe("structure", () => {
  test("a network has its subnets, and the guests are told of theirs", async () => {
    await create(networkKind, "blue", { cidr: "10.0.0.0/16", subnets: "custom", mtu: 9000 });
    await create(subnetKind, "one", { network: "blue", cidr: "10.0.1.0/24" });
    await create(subnetKind, "two", { network: "blue", cidr: "10.0.2.0/25" });
    const web = await run("web", { network: "blue", subnet: "two" });
    const blue = await onHost("blue");
    expect(blue?.request).toMatchObject({ cidr: "10.0.0.0/16", mtu: 9000, domain: "blue.default.internal" });
    expect(blue?.request.subnets.map(({ name, index }) => [name, index])).toEqual([
      ["one", 0],
      ["two", 1],
    ]);
    const { nic } = web.status;
    expect(guestOf(web)?.spec.nics).toMatchObject([
      {
        name: "eth0",
        ipAddress: nic?.ipAddress,
        prefixLength: 25,
        gateway: "10.0.2.1",
        ipv6: { address: nic?.ipv6Address, prefixLength: 64 },
        mtu: 9000,
        bridge: "br1",
      },
    ]);
    const { status } = await bench.client.require(networkKind, { project, name: "blue" });
    expect(status).toMatchObject({ state: "ready", hostAddresses: { alpha: blue?.hostAddress } });
  });

  test("a subnet, a route table and a peering that come later are there while guests run", async () => {
    await create(networkKind, "blue", { cidr: "10.0.0.0/16", subnets: "custom" });
    await create(networkKind, "red", { cidr: "10.1.0.0/16" });
    await create(subnetKind, "one", { network: "blue", cidr: "10.0.1.0/24" });
    const web = await run("web", { network: "blue" });
    await run("db", { network: "red" });
    const runId = guestOf(web)?.runId;
    await create(peeringKind, "pair", { network: "blue", peerNetwork: "red" });
    const routes = [{ destination: "10.1.0.0/16", target: "peering", via: "pair" }];
    await create(routeTableKind, "table", { network: "blue", routes });
    await create(subnetKind, "two", { network: "blue", cidr: "10.0.2.0/24", routeTable: "table" });
    await bench.waitFor(
      "the second subnet",
      async () => (await onHost("blue"))?.request.subnets.length === 2,
    );
    const blue = (await onHost("blue"))?.request;
    const red = (await onHost("red"))?.request;
    expect(blue?.peerings).toMatchObject([{ network: await networkUid("red") }]);
    expect(red?.peerings).toMatchObject([{ uid: blue?.peerings[0]?.uid, network: await networkUid("blue") }]);
    expect(blue?.subnets[1]?.routes).toMatchObject([{ target: { peering: blue?.peerings[0]?.uid } }]);
    await patch(routeTableKind, "table", { routes: [] });
    await remove(peeringKind, "pair");
    await bench.waitFor(
      "the peering is gone",
      async () => (await onHost("red"))?.request.peerings.length === 0,
    );
    await bench.waitFor("the routes too", async () => {
      const request = (await onHost("blue"))?.request;
      return request?.peerings.length === 0 && request.subnets[1]?.routes?.length === 0;
    });
    expect(guestOf(web)?.runId).toBe(runId);
  });

  test("a project goes with all its networks, though their subnets go first", async () => {
    await create(networkKind, "blue", { cidr: "10.0.0.0/16", subnets: "custom" });
    await create(subnetKind, "one", { network: "blue", cidr: "10.0.1.0/24" });
    await run("web", { network: "blue" });
    await bench.drive(
      bench.services.resources.delete(bench.me, projectKind, { name: project }, { cascade: true }),
    );
    await bench.waitFor(
      "the project is gone",
      async () => (await bench.client.get(projectKind, { name: project })) === undefined,
    );
    expect([bench.host.world.guests.size, bench.host.bridges.size]).toEqual([0, 0]);
  });
});

describe("policy", () => {
  test("a change of a group is in force at once, with one call, in every network that has it", async () => {
    await create(networkKind, "blue", { cidr: "10.0.0.0/16" });
    await create(securityGroupKind, "front", { ingress: [] });
    await create(securityGroupKind, "idle", { ingress: [] });
    await run("web", { securityGroups: ["front"] });
    await run("api", { securityGroups: ["front"], network: "blue" });
    await bench.clock.advance(1_000);
    policies.length = 0;
    const ingress = [{ protocol: "tcp", ports: "80", cidr: "0.0.0.0/0" }];
    const begun = bench.clock.now();
    await patch(securityGroupKind, "front", { ingress });
    await bench.waitFor("both are told", () => policies.length === 2, 100);
    expect(bench.clock.now() - begun).toBeLessThanOrEqual(10);
    for (const { groups } of policies) expect(groups[0]?.ingress).toHaveLength(1);
    await patch(securityGroupKind, "idle", { ingress });
    await bench.clock.advance(1_000);
    expect(policies).toHaveLength(2);
  });

  test("groups of a running instance change", async () => {
    await create(securityGroupKind, "front", {});
    const web = await run("web");
    await bench.patch("web", { securityGroups: ["front"] });
    const front = await bench.client.require(securityGroupKind, { project, name: "front" });
    await bench.waitFor("its card has it", () =>
      bench.host
        .cards()
        .some(({ card }) => card.uid === web.metadata.uid && card.groups[0] === front.metadata.uid),
    );
  });

  test("what does not concern cards costs no policy", async () => {
    await run("web");
    await bench.clock.advance(1_000);
    policies.length = 0;
    await bench.patch("web", { restarts: 1 });
    await bench.until("web", (instance) => isRunning(instance) && instance.status.observedRestarts === 1);
    await bench.clock.advance(60_000);
    expect(policies).toEqual([]);
  });

  test("many that come together share their policies", async () => {
    const names = Array.from({ length: 40 }, (_, index) => `web-${index}`);
    bench.host.policyMs = 20;
    await Promise.all(names.map((name) => bench.createInstance(name, { memoryMib: 64 })));
    for (const name of names) await bench.until(name, isRunning);
    expect(bench.host.cards()).toHaveLength(40);
    expect(policies.length).toBeLessThanOrEqual(12);
  });

  test("a policy that fails is tried again, told, and no guest starts meanwhile", async () => {
    bench.host.badPolicies = 3;
    await bench.createInstance("web");
    await bench.waitFor("told", async () => {
      const { status } = await bench.client.require(networkKind, { project, name: "default" });
      return status.state === "failed" && status.message.includes("trying again");
    });
    expect((await bench.get("web"))?.status.state).not.toBe("running");
    await bench.until("web", isRunning);
    await untilState(networkKind as never, "default", "ready");
  });

  test("the card goes before the instance is gone, also with a restarted agent", async () => {
    const web = await run("web");
    await run("db");
    await bench.stopAgent();
    await bench.remove("web");
    bench.startAgent();
    let left: boolean | undefined;
    await bench.waitFor("web is gone", async () => {
      if ((await bench.get("web")) !== undefined) return false;
      left ??= bench.host.cards().some(({ card }) => card.uid === web.metadata.uid);
      return true;
    });
    expect(left).toBe(false);
    expect(bench.host.cards()).toHaveLength(1);
  });
});

describe("published", () => {
  test("an address is bound, moved and freed; a port leads where it says", async () => {
    const web = await run("web");
    const db = await run("db");
    await create(addressKind, "front", { instance: "web" });
    await create(publishedPortKind, "http", { port: 8080, targetPort: 80, instance: "web" });
    const { status } = (await untilState(addressKind as never, "front", "bound")) as {
      status: { ipAddress: string };
    };
    await untilState(publishedPortKind as never, "http", "active");
    const policy = () => [...bench.host.bridges.values()][0]?.policy;
    expect(policy()?.publishedPorts).toEqual([
      { protocol: "tcp", port: 8080, ipAddress: web.status.nic?.ipAddress, targetPort: 80 },
    ]);
    await patch(addressKind, "front", { instance: "db" });
    await bench.waitFor("it is moved", async () => {
      const { metadata, status } = await bench.client.require(addressKind, { project, name: "front" });
      return status.state === "bound" && status.observedGeneration === metadata.generation;
    });
    expect(policy()?.addresses).toEqual([{ address: status.ipAddress, ipAddress: db.status.nic?.ipAddress }]);
    await patch(addressKind, "front", { instance: null });
    await untilState(addressKind as never, "front", "free");
    await bench.waitFor("nothing leads there", () => policy()?.addresses.length === 0);
    await remove(publishedPortKind, "http");
    await bench.waitFor("the port is gone", () => policy()?.publishedPorts.length === 0);
  });

  test("what is for an instance that is not there yet becomes active with it", async () => {
    await bench.createInstance("web", { power: "stopped" });
    await create(publishedPortKind, "http", { port: 80, instance: "web" });
    await untilState(publishedPortKind as never, "http", "active");
  });
});

describe("network interfaces", () => {
  const nicNames = (instance: Instance) => guestOf(instance)?.spec.nics.map(({ name }) => name);

  beforeEach(async () => {
    await create(networkKind, "blue", { cidr: "10.0.0.0/16" });
  });

  test("plugged into a running guest and out of it again, its address in force meanwhile only", async () => {
    const web = await run("web");
    const runId = guestOf(web)?.runId;
    await create(networkInterfaceKind, "nic", { network: "blue" });
    expect((await untilCard("nic", "available")).status.ipAddress).toBeDefined();
    await patch(networkInterfaceKind, "nic", { instance: "web" });
    const { status, metadata } = await untilCard("nic", "attached");
    expect(status).toMatchObject({ host: "alpha", instance: "web", device: 1, message: "" });
    expect(guestOf(web)?.spec.nics[1]).toMatchObject({
      name: "eth1",
      port: `n-${metadata.uid.slice(0, 12)}`,
      ipAddress: status.ipAddress,
      macAddress: status.macAddress,
    });
    expect((await onHost("blue"))?.policy.cards).toMatchObject([
      { uid: metadata.uid, ipAddress: status.ipAddress },
    ]);
    await patch(networkInterfaceKind, "nic", { instance: null });
    const free = await untilCard("nic", "available");
    expect([free.status.host, free.status.instance, free.status.device]).toEqual([
      undefined,
      undefined,
      undefined,
    ]);
    expect(nicNames(web)).toEqual(["eth0"]);
    expect((await onHost("blue"))?.policy.cards).toEqual([]);
    expect(guestOf(web)?.runId).toBe(runId);
    await remove(networkInterfaceKind, "nic");
  });

  test("moved from one running guest to another by one change", async () => {
    const web = await run("web");
    const db = await run("db");
    await create(networkInterfaceKind, "nic", { network: "blue", instance: "web" });
    await untilCard("nic", "attached");
    await patch(networkInterfaceKind, "nic", { instance: "db" });
    await bench.waitFor("it is moved", () => nicNames(db)?.length === 2);
    expect((await untilCard("nic", "attached")).status).toMatchObject({ instance: "db", device: 1 });
    expect(nicNames(web)).toEqual(["eth0"]);
    expect((await onHost("blue"))?.policy.cards).toHaveLength(1);
  });

  test("a guest that starts has all its cards, with names that stay", async () => {
    await bench.createInstance("web", { power: "stopped" });
    for (const name of ["one", "two"]) {
      await create(networkInterfaceKind, name, { network: "blue", instance: "web" });
      await untilCard(name, "attached");
    }
    await bench.patch("web", { power: "running" });
    const web = await bench.until("web", isRunning);
    expect(nicNames(web)).toEqual(["eth0", "eth1", "eth2"]);
    await patch(networkInterfaceKind, "one", { instance: null });
    await untilCard("one", "available");
    await bench.patch("web", { restarts: 1 });
    await bench.until("web", (instance) => isRunning(instance) && instance.status.observedRestarts === 1);
    expect(nicNames(web)).toEqual(["eth0", "eth2"]);
    expect((await untilCard("two", "attached")).status.message).toBe("");
  });

  test("one that comes with its instance is there from the first start", async () => {
    const drivers: string[] = [];
    const call = bench.host.world.call.bind(bench.host.world);
    bench.host.world.call = (verb, ...rest) => {
      drivers.push(verb);
      return call(verb, ...rest);
    };
    bench.host.makeMs = 1_000;
    await create(imageKind, "other", { source: { type: "debian", suite: "trixie" } });
    await bench.createInstance("web", { image: "other" });
    await create(networkInterfaceKind, "nic", { network: "blue", instance: "web" });
    const web = await bench.until("web", isRunning);
    await untilCard("nic", "attached");
    expect(nicNames(web)).toEqual(["eth0", "eth1"]);
    expect(drivers).not.toContain("attach");
  });

  test("taken away while its guest is being made: it stays recorded until the guest has lost it", async () => {
    await bench.createInstance("web", { power: "stopped" });
    await create(networkInterfaceKind, "nic", { network: "blue", instance: "web" });
    await untilCard("nic", "attached");
    bench.host.world.script({ verb: "create", effect: { type: "delay", delayMs: 2_000 } });
    await bench.patch("web", { power: "running" });
    await bench.until("web", ({ status }) => status.state === "starting");
    await patch(networkInterfaceKind, "nic", { instance: null });
    await bench.clock.advance(1_000);
    expect((await untilCard("nic", "detaching")).status.instance).toBe("web");
    const web = await bench.until("web", isRunning);
    await untilCard("nic", "available");
    expect(nicNames(web)).toEqual(["eth0"]);
  });

  test("an agent that restarts takes the cards over as they are", async () => {
    const web = await run("web");
    await create(networkInterfaceKind, "nic", { network: "blue", instance: "web" });
    await untilCard("nic", "attached");
    const { revision } = (await bench.client.require(networkInterfaceKind, { project, name: "nic" }))
      .metadata;
    await bench.stopAgent();
    bench.startAgent();
    await bench.clock.advance(60_000);
    expect((await untilCard("nic", "attached")).metadata.revision).toBe(revision);
    await patch(networkInterfaceKind, "nic", { instance: null });
    await untilCard("nic", "available");
    expect(nicNames(web)).toEqual(["eth0"]);
  });

  test("with its instance's deletion it becomes free", async () => {
    await run("web");
    await create(networkInterfaceKind, "nic", { network: "blue", instance: "web" });
    await untilCard("nic", "attached");
    await bench.remove("web");
    await untilCard("nic", "available");
    await bench.waitFor("its card is out of force", () => bench.host.cards().length === 0);
  });

  test("a driver that cannot: at the next start, and it says so", async () => {
    const plain = await agentBench({ withoutCards: true });
    bench = plain;
    await plain.createImage();
    await create(networkKind, "blue", { cidr: "10.0.0.0/16" });
    const web = await run("web");
    await create(networkInterfaceKind, "nic", { network: "blue", instance: "web" });
    const { status } = await untilCard("nic", "attaching");
    await plain.waitFor("it says so", async () =>
      (await untilCard("nic", "attaching")).status.message.includes("restart the instance"),
    );
    expect(status.instance).toBe("web");
    await plain.patch("web", { restarts: 1 });
    await untilCard("nic", "attached");
    expect(nicNames(web)).toEqual(["eth0", "eth1"]);
    await patch(networkInterfaceKind, "nic", { instance: null });
    await plain.waitFor("it says so", async () =>
      (await untilCard("nic", "detaching")).status.message.includes("stop or restart"),
    );
    expect((await onHost("blue"))?.policy.cards).toHaveLength(1);
    await plain.patch("web", { power: "stopped" });
    await untilCard("nic", "available");
  });
});

describe("size", () => {
  test("changes while the guest runs, and is told once it has", async () => {
    const web = await run("web", { cpus: 1, memoryMib: 512 });
    expect(web.status.size).toEqual({ cpus: 1, memoryMib: 512 });
    const runId = guestOf(web)?.runId;
    await bench.patch("web", { cpus: 2, memoryMib: 1024 });
    await bench.until("web", ({ status }) => status.size?.cpus === 2 && status.size.memoryMib === 1024);
    expect(guestOf(web)?.spec).toMatchObject({ cpus: 2, memoryMib: 1024 });
    expect(guestOf(web)?.runId).toBe(runId);
  });

  test("what a guest refuses is a condition until its restart", async () => {
    const web = await run("web");
    bench.host.world.script({ verb: "resize", effect: { type: "fail", code: "Unsupported" } });
    await bench.patch("web", { memoryMib: 1024 });
    const needsRestart = ({ status }: Instance) =>
      status.conditions.some(({ type }) => type === "RestartNeeded");
    await bench.until("web", needsRestart);
    expect(guestOf(web)?.spec.memoryMib).toBe(512);
    await bench.patch("web", { restarts: 1 });
    const after = await bench.until("web", (one) => isRunning(one) && one.status.observedRestarts === 1);
    expect(needsRestart(after)).toBe(false);
    expect(guestOf(after)?.spec.memoryMib).toBe(1024);
  });
});
