import { expect } from "vitest";
import type { Instance, InstanceStatus } from "../../kinds/instance.ts";
import { planInstance } from "./plan.ts";
import { digest, handle, instanceOf, now, runningStatus, worldOf } from "./testing.ts";
import type { InstanceWorld } from "./world.ts";

/** One line of a table of plans. */
export interface Row {
  name: string;
  world: InstanceWorld;
  /** Types of the actions, in order. */
  actions?: string[];
  /** Part of the reported status; undefined: nothing is reported. */
  status?: Partial<InstanceStatus> | undefined;
  events?: string[];
  recheckAfterMs?: number;
}

export const size = { cpus: 1, memoryMib: 512 } as const;
export const prepared = {
  stage: "prepared",
  driver: "fake",
  handle,
  imageDigest: digest,
  rebuilds: 0,
  size,
} as const;
export const started = { stage: "started" } as const;
export const crash = { reason: "crash", message: "killed by signal 9" } as const;
export const poweroff = { reason: "poweroff", message: "" } as const;
export const requested = { reason: "requested", message: "" } as const;

/** An instance that ran, as its status says, and its guest as it is now. */
export function ran(
  guest: InstanceWorld["guest"],
  spec: Partial<Instance["spec"]> = {},
  status: Partial<InstanceStatus> = {},
): InstanceWorld {
  return worldOf({ instance: instanceOf({ spec, status: runningStatus(status) }), guest });
}

export function check({ world, actions = [], status, events = [], recheckAfterMs }: Row): void {
  const plan = planInstance(world, now);
  expect(plan.actions.map(({ type }) => type)).toEqual(actions);
  if (status === undefined) expect(plan.status).toBeUndefined();
  else expect(plan.status?.status).toMatchObject(status);
  expect(plan.status?.events.map(({ reason }) => reason) ?? []).toEqual(events);
  expect(plan.recheckAfterMs).toBe(recheckAfterMs);
}
