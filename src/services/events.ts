import type { Clock } from "../core/clock.ts";
import { describeError } from "../core/errors.ts";
import { newUid, shortId } from "../core/ids.ts";
import type { Logger } from "../core/logger.ts";
import type { Random } from "../core/random.ts";
import { type Event, eventKind } from "../kinds/event.ts";
import type { Resource } from "../kinds/kind.ts";
import { systemPrincipal } from "./principal.ts";
import type { Resources } from "./resources.ts";

/** A name that no other event has; names of one project sort by time. */
function eventName(clock: Clock, random: Random): string {
  return `e${clock.now().toString(36).padStart(9, "0")}-${shortId(newUid(random))}`;
}

/** Tells people what happened to a resource. Never throws: nothing may depend on an event. */
export type RecordEvent = (
  subject: Resource,
  event: Pick<Event["spec"], "severity" | "reason" | "message">,
) => Promise<void>;

export function createRecordEvent(parts: {
  resources: Resources;
  clock: Clock;
  random: Random;
  logger: Logger;
}): RecordEvent {
  const { resources, clock, random, logger } = parts;
  return async (subject, event) => {
    const { name, uid, project } = subject.metadata;
    if (project === undefined) return;
    const spec = {
      ...event,
      message: event.message.slice(0, 1024),
      subject: { kind: subject.kind, name, uid },
    };
    try {
      await resources.create(systemPrincipal, eventKind, { name: eventName(clock, random), project, spec });
    } catch (error) {
      logger.warn({ project, subject: name, error: describeError(error) }, "an event was not recorded");
    }
  };
}
