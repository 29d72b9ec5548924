import { describe, expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import type { InstanceStatus } from "../../kinds/instance.ts";
import { planInstance, stopGraceMs } from "./plan.ts";
import {
  digest,
  guestOf,
  handle,
  instanceOf,
  now,
  readyImage,
  readyNetwork,
  rootVolume,
  runningStatus,
  worldOf,
} from "./testing.ts";
import { check, crash, prepared, type Row, ran, started } from "./testing-rows.ts";
import type { InstanceWorld } from "./world.ts";

const deleted = { deletedAt: toTimestamp(now) };

describe("what is not this host's business is left alone", () => {
  const rows: Row[] = [
    { name: "no instance", world: worldOf({ instance: undefined }) },
    { name: "another host's", world: worldOf({ instance: instanceOf({ status: { host: "beta" } }) }) },
    {
      name: "not placed",
      world: worldOf({ instance: instanceOf({ status: { host: undefined } as never }) }),
    },
    {
      name: "another host's, though its guest runs here",
      world: worldOf({ instance: instanceOf({ status: { host: "beta" } }), guest: guestOf("running") }),
    },
    {
      name: "an order older than one already followed",
      world: ran(guestOf("running"), { power: "stopped" }, { observedGeneration: 2 }),
    },
  ];
  test.each(rows)("$name", check);
});

describe("gates: what is missing is waited for, and named", () => {
  const gate = (name: string, change: Partial<InstanceWorld>, status: Partial<InstanceStatus>): Row => ({
    name,
    world: worldOf(change),
    status,
  });
  const said = (text: string) => expect.stringContaining(text) as unknown as string;
  const rows: Row[] = [
    gate(
      "no image",
      { image: undefined },
      { state: "pending", reason: "ImageMissing", message: said("create it") },
    ),
    gate(
      "an image under way",
      { image: readyImage({ state: "building" }) },
      { state: "pending", reason: "ImageNotReady", message: said('"debian" to be made') },
    ),
    gate(
      "a failed image",
      { image: readyImage({ state: "failed", message: "bad archive" }) },
      { state: "failed", reason: "ImageFailed", message: said("bad archive") },
    ),
    gate(
      "an image that cannot start as this type",
      { image: readyImage({ types: ["vm"] }) },
      { state: "failed", reason: "ImageUnfit", message: said("can start as vm, not as container") },
    ),
    gate(
      "an image on another host",
      { image: readyImage({ host: "beta" }) },
      { state: "pending", reason: "ImageElsewhere", message: said("host beta") },
    ),
    gate(
      "a network without a range",
      { network: { ...readyNetwork(), status: { ...readyNetwork().status, cidr: undefined } } },
      { state: "pending", reason: "NetworkNotReady" },
    ),
    gate("no network", { network: undefined }, { state: "pending", reason: "NetworkNotReady" }),
    gate("no volume for long", { volume: undefined }, { state: "pending", reason: "VolumeNotReady" }),
    gate(
      "a missing key pair",
      { instance: instanceOf({ spec: { keyPairs: ["me"] } }) },
      { state: "pending", reason: "KeyPairMissing", message: said('"me"') },
    ),
    gate(
      "no driver",
      { driver: { missing: "this host cannot run a container (lxc: not installed)" } },
      { state: "pending", reason: "NoDriver", message: said("not installed") },
    ),
    {
      name: "a volume whose news is on its way",
      world: worldOf({
        volume: undefined,
        instance: instanceOf({ metadata: { createdAt: toTimestamp(now - 1_000) } }),
      }),
      recheckAfterMs: 4_000,
    },
    {
      name: "stopped needs nothing",
      world: worldOf({ image: undefined, instance: instanceOf({ spec: { power: "stopped" } }) }),
      status: { state: "stopped" },
    },
    {
      name: "once the disk was made, the image does not matter",
      world: worldOf({ image: undefined, instance: instanceOf({ status: { imageDigest: digest } }) }),
      actions: ["prepare"],
      status: { state: "starting" },
    },
  ];
  test.each(rows)("$name", check);
});

describe("a start: prepare, record, start", () => {
  const rows: Row[] = [
    { name: "first", world: worldOf(), actions: ["prepare"], status: { state: "starting" } },
    {
      name: "prepared: the handle is recorded before the start",
      world: worldOf({ attempt: prepared }),
      actions: ["start"],
      status: { state: "starting", handle: handle as never, driver: "fake", imageDigest: digest },
      events: ["Created"],
    },
    {
      name: "a restart asked for meanwhile is part of this start",
      world: worldOf({ attempt: prepared, instance: instanceOf({ spec: { restarts: 3 } }) }),
      actions: ["start"],
      status: { observedRestarts: 3 },
      events: ["Created"],
    },
    {
      name: "the guest runs",
      world: worldOf({
        guest: guestOf("running"),
        attempt: started,
        instance: instanceOf({ status: { state: "starting", handle: handle as never, driver: "fake" } }),
      }),
      status: { state: "running", reason: "Running", startedAt: toTimestamp(now) },
      events: ["Started"],
    },
    {
      name: "a guest found running after the agent died in the middle of its start",
      world: worldOf({
        guest: guestOf("running"),
        instance: instanceOf({ status: { state: "starting", handle: handle as never, driver: "fake" } }),
      }),
      status: { state: "running" },
      events: ["Started"],
    },
    {
      name: "a guest found not running after the agent died in the middle of its start",
      world: worldOf({
        guest: guestOf("created"),
        instance: instanceOf({ status: { state: "starting", handle: handle as never, driver: "fake" } }),
      }),
      actions: ["prepare"],
      status: { state: "starting", crashes: 0 },
    },
    {
      name: "what the last try had to say stays until the next step",
      world: worldOf({
        instance: instanceOf({ status: { state: "starting", reason: "StartFailed", message: "no space" } }),
      }),
      actions: ["prepare"],
      status: { state: "starting", reason: "StartFailed", message: "no space" },
    },
    {
      name: "it ended before it was seen running",
      world: worldOf({
        guest: guestOf("stopped", crash),
        attempt: started,
        instance: instanceOf({ status: { state: "starting", handle: handle as never, driver: "fake" } }),
      }),
      status: { state: "backoff", crashes: 1 },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 1_000,
    },
  ];
  test.each(rows)("$name", check);
});

describe("running", () => {
  const rows: Row[] = [
    { name: "as wanted", world: ran(guestOf("running")), status: runningStatus() },
    {
      name: "with services: they are looked for",
      world: ran(guestOf("running"), { services: [{ name: "http", port: 80, protocol: "tcp", path: "/" }] }),
      actions: ["probe"],
      status: { state: "running" },
    },
    {
      name: "the handle has changed",
      world: ran(guestOf("running"), {}, { handle: { version: 0 } }),
      status: { handle: handle as never },
    },
    {
      name: "crashes are forgiven in time",
      world: ran(guestOf("running"), {}, { recentCrashes: 3, crashes: 3 }),
      status: { recentCrashes: 3 },
      recheckAfterMs: 9 * 60_000,
    },
    {
      name: "crashes are forgiven",
      world: ran(
        guestOf("running"),
        {},
        { recentCrashes: 3, crashes: 3, startedAt: toTimestamp(now - 600_000) },
      ),
      status: { recentCrashes: 0, crashes: 3 },
    },
    {
      name: "to be stopped",
      world: ran(guestOf("running"), { power: "stopped" }),
      actions: ["stop"],
      status: { state: "stopping", reason: "Stopping", startedAt: toTimestamp(now - 60_000) },
    },
    {
      name: "to be restarted",
      world: ran(guestOf("running"), { restarts: 1 }),
      actions: ["stop"],
      status: { state: "stopping", reason: "Restarting", observedRestarts: 0 },
    },
    {
      name: "to be stopped and restarted: stopped",
      world: ran(guestOf("running"), { restarts: 1, power: "stopped" }),
      actions: ["stop"],
      status: { state: "stopping", reason: "Stopping" },
    },
  ];
  test.each(rows)("$name", check);

  test("a stop has its grace period", () => {
    const { actions } = planInstance(ran(guestOf("running"), { power: "stopped" }), now);
    expect(actions).toEqual([{ type: "stop", driver: "fake", handle, graceMs: stopGraceMs }]);
  });
});

describe("deletion", () => {
  const all = ["destroy", "release", "remove-disk", "finalize"];
  const status = { state: "deleting" } as const;
  const rows: Row[] = [
    {
      name: "of a running guest",
      world: worldOf({
        guest: guestOf("running"),
        instance: instanceOf({ metadata: deleted, status: runningStatus() }),
      }),
      actions: all,
      status,
    },
    {
      name: "of a guest that is half made: the handle is recorded, the driver knows nothing",
      world: worldOf({
        instance: instanceOf({ metadata: deleted, status: runningStatus({ state: "starting" }) }),
      }),
      actions: all,
      status,
    },
    {
      name: "of a guest that was never recorded",
      world: worldOf({ guest: guestOf("created"), instance: instanceOf({ metadata: deleted }) }),
      actions: all,
      status,
    },
    {
      name: "without a guest",
      world: worldOf({ instance: instanceOf({ metadata: deleted }) }),
      actions: ["release", "remove-disk", "finalize"],
      status,
    },
    {
      name: "without a volume and a network",
      world: worldOf({ instance: instanceOf({ metadata: deleted }), volume: undefined, network: undefined }),
      actions: ["release", "finalize"],
      status,
    },
    {
      name: "wins over everything else that is wanted",
      world: worldOf({
        guest: guestOf("running"),
        instance: instanceOf({
          metadata: { ...deleted, generation: 3 },
          spec: { power: "stopped", restarts: 4 },
          status: runningStatus({ state: "stopping" }),
        }),
      }),
      actions: all,
      status,
    },
  ];
  test.each(rows)("$name", check);

  test("the volume goes with it", () => {
    const world = worldOf({ instance: instanceOf({ metadata: deleted }) });
    const { actions } = planInstance(world, now);
    expect(actions.at(-1)).toMatchObject({ type: "finalize", volume: rootVolume() });
  });
});

describe("Ready", () => {
  const services = [
    { name: "http", port: 80, protocol: "http" as const, path: "/" },
    { name: "ssh", port: 22, protocol: "tcp" as const, path: "/" },
  ];
  const target = "run-1:80,22";
  const ready = (world: InstanceWorld) =>
    planInstance(world, now).status?.status.conditions.find(({ type }) => type === "Ready");
  const starting: Partial<InstanceStatus> = { state: "starting", conditions: [] };

  test.each([
    ["no services: as soon as it runs", ran(guestOf("running"), {}, starting), "true", "Running"],
    ["no answer yet", ran(guestOf("running"), { services }, starting), "false", "ServicesNotReady"],
    [
      "all answer",
      { ...ran(guestOf("running"), { services }), probe: { target, result: "ready", waitingFor: [] } },
      "true",
      "ServicesAnswer",
    ],
    [
      "one does not",
      {
        ...ran(guestOf("running"), { services }),
        probe: { target, result: "waiting", waitingFor: ["ssh (port 22)"] },
      },
      "false",
      "ServicesNotReady",
    ],
    [
      "an answer of another run says nothing",
      {
        ...ran(guestOf("running"), { services }, starting),
        probe: { target: "run-0:80,22", result: "ready", waitingFor: [] },
      },
      "false",
      "ServicesNotReady",
    ],
    [
      "what was ready stays so until there is an answer",
      ran(guestOf("running"), { services }),
      "true",
      "Running",
    ],
    ["a guest that ended is not", ran(guestOf("stopped", crash), { services }), "false", "NotRunning"],
  ] as [string, InstanceWorld, string, string][])("%s", (_name, world, status, reason) => {
    expect(ready(world)).toMatchObject({ status, reason });
  });

  test("`since` moves only when the answer changes", () => {
    const world = ran(guestOf("running"));
    expect(ready(world)?.since).toBe(toTimestamp(now - 60_000));
    expect(ready(ran(guestOf("stopped", crash)))?.since).toBe(toTimestamp(now));
  });
});
