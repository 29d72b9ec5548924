/** What a group's status says of its members. Pure. */
import { toTimestamp } from "../../core/clock.ts";
import type { GroupStatus } from "../../kinds/group.ts";
import type { Member } from "./classify.ts";
import type { Scene } from "./plan.ts";
import { isReady } from "./plan-serving.ts";
import type { GroupReport } from "./world.ts";

export function reportOf(scene: Scene): GroupReport {
  const { group, members, version } = scene;
  const serving = members.filter(({ phase }) => phase === "serving");
  const stable = stableOf(scene, serving);
  const { state, message } = stateOf(scene, serving);
  return {
    state,
    message: message.slice(0, 1024),
    observedGeneration: Math.min(group.metadata.generation, scene.decided),
    members: serving.length,
    ready: serving.filter(isReady).length,
    warm: members.filter((member) => member.phase === "warm" && isReady(member)).length,
    revision: version.revision,
    ...(stable ? { stable } : {}),
    ...(version.failed ? { failedRevision: version.failed.revision } : {}),
  };
}

/** The version that all members have, once they work; before that, the one that was it last. */
function stableOf({ group, version }: Scene, serving: readonly Member[]): GroupStatus["stable"] {
  const { desired, stable } = group.status;
  const proven =
    desired > 0 &&
    !version.failed &&
    serving.length === desired &&
    serving.every((member) => member.settled && member.revision === version.revision);
  return proven ? { revision: version.revision, template: version.template } : stable;
}

function stateOf(
  { group, members, version, scarce, pause }: Scene,
  serving: readonly Member[],
): Pick<GroupStatus, "state" | "message"> {
  const { desired, shortage } = group.status;
  if (version.failed) return { state: "stopped", message: version.failed.message };
  const ready = serving.filter(isReady).length;
  const unplaced = members.find((member) => member.unplaced);
  if (shortage !== undefined) return { state: "short", message: shortage };
  if (unplaced) {
    const { name } = unplaced.instance.metadata;
    return { state: "short", message: `${name}: ${unplaced.why}` };
  }
  const current = serving.filter(({ revision }) => revision === version.revision);
  const progress = `${ready} of ${desired} ready`;
  const waiting = serving.find((member) => !isReady(member));
  const why = waiting?.why ? `; ${waiting.instance.metadata.name}: ${waiting.why}` : "";
  if (current.length < serving.length) {
    const settled = current.filter((member) => member.settled).length;
    return {
      state: "updating",
      message: `${settled} of ${desired} of version ${version.revision}; ${progress}${why}`,
    };
  }
  if (pause && ready < desired) {
    const next = toTimestamp(pause.until);
    return {
      state: "scaling",
      message: `${progress}; members fail, the next one is made at ${next}: ${pause.why}`,
    };
  }
  const settledDown = serving.length === desired && ready === desired;
  const warm = members.filter((member) => member.phase === "warm" && isReady(member)).length;
  const leaving = members.length - serving.length - members.filter(({ phase }) => phase === "warm").length;
  if (!settledDown) return { state: "scaling", message: `${progress}${why}` };
  if (leaving > 0) return { state: "scaling", message: `${leaving} finish what they are doing` };
  if (warm < group.spec.warm && !scarce) {
    return { state: "scaling", message: `${warm} of ${group.spec.warm} warm members ready` };
  }
  return { state: "steady", message: "" };
}
