/** Addresses and ports of the host that stand for an instance. Pure. */
import type { Address } from "../address.ts";
import type { Instance } from "../instance.ts";
import type { PublishedPort } from "../published-port.ts";
import { type Card, type NetworkWorld, named, ownCard, projectOf } from "./world.ts";

/** The published port that is this port of the host, whosever it is. */
export function publishedBy(
  world: NetworkWorld,
  protocol: string,
  port: number | undefined,
): PublishedPort | undefined {
  return world.publishedPorts.find((one) => one.spec.protocol === protocol && one.spec.port === port);
}

/** A port of the host that leads to this port of the instance. */
export function publishedFor(
  world: NetworkWorld,
  instance: Instance,
  protocol: string,
  port: number | undefined,
): PublishedPort | undefined {
  return publishedPortsOf(world, instance).find(
    (one) => one.spec.protocol === protocol && targetPortOf(one) === port,
  );
}

export function publishedPortsOf(world: NetworkWorld, instance: Instance): PublishedPort[] {
  return world.publishedPorts.filter((one) => leadsTo(one, instance));
}

export function addressesOf(world: NetworkWorld, instance: Instance): Address[] {
  return world.addresses.filter((one) => leadsTo(one, instance));
}

export function targetPortOf({ spec }: PublishedPort): number {
  return spec.targetPort ?? spec.port;
}

function leadsTo(one: Address | PublishedPort, instance: Instance): boolean {
  return projectOf(one) === projectOf(instance) && one.spec.instance === instance.metadata.name;
}

/** Where what comes to it goes on to: an instance's own card. `port`: what the destination port becomes. */
export function translationTo(
  world: NetworkWorld,
  published: Address | PublishedPort,
): { card?: Card; port?: number; text: string } {
  const { name: own } = published.metadata;
  const { instance: name } = published.spec;
  const port = isPort(published) ? published.spec.port : undefined;
  const title = isPort(published)
    ? `published port ${own} (${published.spec.protocol} ${port} of the host)`
    : `address ${own} (${published.status.ipAddress ?? "none yet"})`;
  if (name === undefined) return { text: `${title} belongs to no instance` };
  const instance = named(world.instances, projectOf(published), name);
  const card = instance && ownCard(instance);
  if (!card) return { text: `${title} leads to ${name}, which has no network card yet` };
  const target = isPort(published) ? targetPortOf(published) : undefined;
  const to = target === undefined ? card.ipAddress : `${card.ipAddress} port ${target}`;
  return {
    card,
    ...(target === undefined ? {} : { port: target }),
    text: `${title} leads to ${name}: ${to}; the source address stays`,
  };
}

function isPort(published: Address | PublishedPort): published is PublishedPort {
  return published.kind === "PublishedPort";
}
