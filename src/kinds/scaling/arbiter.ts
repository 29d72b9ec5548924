/**
 * Shares the hosts' capacity among groups. In this order:
 *
 * 1. What nobody may take away: each group's members up to its minimum, then all members of a group that does not lend, up to
 *    what it was given before.
 * 2. What is missing to the minimums, higher priority first.
 * 3. What a group that does not lend was given before and has no member for yet, or at the moment.
 * 4. What policies want beyond, higher priority first; groups of one priority get their next member in turn, the one with the
 *    smallest share of the hosts first (dominant resource fairness, Ghodsi et al., NSDI 2011).
 *
 * Members come and go all the time: one is replaced, others leave. Where minimums are met, what exists at the moment (`current`)
 * changes no answer; what was given before (`given`) does so only for groups that do not lend. So nothing goes back and forth,
 * and what was lent returns as soon as the need of the taker ends.
 *
 * Invariants: never beyond capacity in CPUs or memory (but for members of step 1 when hosts were lost: see `granted`); never
 * more than the larger of wanted and min. Capacity is that of all hosts together; whether a member fits on one of them is
 * placement's question.
 */

export interface Claim {
  /** Unique: the group's uid, or project and name. */
  key: string;
  /** What reasons call it; left out: `key`. One of another project is not named to those of this one. */
  name?: string;
  project?: string;
  /** In force now, as boundsAt has it. */
  min: number;
  /** Its own minimum, without calendars: what it has beyond that, others lend to it. Left out: `min`. */
  usual?: number;
  /** What it is to have by its policies: `Decision.desired`. */
  wanted: number;
  /** Members it has promised capacity for now, on a host; draining ones count. */
  current: number;
  /** What it was to have by the last answer: a group that does not lend keeps that, and no more. Left out: `current`. */
  given?: number;
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
   * are cut as well: first those beyond minimums, lowest priority first.
   */
  granted: number;
  /**
   * Of those missing to what it wants, what others have instead: beyond their minimum with a higher priority, or because a
   * calendar raised their minimum.
   */
  lent: number;
  /** Keys of the groups it lends to, the one that has most of it first; at most `maxTakers` are named. */
  takers?: string[];
  /** Why it gets less than it wants. */
  reason?: string;
}

export const maxTakers = 3;

interface Share {
  claim: Claim;
  /** The larger of wanted and min. */
  target: number;
  /** What it was given and does not lend. */
  kept: number;
  granted: number;
}

/** `capacity`: what the hosts promise in all, CPUs with their over-commitment, less what others than these groups have. */
export function arbitrate(claims: readonly Claim[], capacity: Capacity): Map<string, Grant> {
  const shares = claims.map(shareOf).sort(byPriority);
  const free = { ...capacity };
  const fill = (share: Share, upTo: number) => take(share, upTo - share.granted, free);
  // Where hosts were lost, minimums outlast what others keep beyond theirs.
  for (const share of shares) fill(share, Math.min(share.claim.current, share.claim.min));
  for (const share of shares) fill(share, Math.min(share.claim.current, share.kept));
  for (const share of shares) fill(share, share.claim.min);
  for (const share of shares) fill(share, share.kept);
  for (const rank of ranks(shares)) {
    for (const share of fits(rank, free) ? rank : []) fill(share, share.target);
    fillInTurn(rank, capacity, free);
  }
  return explain(shares, free);
}

function shareOf(claim: Claim): Share {
  const target = Math.max(claim.wanted, claim.min);
  const { current, given = current, lends } = claim;
  return { claim, target, kept: lends ? 0 : Math.min(given, target), granted: 0 };
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
  add(free, share.claim.member, -taken);
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
function fillInTurn(rank: readonly Share[], capacity: Capacity, free: Capacity): void {
  let open = rank
    .filter((share) => share.granted < share.target)
    .map((share) => ({ share, part: share.granted * partOf(share.claim.member, capacity) }));
  while (open.length > 0) {
    const next = open.reduce((smallest, one) => (one.part < smallest.part ? one : smallest));
    const before = next.share.granted;
    take(next.share, 1, free);
    next.part = next.share.granted * partOf(next.share.claim.member, capacity);
    if (next.share.granted === before || next.share.granted >= next.share.target) {
      open = open.filter((one) => one !== next);
    }
  }
}

/** What one member takes of the hosts, of CPUs or memory, whichever is more. */
function partOf(member: Capacity, capacity: Capacity): number {
  return Math.max(member.cpus / capacity.cpus, member.memoryMib / capacity.memoryMib);
}

/** Tells what is lent from what is simply not there. `free`: what nobody got. */
function explain(shares: readonly Share[], free: Capacity): Map<string, Grant> {
  const grants = new Map<string, Grant>();
  const left = { ...free };
  for (const rank of ranks(shares)) {
    let borrowed: Borrowed | undefined;
    for (const share of rank) {
      const { target, granted, claim } = share;
      if (granted === target) grants.set(claim.key, { granted, lent: 0 });
      else {
        borrowed ??= borrowedFrom(claim.priority, shares);
        grants.set(claim.key, shortGrant(share, borrowed, left));
      }
    }
  }
  return grants;
}

/** What all others have beyond what is usual for them, and groups of one priority could have otherwise. */
interface Borrowed {
  /** The one that has most first. */
  takers: { share: Share; members: number }[];
  total: Capacity;
}

function borrowedFrom(priority: number, shares: readonly Share[]): Borrowed {
  const takers: Borrowed["takers"] = [];
  const total = { cpus: 0, memoryMib: 0 };
  for (const share of shares) {
    const members = beyondUsual(share, priority);
    if (members === 0) continue;
    takers.push({ share, members });
    add(total, share.claim.member, members);
  }
  return { takers: takers.sort((a, b) => b.members - a.members), total };
}

/** A raised minimum goes before everybody's wishes, the rest before those of lower priority only. */
function beyondUsual({ claim, granted }: Share, priority: number): number {
  const { min, usual = min } = claim;
  return Math.max(0, (claim.priority > priority ? granted : Math.min(granted, min)) - usual);
}

/** `left` is what nobody got, less what lenders before were told to lend: it may be negative. */
function shortGrant(share: Share, { takers, total }: Borrowed, left: Capacity): Grant {
  const { claim, target, granted } = share;
  const missing = target - granted;
  const named = takers.slice(0, maxTakers + 1).filter((taker) => taker.share !== share);
  const pool = { cpus: left.cpus + total.cpus, memoryMib: left.memoryMib + total.memoryMib };
  add(pool, claim.member, -beyondUsual(share, claim.priority));
  // What is missing to its minimum it does not lend: that is not there.
  const lendable = claim.lends && named.length > 0 ? target - Math.max(granted, claim.min) : 0;
  const lent = Math.min(lendable, roomFor(claim.member, pool));
  add(left, claim.member, -lent);
  const keys = lent === 0 ? [] : named.slice(0, maxTakers).map((taker) => taker.share.claim.key);
  const names = new Set(named.slice(0, maxTakers).map((taker) => nameFor(claim, taker.share.claim)));
  const others = named.length > maxTakers ? " and others" : "";
  const reasons = [
    ...(lent > 0 ? [`${lent} lent to ${[...names].join(", ")}${others}`] : []),
    ...(missing > lent
      ? [`the hosts lack capacity for ${missing - lent} of ${memberText(claim.member)}`]
      : []),
  ];
  return {
    granted,
    lent,
    ...(lent > 0 ? { takers: keys } : {}),
    reason: `${granted} of ${target}: ${reasons.join("; ")}`,
  };
}

function nameFor(reader: Claim, { key, name, project }: Claim): string {
  return project === reader.project ? (name ?? key) : "another project";
}

function add(to: Capacity, member: Capacity, members: number): void {
  to.cpus += member.cpus * members;
  to.memoryMib += member.memoryMib * members;
}

function memberText({ cpus, memoryMib }: Capacity): string {
  return `${cpus} CPU${cpus === 1 ? "" : "s"} and ${memoryMib} MiB`;
}
