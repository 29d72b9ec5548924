/** The pool of members that run and get no requests until they are needed. Pure. */
import type { Scene } from "./plan.ts";
import { discard, isReady, type ServingPlan } from "./plan-serving.ts";
import type { GroupAction } from "./world.ts";

/** Comes after who serves: `serving` says what is left to create, and who was taken from the pool. */
export function planWarm(scene: Scene, serving: ServingPlan): GroupAction[] {
  const { group, version, members } = scene;
  const want = scene.scarce ? 0 : group.spec.warm;
  const pool = members.filter((member) => member.phase === "warm" && !serving.promoted.has(member));
  const broken = pool.filter(({ health }) => health === "failed" || health === "unhealthy");
  const sound = pool.filter((member) => !broken.includes(member));
  const old = sound.filter(({ revision }) => revision !== version.revision);
  const current = sound.filter(({ revision }) => revision === version.revision);
  const proven =
    group.status.desired === 0 || members.some((one) => one.revision === version.revision && isReady(one));
  const replaced = sound.filter(isReady).length >= want;
  const gone = broken.filter(({ lost }) => !lost || replaced);
  const actions: GroupAction[] = gone.map((member) => discard(group, member));
  const remove = (member: (typeof pool)[number], reason: string) =>
    actions.push({ type: "remove", group, member: member.instance, reason, failed: false });
  // One version replaces the other only once it works, so that a broken one does not empty the pool.
  const outdated = proven ? old : [];
  for (const member of outdated) remove(member, "it is of an old version");
  const kept = current.length + old.length - outdated.length;
  const surplus = [...old.slice(outdated.length), ...current].sort(
    (a, b) =>
      Number(current.includes(a)) - Number(current.includes(b)) ||
      Number(isReady(a)) - Number(isReady(b)) ||
      b.createdAt - a.createdAt,
  );
  for (const member of surplus.slice(0, Math.max(0, kept - want))) {
    remove(member, scene.scarce ? "capacity is short" : `${want} warm members are wanted`);
  }
  const count = Math.min(serving.mayCreate, want - kept);
  if (count > 0) {
    const { revision, template } = version;
    actions.push({ type: "create", group, phase: "warm", count, revision, template });
  }
  return actions;
}
