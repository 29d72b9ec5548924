import { expect, test } from "vitest";
import { settle, VirtualClock } from "../../core/virtual-clock.ts";
import { ServiceProbes } from "./probes.ts";

function bench() {
  const clock = new VirtualClock(0);
  const open = new Set<number>();
  const asked: number[] = [];
  const hints: string[] = [];
  const addresses = new Map([["n", "100.64.0.2"]]);
  const probes = new ServiceProbes({
    clock,
    hint: (key) => hints.push(key),
    hostAddress: (network) => addresses.get(network),
    connect: async ({ port, from }, _timeoutMs, signal) => {
      signal.throwIfAborted();
      expect(from).toBe("100.64.0.2");
      asked.push(port);
      return open.has(port);
    },
  });
  const begin = (target = "run-1") =>
    probes.begin({
      type: "probe",
      key: "/instances/default/web",
      uid: "u",
      target,
      network: "n",
      address: "10.0.0.2",
      services: [
        { name: "http", port: 80 },
        { name: "ssh", port: 22 },
      ],
    });
  return { clock, open, asked, hints, probes, begin, addresses };
}

test("while the network is not there, nobody is asked: the address may be somebody else's", async () => {
  const { clock, open, asked, probes, begin, addresses } = bench();
  open.add(80).add(22);
  addresses.clear();
  begin();
  await clock.advance(10_000);
  expect([asked, probes.state("u")?.result]).toEqual([[], "waiting"]);
  addresses.set("n", "100.64.0.2");
  await clock.advance(1_000);
  expect(probes.state("u")?.result).toBe("ready");
});

test("fast at first, slower later, and at rest once all answer", async () => {
  const { clock, open, asked, hints, probes, begin } = bench();
  open.add(22);
  begin();
  await settle();
  expect(asked).toEqual([80, 22]);
  await clock.advance(50);
  expect(asked).toEqual([80, 22, 80]);
  await clock.advance(60_000);
  const soFar = asked.length;
  // 20 in the first second, then 20 for each factor of e until there are 20 seconds, then one a second.
  expect(soFar).toBeGreaterThan(115);
  expect(soFar).toBeLessThan(130);
  expect(probes.state("u")).toEqual({ target: "run-1", result: "waiting", waitingFor: ["http (port 80)"] });
  expect(hints).toHaveLength(1);
  open.add(80);
  await clock.advance(1_000);
  expect(probes.state("u")).toMatchObject({ result: "ready" });
  expect(hints).toHaveLength(2);
  await clock.advance(60_000);
  expect(asked.length).toBeLessThanOrEqual(soFar + 2);
});

test("a guest that comes up is found within a twentieth of what it took, though earlier questions are still unanswered", async () => {
  const clock = new VirtualClock(0);
  const upAtMs = 4_000;
  const hintedAt: number[] = [];
  const probes = new ServiceProbes({
    clock,
    hint: () => hintedAt.push(clock.monotonicMs()),
    hostAddress: () => "100.64.0.2",
    // What is asked before that is lost.
    connect: async (_target, timeoutMs, signal) => {
      if (clock.monotonicMs() >= upAtMs) return true;
      await clock.sleep(timeoutMs, signal);
      return false;
    },
  });
  probes.begin({
    ...{ type: "probe", key: "/instances/default/web", uid: "u", target: "run-1", network: "n" },
    ...{ address: "10.0.0.2", services: [{ name: "http", port: 80 }] },
  });
  await clock.advance(60_000);
  expect(probes.state("u")?.result).toBe("ready");
  expect(hintedAt).toHaveLength(2);
  expect(hintedAt[1]).toBeLessThan(upAtMs * 1.05 + 50);
});

test("what answers within the patience is never reported as missing", async () => {
  const { clock, open, hints, probes, begin } = bench();
  begin();
  await settle();
  await clock.advance(1_000);
  expect(probes.state("u")?.result).toBe("unknown");
  expect(hints).toEqual([]);
  open.add(80).add(22);
  await clock.advance(1_000);
  expect(probes.state("u")?.result).toBe("ready");
});

test("a doubt starts anew only what was ready; another run replaces what was under way", async () => {
  const { clock, open, probes, begin } = bench();
  begin();
  await settle();
  expect(probes.doubt("u")).toBe(false);
  open.add(80).add(22);
  await clock.advance(1_000);
  expect(probes.doubt("u")).toBe(true);
  expect(probes.state("u")).toBeUndefined();
  begin("run-2");
  await settle();
  expect(probes.state("u")).toMatchObject({ target: "run-2", result: "ready" });
});

test("nothing is asked after it was stopped", async () => {
  const { clock, asked, probes, begin } = bench();
  begin();
  await settle();
  probes.stop();
  const before = asked.length;
  await clock.advance(10_000);
  expect(asked.length).toBe(before);
});
