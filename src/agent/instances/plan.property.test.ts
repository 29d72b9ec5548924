import fc from "fast-check";
import { expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import { jsonEquals } from "../../core/json.ts";
import { type InstanceStatus, instanceKind, instanceStates } from "../../kinds/instance.ts";
import { statusPatch } from "../status-patch.ts";
import { planInstance } from "./plan.ts";
import { digest, guestOf, handle, instanceOf, now, readyImage, worldOf } from "./testing.ts";
import { prepared } from "./testing-rows.ts";
import type { InstanceWorld } from "./world.ts";

const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { nil: undefined });

const status: fc.Arbitrary<Partial<InstanceStatus>> = fc.record(
  {
    state: fc.constantFrom(...instanceStates),
    reason: fc.constantFrom(
      "Running",
      "PoweredOff",
      "Crashed",
      "ImageFailed",
      "StartFailed",
      "Restarting",
      "Unhealthy",
    ),
    host: fc.constantFrom("alpha", "alpha", "alpha", "beta"),
    handle: fc.constantFrom(handle as InstanceStatus["handle"], undefined),
    imageDigest: fc.constantFrom(digest, undefined),
    observedGeneration: fc.integer({ min: 0, max: 3 }),
    observedRestarts: fc.integer({ min: 0, max: 2 }),
    crashes: fc.integer({ min: 0, max: 9 }),
    recentCrashes: fc.integer({ min: 0, max: 9 }),
    startedAt: fc.constantFrom(toTimestamp(now - 1_000), toTimestamp(now - 3_600_000), undefined),
    nextStartAt: fc.constantFrom(toTimestamp(now + 1_000), toTimestamp(now - 1_000), undefined),
  },
  { requiredKeys: ["state"] },
);

const exit = fc.constantFrom(
  undefined,
  { reason: "crash" as const, message: "x" },
  { reason: "poweroff" as const, message: "" },
  { reason: "requested" as const, message: "" },
);

const guest: fc.Arbitrary<InstanceWorld["guest"]> = maybe(
  fc
    .tuple(fc.constantFrom("created" as const, "running" as const, "stopped" as const), exit)
    .map(([state, how]) => guestOf(state, state === "stopped" ? how : undefined)),
);

const world: fc.Arbitrary<InstanceWorld> = fc
  .record({
    status,
    guest,
    generation: fc.integer({ min: 1, max: 3 }),
    deleted: fc.boolean(),
    power: fc.constantFrom("running" as const, "stopped" as const),
    restarts: fc.integer({ min: 0, max: 2 }),
    rebuilds: fc.integer({ min: 0, max: 2 }),
    observedRebuilds: fc.integer({ min: 0, max: 2 }),
    restartPolicy: fc.constantFrom("always" as const, "on-failure" as const, "never" as const),
    services: fc.constantFrom([], [{ name: "http", port: 80, protocol: "tcp" as const, path: "/" }]),
    attempt: fc.constantFrom<InstanceWorld["attempt"]>(
      undefined,
      prepared,
      { ...prepared, rebuilds: 1 },
      { stage: "started" },
    ),
    image: fc.constantFrom(
      undefined,
      readyImage(),
      readyImage({ state: "building" }),
      readyImage({ state: "failed" }),
    ),
    probed: fc.constantFrom(undefined, "unknown" as const, "ready" as const, "waiting" as const),
    driver: fc.constantFrom({ name: "fake" }, { missing: "none" }),
  })
  .map((row) =>
    worldOf({
      instance: instanceOf({
        spec: {
          power: row.power,
          restarts: row.restarts,
          rebuilds: row.rebuilds,
          restartPolicy: row.restartPolicy,
          services: [...row.services],
        },
        status: {
          ...row.status,
          ...(row.observedRebuilds > 0 && { observedRebuilds: row.observedRebuilds }),
          ...(row.status.handle === undefined ? {} : { driver: "fake" }),
        },
        metadata: {
          generation: row.generation,
          ...(row.deleted ? { deletedAt: toTimestamp(now) } : {}),
        },
      }),
      guest: row.guest,
      attempt: row.attempt,
      image: row.image,
      driver: row.driver,
      probe: row.probed && {
        target: "run-1:80",
        result: row.probed,
        waitingFor: row.probed === "waiting" ? ["x"] : [],
      },
    }),
  );

/** The world after the plan's report was written, and nothing else happened. */
function afterReport(before: InstanceWorld): InstanceWorld {
  const { status: report } = planInstance(before, now);
  if (!report || !before.instance) return before;
  return { ...before, instance: { ...before.instance, status: report.status } };
}

test("a reported status is one that the API takes", () => {
  fc.assert(
    fc.property(world, (before) => {
      const report = planInstance(before, now).status;
      if (report)
        expect(
          instanceKind.status.safeParse(JSON.parse(JSON.stringify(report.status))).error,
        ).toBeUndefined();
    }),
    { numRuns: 400 },
  );
});

test("no plan starts a guest unless this very handle is recorded in the same report", () => {
  fc.assert(
    fc.property(world, (before) => {
      const plan = planInstance(before, now);
      for (const action of plan.actions) {
        if (action.type !== "start") continue;
        expect(plan.reportAfterMs).toBeUndefined();
        expect(jsonEquals(plan.status?.status.handle as never, action.handle)).toBe(true);
        expect(plan.status?.status.driver).toBe(action.driver);
        expect(plan.status?.status.imageDigest).toBeDefined();
        // Nor unless its root is the one that is wanted.
        const { rebuilds } = before.instance?.spec ?? { rebuilds: 0 };
        expect(plan.status?.status.observedRebuilds ?? 0).toBeGreaterThanOrEqual(rebuilds);
      }
    }),
    { numRuns: 400 },
  );
});

test("another host's instances, and newer orders, are never touched", () => {
  fc.assert(
    fc.property(world, (before) => {
      const { instance } = before;
      const fenced =
        instance?.status.host !== "alpha" ||
        instance.metadata.generation < instance.status.observedGeneration;
      if (!fenced) return;
      expect(planInstance(before, now)).toEqual({ status: undefined, actions: [] });
    }),
    { numRuns: 400 },
  );
});

test("a running guest is stopped only when someone wants that, and never started again", () => {
  fc.assert(
    fc.property(world, (before) => {
      if (before.guest?.observed.state !== "running" || !before.instance) return;
      const { spec, status, metadata } = before.instance;
      const types = planInstance(before, now).actions.map(({ type }) => type);
      expect(types).not.toContain("start");
      expect(types).not.toContain("prepare");
      const rebuild = spec.rebuilds > (status.observedRebuilds ?? 0);
      const wanted = spec.power === "running" && spec.restarts <= status.observedRestarts && !rebuild;
      if (wanted && metadata.deletedAt === undefined)
        expect(types.filter((type) => type !== "probe")).toEqual([]);
    }),
    { numRuns: 400 },
  );
});

test("a disk is removed, and a finalizer taken, only on deletion and after the guest", () => {
  fc.assert(
    fc.property(world, (before) => {
      const types = planInstance(before, now).actions.map(({ type }) => type);
      const removes = types.includes("remove-disk") || types.includes("finalize");
      if (!removes) return;
      expect(before.instance?.metadata.deletedAt).toBeDefined();
      if (before.guest) expect(types[0]).toBe("destroy");
      expect(types.at(-1)).toBe("finalize");
    }),
    { numRuns: 400 },
  );
});

test("without actions, the report is final: looking again changes nothing", () => {
  fc.assert(
    fc.property(world, (before) => {
      const first = planInstance(before, now);
      if (first.actions.length > 0) return;
      const after = afterReport(before);
      const second = planInstance(after, now);
      expect(second.actions).toEqual([]);
      if (second.status && after.instance) {
        expect(statusPatch(after.instance.status, second.status.status)).toBeUndefined();
        expect(second.status.events).toEqual([]);
      }
    }),
    { numRuns: 400 },
  );
});

test("what waits for a time says so", () => {
  fc.assert(
    fc.property(world, (before) => {
      const plan = planInstance(before, now);
      if (plan.status?.status.state !== "backoff" || plan.actions.length > 0) return;
      expect(plan.recheckAfterMs).toBeGreaterThan(0);
      expect(plan.status.status.nextStartAt).toBeDefined();
    }),
    { numRuns: 400 },
  );
});
