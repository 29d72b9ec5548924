import { instanceKind } from "../kinds/instance.ts";
import type { ResourceOf } from "../kinds/kind.ts";
import { maxPublishedPorts, type PublishedPort, publishedPortKind } from "../kinds/published-port.ts";
import type { Write } from "../store/store.ts";
import { takeCounts } from "./count-quota.ts";
import type { KindHooks, World } from "./hooks.ts";
import { claimPort, freePort } from "./host-ports.ts";
import { conflict } from "./parse.ts";
import { References } from "./references.ts";

type Hooks =
  ResourceOf<typeof publishedPortKind> extends { spec: infer S; status: infer T } ? KindHooks<S, T> : never;

/**
 * Ports of the hosts that lead to instances. They are few an instance, because they go with it in the commit that marks it for deletion.
 * `reserved`: TCP ports that the host itself answers on.
 */
export function publishedPortHooks(reserved: () => readonly number[]): Hooks {
  return {
    async admit(port, world, action) {
      const references = await findInstance(port, world, action);
      const { project = "", name, uid } = port.metadata;
      const owner = { project, name, uid, what: "published port" };
      const from = { path: "spec.port", action };
      const claim = await claimPort(port.spec, owner, reserved(), world, from);
      const counts = await takeCounts(world, project, { hostPorts: 1 }, action);
      return { writes: [...references, claim, ...counts] };
    },
    async admitUpdate(next, previous, world, action) {
      return next.spec.instance === previous.spec.instance ? [] : findInstance(next, world, action);
    },
    removal: async ({ spec }) => [freePort(spec)],
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
