/** The members that serve: how many, of which version, and who makes room for whom. Pure. */
import type { Member } from "./classify.ts";
import type { Scene } from "./plan.ts";
import type { GroupAction } from "./world.ts";

export interface ServingPlan {
  actions: GroupAction[];
  /** Members that may still be created in this round. */
  mayCreate: number;
  /** Warm members that were taken from the pool. */
  promoted: ReadonlySet<Member>;
}

export function planServing(scene: Scene): ServingPlan {
  const { group, version } = scene;
  const serving = scene.members.filter(({ phase }) => phase === "serving");
  const parked = version.frozen ? serving.filter((member) => isParked(member, scene)) : [];
  const counted = serving.filter((member) => !parked.includes(member));
  const broken = counted.filter(({ health }) => health === "failed" || health === "unhealthy");
  const sound = counted.filter((member) => !broken.includes(member));
  const want = group.status.desired;
  const old = sound.filter(({ revision }) => revision !== version.revision);
  const surge = version.frozen ? 0 : Math.min(group.spec.update.maxSurge, old.length, want);
  const more = grow(scene, Math.max(0, want + surge - sound.length));
  return {
    actions: [
      ...heal(scene, broken, sound),
      ...more.actions,
      ...shrink(scene, sound).map(({ member, reason }) => leave(scene, member, reason)),
    ],
    mayCreate: more.mayCreate,
    promoted: more.promoted,
  };
}

/** Of the version that failed, and not working: left alone for a person to look at. */
function isParked({ revision, health }: Member, { version }: Scene): boolean {
  return revision === version.failed?.revision && health !== "ready";
}

/** In this order: who is just leaving, warm members, new ones. */
function grow(scene: Scene, missing: number): ServingPlan {
  const { group, version, members, mayCreate } = scene;
  const current = members.filter(({ revision }) => revision === version.revision);
  const back = current.filter(({ phase, health }) => phase === "draining" && health === "ready");
  const returning = back.slice(0, missing);
  const usable = (member: Member) =>
    member.phase === "warm" && (isReady(member) || member.health === "starting");
  const pool = current.filter(usable).sort((a, b) => Number(isReady(b)) - Number(isReady(a)));
  const promoted = pool.slice(0, missing - returning.length);
  const count = Math.min(mayCreate, missing - returning.length - promoted.length);
  const actions: GroupAction[] = [
    ...returning.map((member) => phase(scene, member, "serving", "it is needed after all")),
    ...promoted.map((member) => phase(scene, member, "serving", "it is needed")),
  ];
  if (count > 0) {
    const { revision, template } = version;
    actions.push({ type: "create", group, phase: "serving", count, revision, template });
  }
  return { actions, mayCreate: mayCreate - Math.max(0, count), promoted: new Set(promoted) };
}

/**
 * What is lost with its host is marked only once as many as desired work without it: no room is made by that, and the host
 * may be back first. What has failed goes at once. What was healthy once goes when its successor works, or earlier where the surge leaves no room
 * for both, or the hosts do.
 */
function heal({ group, members }: Scene, broken: readonly Member[], sound: readonly Member[]): GroupAction[] {
  const want = group.status.desired;
  const lacksRoom = members.some((member) => member.unplaced);
  const replaced = sound.filter(isReady).length >= want;
  const surplus = Math.max(0, sound.length - want);
  let stays = replaced || lacksRoom ? 0 : Math.max(0, group.spec.update.maxSurge - surplus);
  return broken.flatMap((member): GroupAction[] => {
    if (member.lost && !replaced) return [];
    if (member.health === "unhealthy" && !member.lost && stays > 0) {
      stays--;
      return [];
    }
    return [discard(group, member)];
  });
}

export function discard(group: Scene["group"], member: Member): GroupAction {
  const failed = member.readyAt === undefined && !member.lost;
  return {
    type: "remove",
    group,
    member: member.instance,
    reason: `it does not work: ${member.why}`,
    failed,
  };
}

/**
 * Who leaves: first who is not ready, then who is of an old version, then the youngest (the oldest have proven themselves, and
 * have what they cache). Who works leaves only while as many as desired work without it.
 */
function shrink({ group, version }: Scene, sound: readonly Member[]) {
  const want = group.status.desired;
  const isOld = (member: Member) => member.revision !== version.revision;
  const updating = sound.some(isOld);
  const works = (member: Member) => isReady(member) && (isOld(member) || !updating || member.settled);
  let surplus = sound.length - want;
  let working = sound.filter(works).length;
  let current = sound.filter((member) => !isOld(member)).length;
  const leaving: { member: Member; reason: string }[] = [];
  const order = sound.toSorted(
    (a, b) =>
      Number(isReady(a)) - Number(isReady(b)) ||
      Number(isOld(b)) - Number(isOld(a)) ||
      b.createdAt - a.createdAt ||
      (a.instance.metadata.uid < b.instance.metadata.uid ? 1 : -1),
  );
  for (const member of order) {
    if (surplus <= 0) break;
    const mustWork = works(member);
    if (mustWork && working <= want) continue;
    // A successor that has not come up yet is needed as long as there is somebody to succeed.
    if (!mustWork && !isOld(member) && current <= want) continue;
    leaving.push({ member, reason: reasonOf(member, isOld(member), want) });
    surplus--;
    if (mustWork) working--;
    if (!isOld(member)) current--;
  }
  return leaving;
}

function reasonOf(member: Member, old: boolean, want: number): string {
  const why = !isReady(member)
    ? "it is not ready yet"
    : old
      ? "it is of an old version"
      : "it is the youngest";
  return `${want} members are desired and ${why}`;
}

/** Gets no new requests; or goes at once where it cannot have any. */
export function leave(scene: Scene, member: Member, reason: string): GroupAction {
  if (scene.hasBalancer && isReady(member)) return phase(scene, member, "draining", reason);
  return { type: "remove", group: scene.group, member: member.instance, reason, failed: false };
}

function phase({ group }: Scene, member: Member, next: Member["phase"], reason: string): GroupAction {
  return { type: "set-phase", group, member: member.instance, phase: next, reason };
}

export function isReady({ health }: Member): boolean {
  return health === "ready";
}
