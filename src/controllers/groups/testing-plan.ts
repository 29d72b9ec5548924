/** Groups and members as values, for tests of what is pure. */
import { type Instant, toTimestamp } from "../../core/clock.ts";
import { type Group, type GroupStatus, groupKind } from "../../kinds/group.ts";
import { type Instance, type InstanceStatus, instanceKind } from "../../kinds/instance.ts";
import type { Metadata } from "../../kinds/kind.ts";
import { type LoadBalancer, loadBalancerKind } from "../../kinds/load-balancer.ts";
import { revisionOf } from "./template.ts";
import type { GroupWorld, ObservedMember, Phase } from "./world.ts";

export const testNow: Instant = Date.UTC(2030, 0, 1);

function metadata(name: string, createdAt: Instant): Metadata {
  return {
    name,
    project: "default",
    uid: name.padEnd(16, "0").slice(0, 16) as Metadata["uid"],
    revision: 1,
    generation: 1,
    labels: {},
    createdAt: toTimestamp(createdAt),
    finalizers: [],
  };
}

/** `desired` members of the spec's template are wanted; `spec` is completed with defaults. */
export function testGroup(spec: object = {}, status: Partial<GroupStatus> = {}): Group {
  const complete = groupKind.spec.parse({
    template: { type: "container", image: "debian" },
    min: 1,
    max: 100,
    ...spec,
  });
  return {
    kind: "Group",
    metadata: { ...metadata("web", testNow), finalizers: ["group"] },
    spec: complete,
    status: { ...groupKind.initialStatus(), desired: 3, ...status },
  };
}

export interface MemberForm {
  name: string;
  /** Default: the version of the group's template. */
  revision?: string;
  phase?: Phase;
  /** Ready now; false after `readyAt`: not any more. */
  ready?: boolean;
  readyAt?: Instant;
  /** When Ready became what it is. */
  since?: Instant;
  createdAt?: Instant;
  begunAt?: Instant | undefined;
  /** Since when its host is silent. */
  lostAt?: Instant;
  status?: Partial<InstanceStatus>;
  deleted?: boolean;
}

export function testMember(group: Group, form: MemberForm): ObservedMember {
  const { name, phase = "serving", ready = true, createdAt = testNow - 3_600_000 } = form;
  const since = form.since ?? createdAt;
  const readyAt = form.readyAt ?? (ready ? since : undefined);
  const instance: Instance = {
    kind: "Instance",
    metadata: {
      ...metadata(name, createdAt),
      owner: { kind: "Group", name: "web", uid: group.metadata.uid },
      ...(form.deleted ? { deletedAt: toTimestamp(testNow) } : {}),
    },
    spec: instanceKind.spec.parse({ ...group.spec.template }),
    status: {
      ...instanceKind.initialStatus(),
      state: "running",
      host: "alpha",
      conditions: [
        {
          type: "Ready",
          status: ready ? "true" : "false",
          reason: "Test",
          message: ready ? "" : "port 80 does not answer",
          since: toTimestamp(since),
        },
      ],
      member: {
        revision: form.revision ?? revisionOf(group.spec.template),
        phase,
        since: toTimestamp(since),
        ...(readyAt === undefined ? {} : { readyAt: toTimestamp(readyAt) }),
      },
      ...form.status,
    },
  };
  return { instance, begunAt: "begunAt" in form ? form.begunAt : createdAt, lostAt: form.lostAt };
}

export function testWorld(
  group: Group,
  members: readonly MemberForm[],
  more: Partial<GroupWorld> = {},
): GroupWorld {
  return {
    group,
    members: members.map((form) => testMember(group, form)),
    balancers: [],
    setbacks: { count: 0, lastAt: 0, why: "" },
    decided: 1,
    scarce: false,
    ...more,
  };
}

/** Leads to the group; `servers` by name of the member. */
export function testBalancer(
  servers: Record<string, LoadBalancer["status"]["servers"][string]["state"]>,
): LoadBalancer {
  const status = loadBalancerKind.initialStatus();
  const uids = Object.entries(servers).map(([name, state]) => [name.padEnd(16, "0"), { state }] as const);
  return {
    kind: "LoadBalancer",
    metadata: metadata("front", testNow),
    spec: loadBalancerKind.spec.parse({ listeners: [{ port: 80 }], group: "web", targetPort: 80 }),
    status: { ...status, servers: Object.fromEntries(uids) },
  };
}
