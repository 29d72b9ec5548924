/**
 * What is wrong with a group's policies as a whole: calendars against its own min and max and against one another, and steps
 * that would swing.
 */
import type { GroupSpec } from "../group.ts";
import { policyEvents } from "./bounds.ts";
import { compileCalendar } from "./calendar.ts";
import { clashes, type Problem } from "./calendar-rules.ts";
import type { StepPolicy } from "./policy-schema.ts";
import { swing } from "./swing.ts";

type Scaled = Pick<GroupSpec, "min" | "max" | "policies" | "behavior">;

export function scalingProblems(spec: Scaled): Problem[] {
  return spec.policies
    .flatMap((policy, index) => {
      const found =
        policy.type === "calendar"
          ? eventProblems(spec, policy.calendar.events)
          : policy.type === "step"
            ? stepProblems(spec, policy)
            : [];
      return found.map(({ path, message }) => ({ path: ["policies", index, ...path], message }));
    })
    .concat(clashesOfCalendars(spec));
}

function eventProblems(
  spec: Scaled,
  events: readonly { min?: number | undefined; max?: number | undefined }[],
) {
  return events.flatMap(({ min, max }, index): Problem[] => {
    const path = ["calendar", "events", index];
    if (min !== undefined && min > spec.max) {
      return [{ path: [...path, "min"], message: `is ${min}, more than the group's max (${spec.max})` }];
    }
    if (max !== undefined && min === undefined && max < spec.min) {
      const message = `is ${max}, less than the group's min (${spec.min}); give the event a min of at most ${max} too`;
      return [{ path: [...path, "max"], message }];
    }
    return [];
  });
}

/** Of different calendars; each one has been checked by itself. */
function clashesOfCalendars(spec: Scaled): Problem[] {
  const all = policyEvents(spec);
  const policyOf = new Map(all.map(({ policy, event }) => [event, policy]));
  const found = clashes(
    all.map(({ event }) => event),
    (a, b) => policyOf.get(a) !== policyOf.get(b),
  );
  return found.flatMap(({ index, message }) => {
    const one = all[index];
    const at = spec.policies.findIndex(({ name }) => name === one?.policy);
    const policy = spec.policies[at];
    if (!one || policy?.type !== "calendar") return [];
    const place = compileCalendar(policy.calendar).indexOf(one.event);
    return [{ path: ["policies", at, "calendar", "events", place, "min"], message }];
  });
}

function stepProblems(spec: Scaled, policy: StepPolicy): Problem[] {
  const mins = policyEvents(spec).map(({ event }) => event.min ?? spec.min);
  const found = swing(policy, { ...spec, min: Math.min(spec.min, ...mins) });
  return found === undefined ? [] : [{ path: ["steps"], message: found }];
}
