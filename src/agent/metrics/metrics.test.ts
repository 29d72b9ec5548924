import { afterEach, beforeEach, expect, test } from "vitest";
import { type AgentBench, agentBench } from "../../../sim/agent-bench.ts";
import { StrataError } from "../../core/errors.ts";
import type { GuestPlace, Measurements } from "../../host/measurements/measurements.ts";
import type { Instance } from "../../kinds/instance.ts";

let bench: AgentBench;
let opened: GuestPlace[];
/** Calls of the API and when, in seconds since the beginning. */
let reports: number[];
let failing = false;
/** Guests whose meters say that they are gone. */
let gone: Set<string>;

/** Half a CPU, always. */
function measurements(): Measurements {
  const cpuMicros = () => bench.clock.monotonicMs() * 500;
  return {
    open(place) {
      opened.push(place);
      return () =>
        gone.has(place.uid) ? undefined : { cpuMicros: cpuMicros(), memoryBytes: 128 * 1024 ** 2 };
    },
    host: () => ({
      cpuBusyMs: bench.clock.monotonicMs(),
      cpuTotalMs: bench.clock.monotonicMs() * 4,
      memoryUsedBytes: 1,
      memoryTotalBytes: 2,
      load: 0.5,
      diskUsedBytes: 1,
      diskTotalBytes: 4,
    }),
  };
}

beforeEach(async () => {
  opened = [];
  reports = [];
  gone = new Set();
  failing = false;
  bench = await agentBench({
    measurements: { open: (place) => measurements().open(place), host: () => measurements().host() },
    link: async (name, call) => {
      if (name !== "reportMetrics") return call();
      if (failing) throw new StrataError("Unavailable", "not now");
      reports.push(Math.round(bench.clock.now() / 1_000));
      return call();
    },
  });
});
afterEach(() => bench.stop());

async function run(name: string, owner?: object): Promise<Instance> {
  await bench.createInstance(name);
  const key = `/instances/default/${name}`;
  if (owner) {
    const entry = await bench.store.get(key);
    const value = entry?.value as { metadata: object };
    await bench.store.commit([
      {
        put: key,
        value: { ...value, metadata: { ...value.metadata, owner } } as never,
        ifRevision: entry?.revision ?? 0,
      },
    ]);
  }
  return bench.until(name, ({ status }) => status.state === "running");
}

const current = async (kind = "instances") =>
  (await bench.services.metrics.current(bench.me, kind)).map(({ name, values }) => ({ name, values }));

test("a running instance is measured every ten seconds, and so is the host", async () => {
  await bench.createImage();
  const web = await run("web");
  await bench.clock.advance(25_000);
  expect(opened).toEqual([
    { uid: web.metadata.uid, type: "container", pid: expect.any(Number), ports: [expect.any(String)] },
  ]);
  expect(await current()).toEqual([{ name: "web", values: { cpu: 50, memory: 128, "memory-percent": 25 } }]);
  expect(await current("hosts")).toEqual([
    { name: "alpha", values: { cpu: 25, memory: 0, "memory-percent": 50, load: 0.5, "disk-percent": 25 } },
  ]);
  const before = reports.length;
  await bench.clock.advance(60_000);
  // The host's turn is another than the instance's, or the same.
  expect([6, 12]).toContain(reports.length - before);
});

test("a member of a group has its turn every second; the others do not", async () => {
  await bench.createImage();
  await run("web");
  await run("member", { kind: "Group", name: "lms", uid: "0123456789abcdef" });
  const before = reports.length;
  await bench.clock.advance(30_000);
  expect(reports.length - before).toBe(30);
  const points = async (name: string) => {
    const query = { kind: "instances", project: "default", name, metric: "memory", stepSeconds: 1 };
    return (await bench.services.metrics.range(bench.me, query)).points.length;
  };
  expect(await points("member")).toBeGreaterThanOrEqual(29);
  expect(await points("web")).toBeLessThanOrEqual(6);
});

test("a guest that started anew has another meter; one that is stopped has none", async () => {
  await bench.createImage();
  const web = await run("web");
  await bench.clock.advance(11_000);
  bench.host.world.kill(web.metadata.uid);
  await bench.until("web", ({ status }) => status.state === "backoff");
  await bench.until("web", ({ status }) => status.state === "running");
  await bench.clock.advance(21_000);
  expect(opened).toHaveLength(2);
  expect(opened[0]?.pid).not.toBe(opened[1]?.pid);
  expect(await current()).toMatchObject([{ name: "web", values: { cpu: 50 } }]);
  await bench.drive(bench.patch("web", { power: "stopped" }));
  await bench.until("web", ({ status }) => status.state === "stopped");
  await bench.clock.advance(61_000);
  expect(await current()).toEqual([]);
});

test("a guest that vanishes under its meter, and an API that does not answer, disturb nobody", async () => {
  await bench.createImage();
  const web = await run("web");
  await run("other");
  gone.add(web.metadata.uid);
  await bench.clock.advance(21_000);
  expect((await current()).map(({ name }) => name)).toEqual(["other"]);
  gone.clear();
  failing = true;
  await bench.clock.advance(30_000);
  failing = false;
  await bench.clock.advance(31_000);
  expect((await current()).map(({ name }) => name)).toEqual(["other", "web"]);
});
