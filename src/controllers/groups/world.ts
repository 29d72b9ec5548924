import type { Instant } from "../../core/clock.ts";
import type { Group, GroupStatus, MemberTemplate } from "../../kinds/group.ts";
import type { Instance, InstanceStatus } from "../../kinds/instance.ts";
import type { LoadBalancer } from "../../kinds/load-balancer.ts";

export type Phase = NonNullable<InstanceStatus["member"]>["phase"];

/** New members that failed in a row, without one that became healthy since. */
export interface Setbacks {
  count: number;
  lastAt: Instant;
  /** Of the last one: which, and what was the matter. */
  why: string;
}

export interface GroupWorld {
  group: Group | undefined;
  /** What the group owns, also what is marked for deletion. */
  members: readonly ObservedMember[];
  /** Those that lead to the group. */
  balancers: readonly LoadBalancer[];
  setbacks: Setbacks;
  /** The generation of its spec that its size was last decided for. */
  decided: number;
  /** True while groups lack capacity: nobody keeps warm members then. */
  scarce: boolean;
}

export interface ObservedMember {
  instance: Instance;
  /** When its host began with it, as far as this process saw; undefined while it waits for a host or an image. */
  begunAt: Instant | undefined;
  /** Since when its host gives no sign of life; it may well be running there. */
  lostAt: Instant | undefined;
}

export type GroupAction =
  | { type: "create"; group: Group; phase: Phase; count: number; revision: string; template: MemberTemplate }
  /** Of a member from elsewhere: which version it is of. */
  | { type: "adopt"; member: Instance; revision: string }
  | { type: "set-phase"; group: Group; member: Instance; phase: Phase; reason: string }
  /** It is healthy for the first time. */
  | { type: "note-ready"; member: Instance }
  /** `failed`: it never became healthy. */
  | { type: "remove"; group: Group; member: Instance; reason: string; failed: boolean }
  | { type: "finalize"; group: Group };

/** What the group's controller says of its group; the rest of the status is the scaling controller's. */
export type GroupReport = Omit<
  GroupStatus,
  "wanted" | "desired" | "lent" | "shortage" | "scaledOutAt" | "scaledInAt" | "yieldedAt"
>;
