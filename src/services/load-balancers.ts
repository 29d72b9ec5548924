import { certificateKind } from "../kinds/certificate.ts";
import { groupKind } from "../kinds/group.ts";
import { instanceKind } from "../kinds/instance.ts";
import type { LoadBalancer, LoadBalancerSpec, LoadBalancerStatus } from "../kinds/load-balancer.ts";
import type { Write } from "../store/store.ts";
import { takeCounts } from "./count-quota.ts";
import type { KindHooks, World } from "./hooks.ts";
import { claimPort, freePort, type PortOwner } from "./host-ports.ts";
import { References } from "./references.ts";

/**
 * A balancer claims the ports of its listeners in the commit that creates or changes it, beside published ports, and
 * names certificates, which then cannot be deleted. What it leads to may come and go: without it, requests are held.
 * `reserved`: TCP ports that the host itself answers on.
 */
export function loadBalancerHooks(
  reserved: () => readonly number[],
): KindHooks<LoadBalancerSpec, LoadBalancerStatus> {
  return {
    async admit(balancer, world, action) {
      const references = await findNamed(balancer, world, action);
      const claims = await claimPorts(balancer, portsOf(balancer), reserved(), world, action);
      const asked = { loadBalancers: 1, hostPorts: portsOf(balancer).length };
      const counts = await takeCounts(world, balancer.metadata.project ?? "", asked, action);
      return { writes: [...references, ...claims, ...counts] };
    },
    async admitUpdate(next, previous, world, action) {
      const [after, before] = [portsOf(next), portsOf(previous)];
      const added = after.filter((port) => !before.includes(port));
      const dropped = before.filter((port) => !after.includes(port));
      const asked = { hostPorts: added.length - dropped.length };
      return [
        ...(await takeCounts(world, next.metadata.project ?? "", asked, action)),
        ...(await findNamed(next, world, action)),
        ...(await claimPorts(next, added, reserved(), world, action)),
        ...dropped.map((port) => freePort({ protocol: "tcp", port })),
      ];
    },
    // Nothing was ever made of it.
    idleFinalizers: (balancer) => (balancer.status.host === undefined ? ["agent"] : []),
    // Not before: until the host has let go of a port, nobody else can listen on it.
    removal: async (balancer) => portsOf(balancer).map((port) => freePort({ protocol: "tcp", port })),
  };
}

function portsOf({ spec }: LoadBalancer): number[] {
  return spec.listeners.map(({ port }) => port);
}

/** @throws Invalid with an error for each name that leads nowhere. */
async function findNamed(balancer: LoadBalancer, world: World, action: string): Promise<Write[]> {
  const { spec, metadata } = balancer;
  const references = new References(world, metadata.project ?? "");
  const known = new Set<string>();
  for (const [index, listener] of spec.listeners.entries()) {
    for (const [place, name] of listener.certificates.entries()) {
      if (known.has(name)) continue;
      known.add(name);
      await references.find(certificateKind, name, `spec.listeners[${index}].certificates[${place}]`);
    }
  }
  if (spec.group !== undefined) await references.peek(groupKind, spec.group, "spec.group");
  for (const [index, name] of (spec.instances ?? []).entries()) {
    await references.peek(instanceKind, name, `spec.instances[${index}]`);
  }
  references.check(action);
  return references.writes();
}

async function claimPorts(
  { metadata, spec }: LoadBalancer,
  ports: readonly number[],
  reserved: readonly number[],
  world: World,
  action: string,
): Promise<Write[]> {
  const { project = "", name, uid } = metadata;
  const owner: PortOwner = { project, name, uid, what: "load balancer" };
  const writes: Write[] = [];
  for (const port of ports) {
    const path = `spec.listeners[${spec.listeners.findIndex((one) => one.port === port)}].port`;
    writes.push(await claimPort({ protocol: "tcp", port }, owner, reserved, world, { path, action }));
  }
  return writes;
}
