import { describe, expect, test } from "vitest";
import { toTimestamp } from "../../core/clock.ts";
import type { InstanceStatus } from "../../kinds/instance.ts";
import { guestOf, instanceOf, now, runningStatus, worldOf } from "./testing.ts";
import { check, crash, poweroff, type Row, ran, requested } from "./testing-rows.ts";

describe("an end that was asked for", () => {
  const stopping = { state: "stopping", startedAt: undefined } as const;
  const rows: Row[] = [
    {
      name: "stopped",
      world: ran(guestOf("stopped", requested), { power: "stopped" }, stopping),
      status: { state: "stopped", reason: "Stopped" },
      events: ["Stopped"],
    },
    {
      name: "stays stopped",
      world: ran(
        guestOf("stopped", requested),
        { power: "stopped" },
        { state: "stopped", reason: "Stopped" },
      ),
      status: { state: "stopped" },
    },
    {
      name: "wanted again meanwhile",
      world: ran(guestOf("stopped", requested), {}, stopping),
      actions: ["prepare"],
      status: { state: "starting", crashes: 0 },
    },
    {
      name: "for a restart",
      world: ran(guestOf("stopped", requested), { restarts: 1 }, stopping),
      actions: ["prepare"],
      status: { state: "starting", crashes: 0 },
    },
    {
      name: "started again after a stop",
      world: ran(guestOf("stopped", requested), {}, { state: "stopped", reason: "Stopped" }),
      actions: ["prepare"],
      status: { state: "starting" },
    },
    {
      name: "the agent died after the stop and before it said so",
      world: ran(guestOf("stopped", requested), {}),
      actions: ["prepare"],
      status: { state: "starting", crashes: 0 },
    },
  ];
  test.each(rows)("$name", check);
});

describe("an end of its own", () => {
  const backoff = (change: Partial<InstanceStatus> = {}): Partial<InstanceStatus> => ({
    state: "backoff",
    reason: "Crashed",
    startedAt: undefined,
    crashes: 1,
    recentCrashes: 1,
    nextStartAt: toTimestamp(now + 500),
    ...change,
  });
  const rows: Row[] = [
    {
      name: "crash, always",
      world: ran(guestOf("stopped", crash)),
      status: { state: "backoff", crashes: 1, recentCrashes: 1, nextStartAt: toTimestamp(now + 1_000) },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 1_000,
    },
    {
      name: "crash, on-failure",
      world: ran(guestOf("stopped", crash), { restartPolicy: "on-failure" }),
      status: { state: "backoff" },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 1_000,
    },
    {
      name: "crash, never",
      world: ran(guestOf("stopped", crash), { restartPolicy: "never" }),
      status: { state: "failed", reason: "Crashed", crashes: 0 },
      events: ["Crashed"],
    },
    {
      name: "poweroff, always",
      world: ran(guestOf("stopped", poweroff)),
      status: { state: "backoff", reason: "PoweredOff", crashes: 1 },
      events: ["PoweredOff", "BackOff"],
      recheckAfterMs: 1_000,
    },
    {
      name: "poweroff, on-failure",
      world: ran(guestOf("stopped", poweroff), { restartPolicy: "on-failure" }),
      status: { state: "stopped", reason: "PoweredOff", crashes: 0 },
      events: ["PoweredOff"],
    },
    {
      name: "poweroff, never",
      world: ran(guestOf("stopped", poweroff), { restartPolicy: "never" }),
      status: { state: "stopped", reason: "PoweredOff" },
      events: ["PoweredOff"],
    },
    {
      name: "the fourth crash in a row",
      world: ran(guestOf("stopped", crash), {}, { crashes: 7, recentCrashes: 3 }),
      status: { crashes: 8, recentCrashes: 4, nextStartAt: toTimestamp(now + 8_000) },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 8_000,
    },
    {
      name: "the delay has a bound",
      world: ran(guestOf("stopped", crash), {}, { crashes: 99, recentCrashes: 99 }),
      status: { nextStartAt: toTimestamp(now + 60_000) },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 60_000,
    },
    {
      name: "a crash after long running is the first again",
      world: ran(guestOf("stopped", crash), {}, { recentCrashes: 5, startedAt: toTimestamp(now - 601_000) }),
      status: { recentCrashes: 1, nextStartAt: toTimestamp(now + 1_000) },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 1_000,
    },
    {
      name: "a guest that vanished",
      world: ran(undefined),
      status: { state: "backoff", message: expect.stringContaining("vanished") as unknown as string },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 1_000,
    },
    {
      name: "a guest that the host's restart ended",
      world: ran(guestOf("created")),
      status: { state: "backoff", message: expect.stringContaining("without a trace") as unknown as string },
      events: ["Crashed", "BackOff"],
      recheckAfterMs: 1_000,
    },
    {
      name: "back-off goes on",
      world: ran(guestOf("stopped", crash), {}, backoff()),
      status: backoff(),
      recheckAfterMs: 500,
    },
    {
      name: "back-off is over",
      world: ran(guestOf("stopped", crash), {}, backoff({ nextStartAt: toTimestamp(now) })),
      actions: ["prepare"],
      status: { state: "starting", crashes: 1, recentCrashes: 1 },
    },
    {
      name: "it crashed, and a restart was asked for: at once",
      world: ran(guestOf("stopped", crash), { restarts: 1 }),
      actions: ["prepare"],
      status: { state: "starting", crashes: 0 },
    },
    {
      name: "a restart cuts the back-off short",
      world: ran(guestOf("stopped", crash), { restarts: 1 }, backoff()),
      actions: ["prepare"],
      status: { state: "starting", recentCrashes: 0, crashes: 1 },
    },
    {
      name: "a stop ends the back-off",
      world: ran(guestOf("stopped", crash), { power: "stopped" }, backoff()),
      status: { state: "stopped" },
      events: ["Stopped"],
    },
    {
      name: "left powered off, whatever changes",
      world: worldOf({
        guest: guestOf("stopped", poweroff),
        instance: instanceOf({
          metadata: { generation: 5 },
          status: runningStatus({ state: "stopped", reason: "PoweredOff" }),
        }),
      }),
      status: { state: "stopped", reason: "PoweredOff", observedGeneration: 5 },
    },
    {
      name: "failed stays failed",
      world: ran(guestOf("stopped", crash), {}, { state: "failed", reason: "Crashed" }),
      status: { state: "failed" },
    },
    {
      name: "failed, and changed",
      world: worldOf({
        guest: guestOf("stopped", crash),
        instance: instanceOf({
          metadata: { generation: 2 },
          status: runningStatus({ state: "failed", reason: "Crashed" }),
        }),
      }),
      actions: ["prepare"],
      status: { state: "starting", observedGeneration: 2 },
    },
    {
      name: "failed for something outside that is mended",
      world: worldOf({
        instance: instanceOf({ status: { state: "failed", reason: "ImageFailed", observedGeneration: 1 } }),
      }),
      actions: ["prepare"],
      status: { state: "starting" },
    },
  ];
  test.each(rows)("$name", check);
});
