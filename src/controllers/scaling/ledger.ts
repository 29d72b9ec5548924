/**
 * What all groups want and what the hosts can promise, kept up to date by single changes: whether everybody gets what they
 * want is then known without looking at all groups. Only when the sum does not fit is it shared out.
 */
import type { Host } from "../../kinds/host.ts";
import type { Instance } from "../../kinds/instance.ts";
import { arbitrate, type Capacity, type Claim, type Grant, roomFor } from "../../kinds/scaling/arbiter.ts";
import type { ControllerCaches } from "../context.ts";
import { ownerOf } from "../groups/state.ts";

export interface GroupClaim extends Omit<Claim, "current"> {
  uid: string;
  /** Warm members it keeps while there is room. */
  warm: number;
  /** `status.desired` so far. */
  desired: number;
}

export interface Verdict extends Grant {
  /** What it may have already: less than granted while others give their capacity back. */
  now: number;
}

const none: Capacity = { cpus: 0, memoryMib: 0 };

export class Ledger {
  readonly #hosts: ControllerCaches["hosts"];
  readonly #claims = new Map<string, GroupClaim>();
  /** Of all claims. */
  #wishes = none;
  /** Of all claims, or what their members have where that is more. */
  #held = none;
  /** Promised to members, by uid of their group. */
  readonly #members = new Map<string, { count: number; promised: Capacity }>();
  /** Promised on each host, and in all to instances that are of no group. */
  readonly #onHost = new Map<string, Capacity>();
  #others = none;

  constructor({ hosts, instances }: Pick<ControllerCaches, "hosts" | "instances">) {
    this.#hosts = hosts;
    instances.onChange((_key, next, previous) => {
      if (previous) this.#count(previous, -1);
      if (next) this.#count(next, 1);
    });
  }

  claims(): ReadonlyMap<string, GroupClaim> {
    return this.#claims;
  }

  /** Members of the group that exist, draining and vanishing ones as well. */
  membersOf(uid: string): number {
    return this.#members.get(uid)?.count ?? 0;
  }

  set(claim: GroupClaim): void {
    this.remove(claim.key);
    this.#claims.set(claim.key, claim);
    this.#wishes = plus(this.#wishes, wishOf(claim), 1);
    this.#held = plus(this.#held, this.#heldBy(claim), 1);
  }

  remove(key: string): void {
    const claim = this.#claims.get(key);
    if (!claim) return;
    this.#claims.delete(key);
    this.#wishes = plus(this.#wishes, wishOf(claim), -1);
    this.#held = plus(this.#held, this.#heldBy(claim), -1);
  }

  /** True: not everybody can have what they want, with their warm members. */
  get isScarce(): boolean {
    return !fits(this.#wishes, this.capacity());
  }

  /** For groups: of all hosts that may get something, and what is promised already on those that may not. */
  capacity(): Capacity {
    let sum = none;
    for (const host of this.#hosts.values()) sum = plus(sum, this.#roomOf(host), 1);
    return plus(sum, this.#others, -1);
  }

  /** What the group may have, were this its claim. Changes nothing. */
  judge(claim: GroupClaim): Verdict {
    const capacity = this.capacity();
    const before = this.#claims.get(claim.key);
    const swap = (sum: Capacity, of: (claim: GroupClaim) => Capacity) =>
      plus(before ? plus(sum, of(before), -1) : sum, of(claim), 1);
    const held = swap(this.#held, (one) => this.#heldBy(one));
    if (fits(held, capacity))
      return { granted: Math.max(claim.wanted, claim.min), lent: 0, now: Math.max(claim.wanted, claim.min) };
    const grant = this.share(claim).get(claim.key) ?? { granted: 0, lent: 0 };
    return { ...grant, now: Math.min(grant.granted, this.#growth(claim, capacity)) };
  }

  /** What each group may have by the claims there are, with this one in place of its last. */
  share(claim?: GroupClaim): Map<string, Grant> {
    const claims = new Map(this.#claims);
    if (claim) claims.set(claim.key, claim);
    const now = [...claims.values()].map((one) => ({ ...one, current: this.membersOf(one.uid) }));
    return arbitrate(now, this.capacity());
  }

  /** As many as there is room for beside all that exists or was decided already. */
  #growth(claim: GroupClaim, capacity: Capacity): number {
    let free = capacity;
    for (const one of this.#claims.values()) free = plus(free, this.#taken(one), -1);
    const own = Math.max(claim.desired, this.membersOf(claim.uid));
    if (!this.#claims.has(claim.key)) free = plus(free, this.#taken(claim), -1);
    return own + roomFor(claim.member, free);
  }

  #taken(claim: GroupClaim): Capacity {
    const members = this.#members.get(claim.uid);
    const missing = Math.max(0, claim.desired - (members?.count ?? 0));
    return plus(members?.promised ?? none, times(claim.member, missing), 1);
  }

  #heldBy(claim: GroupClaim): Capacity {
    const members = this.#members.get(claim.uid);
    const wish = wishOf(claim);
    return {
      cpus: Math.max(wish.cpus, members?.promised.cpus ?? 0),
      memoryMib: Math.max(wish.memoryMib, members?.promised.memoryMib ?? 0),
    };
  }

  #roomOf({ metadata: { name }, spec, status }: Host): Capacity {
    const promised = this.#onHost.get(name) ?? none;
    if (spec.cordoned || status.state !== "ready") return promised;
    const { cpus, memoryMib } = status.allocatable;
    return { cpus: Math.floor(cpus * spec.cpuOvercommit), memoryMib };
  }

  #count(instance: Instance, sign: 1 | -1): void {
    const size = { cpus: instance.spec.cpus, memoryMib: instance.spec.memoryMib };
    const { host } = instance.status;
    if (host !== undefined) this.#onHost.set(host, plus(this.#onHost.get(host) ?? none, size, sign));
    const owner = ownerOf(instance);
    // What waits for a host and belongs to nobody here takes nothing yet.
    if (owner === undefined) {
      if (host !== undefined) this.#others = plus(this.#others, size, sign);
      return;
    }
    const claim = this.#claimOf(instance);
    if (claim) this.#held = plus(this.#held, this.#heldBy(claim), -1);
    const members = this.#members.get(owner) ?? { count: 0, promised: none };
    const next = { count: members.count + sign, promised: plus(members.promised, size, sign) };
    if (next.count === 0) this.#members.delete(owner);
    else this.#members.set(owner, next);
    if (claim) this.#held = plus(this.#held, this.#heldBy(claim), 1);
  }

  #claimOf({ metadata: { project = "", owner } }: Instance): GroupClaim | undefined {
    const claim = this.#claims.get(`/groups/${project}/${owner?.name}`);
    return claim?.uid === owner?.uid ? claim : undefined;
  }
}

function wishOf(claim: GroupClaim): Capacity {
  return times(claim.member, Math.max(claim.wanted, claim.min) + claim.warm);
}

function times({ cpus, memoryMib }: Capacity, count: number): Capacity {
  return { cpus: cpus * count, memoryMib: memoryMib * count };
}

function plus(a: Capacity, b: Capacity, sign: 1 | -1): Capacity {
  return { cpus: a.cpus + sign * b.cpus, memoryMib: a.memoryMib + sign * b.memoryMib };
}

function fits(what: Capacity, into: Capacity): boolean {
  return what.cpus <= into.cpus && what.memoryMib <= into.memoryMib;
}
