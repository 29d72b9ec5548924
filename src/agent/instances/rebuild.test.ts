/** Making a root anew: what is planned, and the whole way through an agent. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { type AgentBench, agentBench } from "../../../sim/agent-bench.ts";
import { toTimestamp } from "../../core/clock.ts";
import type { Instance } from "../../kinds/instance.ts";
import { digest, guestOf, handle, instanceOf, now, readyImage, worldOf } from "./testing.ts";
import { check, prepared, type Row, ran, requested } from "./testing-rows.ts";

const stoppedSpec = { rebuilds: 1, power: "stopped" } as const;
const anew = { ...prepared, rebuilds: 1 } as const;
const stopped = (status: Partial<Instance["status"]> = {}) =>
  instanceOf({
    spec: stoppedSpec,
    status: { state: "stopped", handle: handle as never, driver: "fake", imageDigest: digest, ...status },
  });

describe("plans", () => {
  const rows: Row[] = [
    {
      name: "a running guest is stopped first",
      world: ran(guestOf("running"), { rebuilds: 1 }),
      actions: ["stop"],
      status: { state: "stopping", reason: "Rebuilding" },
    },
    {
      name: "but not before its image is there",
      world: { ...ran(guestOf("running"), { rebuilds: 1 }), image: readyImage({ state: "building" }) },
      status: {
        state: "running",
        message: expect.stringMatching(/^runs as before, and is rebuilt later: waiting for the image/),
      } as never,
    },
    {
      name: "a guest whose root was made anew goes on",
      world: ran(guestOf("running"), { rebuilds: 2 }, { observedRebuilds: 2 }),
      status: { state: "running" },
    },
    {
      name: "stopped, it is prepared",
      world: ran(guestOf("stopped", requested), { rebuilds: 1 }, { state: "stopping", reason: "Rebuilding" }),
      actions: ["prepare"],
      status: { state: "starting", reason: "Rebuilding" },
    },
    {
      name: "what was prepared for the root before is prepared again",
      world: { ...ran(undefined, { rebuilds: 1 }, { state: "starting" }), attempt: prepared },
      actions: ["prepare"],
      status: { state: "starting" },
    },
    {
      name: "prepared, it is recorded before the start",
      world: { ...ran(undefined, { rebuilds: 1 }, { state: "starting" }), attempt: anew },
      actions: ["start"],
      status: { observedRebuilds: 1, imageDigest: digest },
      events: ["Rebuilt"],
    },
    {
      name: "one that crashed, or shut itself down for good, starts from the new root at once",
      world: ran(undefined, { rebuilds: 1 }, { state: "backoff", nextStartAt: toTimestamp(now + 60_000) }),
      actions: ["prepare"],
      status: { state: "starting", reason: "Rebuilding" },
    },
    {
      name: "one that is to be stopped gets its new root all the same",
      world: worldOf({ instance: stopped() }),
      actions: ["prepare"],
      status: { state: "starting", reason: "Rebuilding" },
    },
    {
      name: "and stays stopped",
      world: worldOf({ instance: stopped(), attempt: anew }),
      status: { state: "stopped", observedRebuilds: 1 },
      events: ["Rebuilt"],
    },
    {
      name: "one that never had a root needs none anew",
      world: worldOf({ instance: instanceOf({ spec: stoppedSpec }) }),
      status: { state: "stopped" },
    },
    {
      name: "one that cannot be made anew is left so until something changes",
      world: worldOf({
        instance: stopped({
          state: "failed",
          reason: "StartFailed",
          message: "too small",
          observedGeneration: 1,
        }),
      }),
      status: { state: "failed", message: "too small" },
    },
    {
      name: "a snapshot that is being put back goes first",
      world: { ...ran(guestOf("running"), { rebuilds: 1 }), hold: "monday" },
      actions: ["stop"],
      status: { state: "stopping", reason: "RollingBack" },
    },
  ];
  test.each(rows)("$name", check);
});

describe("through an agent", () => {
  let bench: AgentBench;
  beforeEach(async () => {
    bench = await agentBench();
    await bench.createImage();
    await bench.createInstance("web");
    await bench.until("web", isRunning);
  });
  afterEach(() => bench.stop());

  const isRunning = ({ status, spec }: Instance) =>
    status.state === "running" && (status.observedRebuilds ?? 0) === spec.rebuilds;
  const written = (web: Instance) => bench.host.world.require(web.metadata.uid).written.size;

  test("what was written is gone; name, address, card and handle stay", async () => {
    const before = await bench.until("web", isRunning);
    bench.host.world.write(before.metadata.uid, "etc/motd", "ho");
    await bench.patch("web", { rebuilds: 1 });
    const after = await bench.until("web", isRunning);
    expect(written(after)).toBe(0);
    expect(after.metadata.uid).toBe(before.metadata.uid);
    expect(after.status.nic).toEqual(before.status.nic);
    expect(after.status.handle).toEqual(before.status.handle);
    expect(after.status.observedRebuilds).toBe(1);
  });

  test.each(["fail", "lose-answer"] as const)(
    "a step that fails (%s) is repeated, and done once",
    async (type) => {
      const before = await bench.until("web", isRunning);
      bench.host.world.write(before.metadata.uid, "etc/motd", "ho");
      bench.host.world.script({ verb: "create", effect: { type } });
      await bench.patch("web", { rebuilds: 1 });
      const after = await bench.until("web", isRunning);
      expect(written(after)).toBe(0);
      expect([...bench.host.rootGenerations.values()]).toEqual([1]);
    },
  );

  test("what is stopped is rebuilt and stays stopped", async () => {
    const before = await bench.until("web", isRunning);
    bench.host.world.write(before.metadata.uid, "etc/motd", "ho");
    await bench.patch("web", { power: "stopped" });
    await bench.until("web", ({ status }) => status.state === "stopped");
    await bench.patch("web", { rebuilds: 1 });
    const after = await bench.until(
      "web",
      ({ status }) => status.state === "stopped" && status.observedRebuilds === 1,
    );
    expect(written(after)).toBe(0);
    expect(bench.host.world.require(after.metadata.uid).state).not.toBe("running");
  });
});
