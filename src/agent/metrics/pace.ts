/** How often is who measured, pure. A tick is a second. */

/** Instances of no group, and the host. */
export const slowTicks = 10;
/** Members of groups measured in one tick: with more of them on the host, each has its turn less often. */
const membersPerTick = 100;

/** Ticks between two measurements of a member of a group: 1 for few, so that policies can act at once. */
export function memberTicks(members: number): number {
  return Math.min(slowTicks, Math.max(1, Math.ceil(members / membersPerTick)));
}

/** `uid`: not all have their turn in the same tick, so that the work is the same in each. */
export function isDue(tick: number, everyTicks: number, uid = ""): boolean {
  return (tick + placeOf(uid)) % everyTicks === 0;
}

/** The last characters of a uid are as random as the others. */
function placeOf(uid: string): number {
  const { length } = uid;
  return length < 2 ? 0 : uid.charCodeAt(length - 1) * 7 + uid.charCodeAt(length - 2);
}
