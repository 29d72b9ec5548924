/** What is there of a stack, read through the API. */
import type { Client } from "../../client/client.ts";
import { hasCode } from "../../core/errors.ts";
import { type Host, hostKind } from "../../kinds/host.ts";
import type { Kind } from "../../kinds/kind.ts";
import { projectKind } from "../../kinds/project.ts";
import { follow, type Patience, retrying } from "../watching.ts";
import type { Existing } from "./plan-stack.ts";
import { stackKinds } from "./stack-kinds.ts";

/** The project, if there, and all resources of the stack's kinds in it. */
export async function readProject(client: Client, project: string, limits: Patience): Promise<Existing[]> {
  const options = { signal: limits.signal };
  const own = await retrying(() => client.get(projectKind, { name: project }, options), limits);
  if (!own) return [];
  const contents = await Promise.all(
    stackKinds
      .filter((kind) => kind.scope === "project")
      .map(async (kind) => {
        const page = await retrying(() => client.list(kind, { project }, options), limits).catch((error) => {
          if (hasCode(error, "NotFound")) return { items: [] }; // the project went away meanwhile
          throw error;
        });
        return page.items.map((resource): Existing => ({ kind, resource }));
      }),
  );
  return [{ kind: projectKind as Kind, resource: own }, ...contents.flat()];
}

/** A new host's drivers are probed within this time (a proof of KVM takes the longest). */
const probeTimeMs = 30_000;

/**
 * All hosts, as far as the caller may see them. Right after its start a host does not know yet what it can do: then this
 * waits for it.
 */
export async function readHosts(client: Client, limits: Patience): Promise<Host[]> {
  let hosts: Host[] = [];
  const look = (found: ReadonlyMap<string, Host>) => {
    hosts = [...found.values()];
    return !hosts.some(isProbing);
  };
  const deadlineMs = Math.min(limits.deadlineMs, limits.clock.monotonicMs() + probeTimeMs);
  try {
    await follow(client, hostKind, {}, { ...limits, deadlineMs }, look, () => "probing the host");
  } catch (error) {
    limits.signal.throwIfAborted();
    if (!hasCode(error, "Forbidden", "Timeout")) throw error;
  }
  return hosts;
}

function isProbing(host: Host): boolean {
  const drivers = Object.values(host.status.drivers);
  return (host.status.state !== "ready" && drivers.length === 0) || drivers.some((driver) => driver.probing);
}
