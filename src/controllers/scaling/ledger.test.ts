import fc from "fast-check";
import { expect, test } from "vitest";
import { hostKind } from "../../kinds/host.ts";
import { type Instance, instanceKind } from "../../kinds/instance.ts";
import { Cache } from "../../reconcile/cache.ts";
import { type GroupClaim, Ledger } from "./ledger.ts";

type Caches = ConstructorParameters<typeof Ledger>[0];

function newCaches(): Caches {
  const hosts = new Cache();
  for (const name of ["a", "b"]) {
    hosts.put(`/hosts/${name}`, {
      metadata: { uid: name, revision: 1, name },
      spec: hostKind.spec.parse({ cpuOvercommit: 2 }),
      status: {
        ...hostKind.initialStatus(),
        state: "ready",
        allocatable: { cpus: 10, memoryMib: 10_000, diskMib: 1 },
      },
    } as never);
  }
  return { hosts, instances: new Cache() } as unknown as Caches;
}

function instanceOf(
  name: string,
  host: string | undefined,
  group: string | undefined,
  revision: number,
): Instance {
  const owner = group === undefined ? {} : { owner: { kind: "Group", name: group, uid: group } };
  return {
    kind: "Instance",
    metadata: { name, project: "p", uid: name, revision, ...owner } as never,
    spec: instanceKind.spec.parse({ type: "container", image: "i", memoryMib: 1_000 }),
    status: { ...instanceKind.initialStatus(), ...(host === undefined ? {} : { host }) },
  };
}

const claims = fc
  .record({
    name: fc.constantFrom("g", "h", "i", "j"),
    host: fc.constantFrom("a", "a", "b", undefined),
    min: fc.integer({ min: 0, max: 3 }),
    wanted: fc.integer({ min: 0, max: 8 }),
    warm: fc.integer({ min: 0, max: 2 }),
    desired: fc.integer({ min: 0, max: 5 }),
    priority: fc.integer({ min: 0, max: 2 }),
    lends: fc.boolean(),
  })
  .map(
    ({ name, ...rest }): GroupClaim => ({
      key: `/groups/p/${name}`,
      uid: name,
      member: { cpus: 1, memoryMib: 1_000 },
      ...rest,
    }),
  );

const steps = fc.array(
  fc.oneof(
    claims.map((claim) => ({ type: "claim" as const, claim })),
    fc.record({ type: fc.constant("remove" as const), name: fc.constantFrom("g", "h", "i", "j") }),
    fc.record({
      type: fc.constant("instance" as const),
      name: fc.constantFrom("m1", "m2", "m3", "m4", "m5"),
      host: fc.constantFrom("a", "b", undefined),
      group: fc.constantFrom("g", "h", undefined),
    }),
    fc.record({ type: fc.constant("gone" as const), name: fc.constantFrom("m1", "m2", "m3", "m4", "m5") }),
  ),
  { maxLength: 40 },
);

test("kept by single changes, it says what it says when all is counted anew", () => {
  fc.assert(
    fc.property(steps, claims, (history, asked) => {
      const caches = newCaches();
      const ledger = new Ledger(caches);
      const standing = new Map<string, GroupClaim>();
      history.forEach((step, index) => {
        if (step.type === "claim") {
          ledger.set(step.claim);
          standing.set(step.claim.key, step.claim);
        } else if (step.type === "remove") {
          ledger.remove(`/groups/p/${step.name}`);
          standing.delete(`/groups/p/${step.name}`);
        } else if (step.type === "gone") caches.instances.delete(`/instances/p/${step.name}`);
        else {
          // An instance does not change its owner.
          const known = caches.instances.get(`/instances/p/${step.name}`);
          const group = known ? known.metadata.owner?.uid : step.group;
          caches.instances.put(
            `/instances/p/${step.name}`,
            instanceOf(step.name, step.host, group, index + 2),
          );
        }
      });
      const again = newCaches();
      const fresh = new Ledger(again);
      for (const key of caches.instances.keys()) {
        const instance = caches.instances.get(key);
        if (instance) again.instances.put(key, instance);
      }
      for (const claim of standing.values()) fresh.set(claim);
      expect(ledger.judge(asked)).toEqual(fresh.judge(asked));
      for (const host of ["a", "b"]) expect(ledger.isScarce(host)).toBe(fresh.isScarce(host));
    }),
    { numRuns: 1_000 },
  );
});

test("nobody may have now what would be beyond the host, with all that is there and was decided", () => {
  fc.assert(
    fc.property(fc.array(claims, { maxLength: 6 }), claims, (all, asked) => {
      const caches = newCaches();
      const ledger = new Ledger(caches);
      const standing = new Map<string, GroupClaim>();
      for (const claim of all) {
        ledger.set(claim);
        standing.set(claim.key, claim);
      }
      const { now } = ledger.judge(asked);
      if (asked.host === undefined || now <= asked.desired) return;
      standing.set(asked.key, { ...asked, desired: now });
      const on = [...standing.values()].filter(({ host }) => host === asked.host);
      expect(on.reduce((sum, { desired }) => sum + desired, 0)).toBeLessThanOrEqual(10);
    }),
    { numRuns: 1_000 },
  );
});

test("members that are leaving give a group that does not lend no more than it was given", () => {
  const caches = newCaches();
  const ledger = new Ledger(caches);
  const shared = { host: "a", min: 1, warm: 0, member: { cpus: 1, memoryMib: 1_000 } };
  const keeper = {
    ...shared,
    key: "/groups/p/g",
    uid: "g",
    wanted: 12,
    desired: 4,
    priority: 0,
    lends: false,
  };
  const high = { ...shared, key: "/groups/p/h", uid: "h", wanted: 12, desired: 6, priority: 2, lends: true };
  ledger.set(keeper);
  ledger.set(high);
  const put = (name: string, group: string, revision: number, host?: string) =>
    caches.instances.put(`/instances/p/${name}`, instanceOf(name, host, group, revision));
  const judged = () => [ledger.judge(keeper).granted, ledger.judge(high).granted];
  for (let index = 0; index < 10; index++) put(`m${index}`, index < 4 ? "g" : "h", index + 2, "a");
  expect(judged()).toEqual([4, 6]);
  // Two of its members have successors, which have no host yet; then the first of them has one.
  for (const name of ["s0", "s1"]) put(name, "g", 20);
  expect(judged()).toEqual([4, 6]);
  put("s0", "g", 21, "a");
  expect(judged()).toEqual([4, 6]);
  // Those before them are gone, and the second waits for a host.
  for (const name of ["m0", "m1"]) caches.instances.delete(`/instances/p/${name}`);
  expect(judged()).toEqual([4, 6]);
});

test("a group that does not lend keeps members that have a host, not those that wait for one", () => {
  const caches = newCaches();
  const ledger = new Ledger(caches);
  const shared = { host: "a", warm: 0, priority: 0, member: { cpus: 1, memoryMib: 1_000 } };
  const keeper = { ...shared, key: "/groups/p/g", uid: "g", min: 1, wanted: 12, desired: 9, lends: false };
  const low = { ...shared, key: "/groups/p/h", uid: "h", min: 3, wanted: 3, desired: 3, lends: true };
  ledger.set(keeper);
  ledger.set(low);
  for (let index = 0; index < 9; index++) {
    const host = index < 7 ? "a" : undefined;
    caches.instances.put(`/instances/p/g${index}`, instanceOf(`g${index}`, host, "g", index + 2));
  }
  // One of its three is being replaced.
  for (const name of ["h0", "h1"])
    caches.instances.put(`/instances/p/${name}`, instanceOf(name, "a", "h", 20));
  expect(ledger.judge(low)).toMatchObject({ granted: 3, lent: 0 });
  expect(ledger.judge(keeper)).toMatchObject({ granted: 7 });
});
