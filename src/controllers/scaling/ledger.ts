/**
 * What all groups want and what hosts can promise, kept up to date by single changes: whether everybody gets what they want is
 * then known without looking at all groups. Only where the sum does not fit is it shared out.
 *
 * Members run where their image is; so every host is shared by the groups whose image it has.
 */
import type { Host } from "../../kinds/host.ts";
import { hostKind } from "../../kinds/host.ts";
import type { Instance } from "../../kinds/instance.ts";
import { resourceKey } from "../../kinds/keys.ts";
import { arbitrate, type Capacity, type Claim, type Grant, roomFor } from "../../kinds/scaling/arbiter.ts";
import type { ControllerCaches } from "../context.ts";
import { ownerOf } from "../groups/state.ts";

export interface GroupClaim extends Omit<Claim, "current" | "given"> {
  uid: string;
  /** That has the image; undefined: none has it yet, and nothing is promised anywhere. */
  host: string | undefined;
  /** Warm members it keeps while there is room. */
  warm: number;
  /** `status.desired` so far. */
  desired: number;
}

export interface Verdict extends Grant {
  /** What it may have already: less than granted while others give their capacity back. */
  now: number;
}

interface Share {
  claims: Map<string, GroupClaim>;
  /** Of all claims. */
  wishes: Capacity;
  /** Of all claims, or what is taken where that is more. */
  held: Capacity;
}

/** Of a group. */
interface Members {
  count: number;
  /** Those that have a host: only they have what a group that does not lend may keep. */
  placed: number;
  /** To all of them. */
  promised: Capacity;
}

const none: Capacity = { cpus: 0, memoryMib: 0 };
const noMembers: Members = { count: 0, placed: 0, promised: none };

export class Ledger {
  readonly #hosts: ControllerCaches["hosts"];
  readonly #claims = new Map<string, GroupClaim>();
  readonly #shares = new Map<string, Share>();
  /** By uid of their group. */
  readonly #members = new Map<string, Members>();
  /** Promised on each host: in all, and to instances that are of no group. */
  readonly #promised = new Map<string, Capacity>();
  readonly #others = new Map<string, Capacity>();

  constructor({ hosts, instances }: Pick<ControllerCaches, "hosts" | "instances">) {
    this.#hosts = hosts;
    instances.onChange((_key, next, previous) => {
      if (previous) this.#count(previous, -1);
      if (next) this.#count(next, 1);
    });
  }

  /** Of the groups that share a host, by key. */
  claimsOn(host: string): ReadonlyMap<string, GroupClaim> {
    return this.#shares.get(host)?.claims ?? new Map();
  }

  hostOf(key: string): string | undefined {
    return this.#claims.get(key)?.host;
  }

  set(claim: GroupClaim): void {
    this.remove(claim.key);
    this.#claims.set(claim.key, claim);
    const { host } = claim;
    if (host === undefined) return;
    const share = this.#shares.get(host) ?? { claims: new Map(), wishes: none, held: none };
    share.claims.set(claim.key, claim);
    this.#shares.set(host, share);
    this.#add(claim, 1);
  }

  remove(key: string): void {
    const claim = this.#claims.get(key);
    if (!claim) return;
    this.#add(claim, -1);
    this.#claims.delete(key);
    const share = this.#shares.get(claim.host ?? "");
    share?.claims.delete(key);
    if (share?.claims.size === 0) this.#shares.delete(claim.host ?? "");
  }

  /** True: not everybody on the host can have what they want, with their warm members. */
  isScarce(host: string | undefined): boolean {
    const share = this.#shares.get(host ?? "");
    return host !== undefined && share !== undefined && !fits(share.wishes, this.#capacity(host));
  }

  /** What the group may have, were this its claim. Changes nothing. */
  judge(claim: GroupClaim): Verdict {
    const wanted = Math.max(claim.wanted, claim.min);
    const all = { granted: wanted, lent: 0, now: wanted };
    const { host } = claim;
    if (host === undefined) return all;
    const capacity = this.#capacity(host);
    const before = this.#claims.get(claim.key);
    const others = before?.host === host ? minus(this.#held(host), this.#heldBy(before)) : this.#held(host);
    if (fits(plus(others, this.#heldBy(claim)), capacity)) return all;
    const grant = this.share(host, claim).get(claim.key) ?? { granted: 0, lent: 0 };
    return { ...grant, now: Math.min(grant.granted, this.#growth(host, claim, capacity)) };
  }

  /** What each group of the host may have by the claims there are, with this one in place of its last. */
  share(host: string, claim?: GroupClaim): Map<string, Grant> {
    const claims = new Map(this.claimsOn(host));
    if (claim) claims.set(claim.key, claim);
    const now = [...claims.values()].map((one) => {
      const { placed } = this.#membersOf(one.uid);
      return { ...one, current: placed, given: one.desired };
    });
    return arbitrate(now, this.#capacity(host));
  }

  /** For groups: what a host that may get something has, or what is promised already on one that may not. */
  #capacity(name: string): Capacity {
    const host = this.#hosts.get(resourceKey(hostKind, { name }));
    return minus(this.#roomOf(name, host), this.#others.get(name) ?? none);
  }

  #roomOf(name: string, host: Host | undefined): Capacity {
    if (!host || host.spec.cordoned || host.status.state !== "ready") return this.#promised.get(name) ?? none;
    const { cpus, memoryMib } = host.status.allocatable;
    return { cpus: Math.floor(cpus * host.spec.cpuOvercommit), memoryMib };
  }

  /** As many as there is room for beside all that exists or was decided already. */
  #growth(host: string, claim: GroupClaim, capacity: Capacity): number {
    let free = capacity;
    for (const one of this.claimsOn(host).values())
      if (one.key !== claim.key) free = minus(free, this.#taken(one));
    const own = Math.max(claim.desired, this.#membersOf(claim.uid).count);
    return own + roomFor(claim.member, minus(free, this.#taken(claim)));
  }

  /** By members, and by those that were decided and are not there yet. */
  #taken(claim: GroupClaim): Capacity {
    const { count, promised } = this.#membersOf(claim.uid);
    return plus(promised, times(claim.member, Math.max(0, claim.desired - count)));
  }

  #held(host: string): Capacity {
    return this.#shares.get(host)?.held ?? none;
  }

  #heldBy(claim: GroupClaim): Capacity {
    const taken = this.#taken(claim);
    const wish = wishOf(claim);
    return {
      cpus: Math.max(wish.cpus, taken.cpus),
      memoryMib: Math.max(wish.memoryMib, taken.memoryMib),
    };
  }

  #membersOf(uid: string): Members {
    return this.#members.get(uid) ?? noMembers;
  }

  #add(claim: GroupClaim, sign: 1 | -1): void {
    const share = this.#shares.get(claim.host ?? "");
    if (!share) return;
    const change = sign === 1 ? plus : minus;
    share.wishes = change(share.wishes, wishOf(claim));
    share.held = change(share.held, this.#heldBy(claim));
  }

  #count(instance: Instance, sign: 1 | -1): void {
    const change = sign === 1 ? plus : minus;
    const size = { cpus: instance.spec.cpus, memoryMib: instance.spec.memoryMib };
    const { host } = instance.status;
    const owner = ownerOf(instance);
    for (const sums of owner === undefined ? [this.#promised, this.#others] : [this.#promised]) {
      if (host !== undefined) sums.set(host, change(sums.get(host) ?? none, size));
    }
    if (owner === undefined) return;
    const claim = this.#claimOf(instance);
    if (claim) this.#add(claim, -1);
    const { count, placed, promised } = this.#membersOf(owner);
    if (count + sign === 0) this.#members.delete(owner);
    else {
      this.#members.set(owner, {
        count: count + sign,
        placed: placed + (host === undefined ? 0 : sign),
        promised: change(promised, size),
      });
    }
    if (claim) this.#add(claim, 1);
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

function plus(a: Capacity, b: Capacity): Capacity {
  return { cpus: a.cpus + b.cpus, memoryMib: a.memoryMib + b.memoryMib };
}

function minus(a: Capacity, b: Capacity): Capacity {
  return { cpus: a.cpus - b.cpus, memoryMib: a.memoryMib - b.memoryMib };
}

function fits(what: Capacity, into: Capacity): boolean {
  return what.cpus <= into.cpus && what.memoryMib <= into.memoryMib;
}
