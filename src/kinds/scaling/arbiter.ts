/**
 * Shares the hosts' capacity among groups. In this order:
 *
 * 1. What nobody may take away: each group's members up to its minimum, and all members of a group that does not lend.
 * 2. What is missing to the minimums, higher priority first.
 * 3. What policies want beyond, higher priority first; groups of one priority get their next member in turn, the one with the
 *    smallest share of the hosts first (dominant resource fairness, Ghodsi et al., NSDI 2011).
 *
 * The answer depends on `current` in step 1 alone, never on how capacity was shared before: so nothing goes back and forth, and
 * what was lent returns as soon as the need of the taker ends.
 *
 * Invariants: never beyond capacity in CPUs or memory (but for members of step 1 when hosts were lost: see `granted`); never
 * more than the larger of wanted and min. Capacity is that of all hosts together; whether a member fits on one of them is
 * placement's question.
 */

export interface Claim {
  /** Unique: the group's uid, or project and name. */
  key: string;
  /** In force now, as boundsAt has it. */
  min: number;
  /** What it is to have by its policies: `Decision.desired`. */
  wanted: number;
  /** Members it has promised capacity for now; draining ones count. */
  current: number;
  priority: number;
  lends: boolean;
  /** Of one member; both at least 0, one of them more. */
  member: Capacity;
}

export interface Capacity {
  cpus: number;
  memoryMib: number;
}

export interface Grant {
  /**
   * Members it may have. Below `current` it has to give some back: drain them first. When hosts were lost, the members of step 1
   * are cut as well, lowest priority first.
   */
  granted: number;
  /** Of those missing to what it wants, what groups of higher priority have beyond their minimum instead. */
  lent: number;
  /** Why it gets less than it wants. */
  reason?: string;
}

interface Share {
  claim: Claim;
  /** The larger of wanted and min. */
  target: number;
  floor: number;
  granted: number;
}

/** `capacity`: what the hosts promise in all, CPUs with their over-commitment, less what others than these groups have. */
export function arbitrate(claims: readonly Claim[], capacity: Capacity): Map<string, Grant> {
  const shares = claims.map(shareOf).sort(byPriority);
  const free = { ...capacity };
  for (const share of shares) take(share, Math.min(share.claim.current, share.floor), free);
  for (const share of shares) take(share, share.floor - share.granted, free);
  for (const rank of ranks(shares)) {
    for (const share of fits(rank, free) ? rank : []) take(share, share.target - share.granted, free);
    fill(rank, capacity, free);
  }
  return explain(shares, free);
}

function shareOf(claim: Claim): Share {
  const target = Math.max(claim.wanted, claim.min);
  const kept = claim.lends ? 0 : Math.min(claim.current, target);
  return { claim, target, floor: Math.max(claim.min, kept), granted: 0 };
}

function byPriority(a: Share, b: Share): number {
  return b.claim.priority - a.claim.priority || (a.claim.key < b.claim.key ? -1 : 1);
}

/** Shares of one priority each, highest first. */
function ranks(shares: readonly Share[]): Share[][] {
  const found: Share[][] = [];
  for (const share of shares) {
    const last = found.at(-1);
    if (last?.[0]?.claim.priority === share.claim.priority) last.push(share);
    else found.push([share]);
  }
  return found;
}

/** As many of `count` as there is room for. */
function take(share: Share, count: number, free: Capacity): void {
  const taken = Math.max(0, Math.min(count, roomFor(share.claim.member, free)));
  share.granted += taken;
  free.cpus -= taken * share.claim.member.cpus;
  free.memoryMib -= taken * share.claim.member.memoryMib;
}

/** How many such members fit. */
export function roomFor(member: Capacity, free: Capacity): number {
  const byCpus = member.cpus > 0 ? Math.floor(free.cpus / member.cpus) : Number.POSITIVE_INFINITY;
  const byMemory =
    member.memoryMib > 0 ? Math.floor(free.memoryMib / member.memoryMib) : Number.POSITIVE_INFINITY;
  return Math.max(0, Math.min(byCpus, byMemory));
}

function fits(rank: readonly Share[], free: Capacity): boolean {
  const missing = (of: (member: Capacity) => number) =>
    rank.reduce((sum, share) => sum + (share.target - share.granted) * of(share.claim.member), 0);
  return missing(({ cpus }) => cpus) <= free.cpus && missing(({ memoryMib }) => memoryMib) <= free.memoryMib;
}

/** One member at a time to the group with the smallest share, until all have what they want or nothing fits. */
function fill(rank: readonly Share[], capacity: Capacity, free: Capacity): void {
  const open = new Set(rank.filter((share) => share.granted < share.target));
  while (open.size > 0) {
    let next: Share | undefined;
    for (const share of open) {
      if (!next || dominantShare(share, capacity) < dominantShare(next, capacity)) next = share;
    }
    if (!next) return;
    const before = next.granted;
    take(next, 1, free);
    if (next.granted === before || next.granted >= next.target) open.delete(next);
  }
}

function dominantShare({ claim, granted }: Share, capacity: Capacity): number {
  return granted * Math.max(claim.member.cpus / capacity.cpus, claim.member.memoryMib / capacity.memoryMib);
}

/** Tells what is lent from what is simply not there. */
function explain(shares: readonly Share[], free: Capacity): Map<string, Grant> {
  const grants = new Map<string, Grant>();
  const pool = { ...free };
  const takers: Share[] = [];
  for (const rank of ranks(shares)) {
    for (const share of rank) grants.set(share.claim.key, grantOf(share, pool, takers));
    for (const share of rank) {
      const extra = share.granted - share.floor;
      if (extra <= 0) continue;
      takers.push(share);
      pool.cpus += extra * share.claim.member.cpus;
      pool.memoryMib += extra * share.claim.member.memoryMib;
    }
  }
  return grants;
}

function grantOf({ claim, target, granted }: Share, pool: Capacity, takers: readonly Share[]): Grant {
  const missing = target - granted;
  if (missing === 0) return { granted, lent: 0 };
  const lent = takers.length === 0 || !claim.lends ? 0 : Math.min(missing, roomFor(claim.member, pool));
  pool.cpus -= lent * claim.member.cpus;
  pool.memoryMib -= lent * claim.member.memoryMib;
  const names = takers.slice(0, 3).map((taker) => taker.claim.key);
  const more = takers.length > 3 ? ` and ${takers.length - 3} more` : "";
  const reasons = [
    ...(lent > 0 ? [`${lent} lent to ${names.join(", ")}${more}, of higher priority`] : []),
    ...(missing > lent
      ? [`the hosts lack capacity for ${missing - lent} of ${memberText(claim.member)}`]
      : []),
  ];
  return { granted, lent, reason: `${granted} of ${target}: ${reasons.join("; ")}` };
}

function memberText({ cpus, memoryMib }: Capacity): string {
  return `${cpus} CPU${cpus === 1 ? "" : "s"} and ${memoryMib} MiB`;
}
