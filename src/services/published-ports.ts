import { instanceKind } from "../kinds/instance.ts";
import type { ResourceOf } from "../kinds/kind.ts";
import { maxPublishedPorts, type PublishedPort, publishedPortKind } from "../kinds/published-port.ts";
import type { Write } from "../store/store.ts";
import type { KindHooks, World } from "./hooks.ts";
import { conflict } from "./parse.ts";
import { References } from "./references.ts";

type Hooks =
  ResourceOf<typeof publishedPortKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/**
 * Ports of the hosts, each once in the whole cluster: a key each, `/allocations/ports/PROTOCOL/PORT`. They are few an
 * instance, because they go with it in the commit that marks it for deletion.
 * `reserved`: TCP ports that the host itself answers on.
 */
export function publishedPortHooks(reserved: () => readonly number[]): Hooks {
  return {
    async admit(port, world, action) {
      const references = await findInstance(port, world, action);
      return { writes: [...references, await claim(port, reserved(), world, action)] };
    },
    async admitUpdate(next, previous, world, action) {
      return next.spec.instance === previous.spec.instance ? [] : findInstance(next, world, action);
    },
    removal: async ({ spec }) => [{ delete: keyOf(spec) }],
  };
}

/** @throws Invalid, Conflict */
async function findInstance(port: PublishedPort, world: World, action: string): Promise<Write[]> {
  const { name, project = "" } = port.metadata;
  const { instance } = port.spec;
  const path = "spec.instance";
  const references = new References(world, project);
  await references.findAlone(instanceKind, instance, path);
  references.check(action);
  let count = 0;
  for await (const other of world.scan(publishedPortKind, project)) {
    if (other.spec.instance === instance && other.metadata.name !== name) count++;
  }
  if (count >= maxPublishedPorts) {
    throw conflict(action, {
      path,
      message: `is "${instance}", to which ${count} published ports lead already`,
      allowed: `at most ${maxPublishedPorts}; give the instance an address, which leads to all of its ports`,
    });
  }
  return references.writes();
}

async function claim(
  { spec, metadata }: PublishedPort,
  reserved: readonly number[],
  world: World,
  action: string,
): Promise<Write> {
  const { project = "", name, uid } = metadata;
  const path = "spec.port";
  const what = `is ${spec.port}/${spec.protocol}, which`;
  const allowed = "a port that nobody has";
  if (spec.protocol === "tcp" && reserved.includes(spec.port)) {
    throw conflict(action, { path, message: `${what} this host itself answers on (SSH, Strata)`, allowed });
  }
  const entry = await world.store.get(keyOf(spec));
  if (entry) {
    const owner = entry.value as { project: string; name: string };
    // Whose it is concerns its own project only.
    const who = owner.project === project ? `published port "${owner.name}" has` : "another project has";
    throw conflict(action, { path, message: `${what} ${who} already`, allowed });
  }
  return { put: keyOf(spec), value: { project, name, uid }, ifRevision: 0 };
}

function keyOf({ protocol, port }: Pick<PublishedPort["spec"], "protocol" | "port">): string {
  return `/allocations/ports/${protocol}/${port}`;
}
