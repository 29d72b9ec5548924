/** Waiting for what an agent makes of a change. */
import type { Client } from "../../client/client.ts";
import { StrataError } from "../../core/errors.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import type { Session } from "../command.ts";
import { FailureGrace } from "../failure-grace.ts";
import { kindTitle } from "../resolve.ts";
import { follow, patience } from "../watching.ts";

interface Settling {
  state: string;
  message: string;
  observedGeneration: number;
}

/** Until it is in one of `states`, and `done`, unless --no-wait. @throws Unavailable when it stays failed; NotFound when it went away. */
export async function awaitState<S, T extends Settling>(
  client: Client,
  session: Session,
  kind: Kind<S, T>,
  resource: Resource<S, T>,
  states: readonly T["state"][],
  done: (resource: Resource<S, T>) => boolean = () => true,
): Promise<Resource<S, T>> {
  const { name, uid, project, generation } = resource.metadata;
  const title = `${kindTitle(kind)} "${name}"`;
  let last = resource;
  if (!session.wait) return last;
  const grace = new FailureGrace(patience(session));
  const scope = project === undefined ? {} : { project };
  const look = (seen: ReadonlyMap<string, Resource<S, T>>) => {
    const found = [...seen.values()].find((one) => one.metadata.uid === uid);
    if (!found) throw new StrataError("NotFound", `${title} was deleted meanwhile`);
    last = found;
    if (found.status.observedGeneration < generation) return false;
    const { state, message } = found.status;
    grace.saw(title, state === "failed" ? `${title} is not in force: ${message}` : undefined);
    return states.includes(state) && done(found);
  };
  const waitingFor = () => {
    const { message } = last.status;
    return `waiting for ${title} to become ${states.join(" or ")}${message === "" ? "" : ` (${message})`}`;
  };
  try {
    await follow(client, kind, scope, grace.limits, look, waitingFor);
  } finally {
    grace.end();
  }
  return last;
}
