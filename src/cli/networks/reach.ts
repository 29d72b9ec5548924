/**
 * Where a person finds an instance: its own address where the host's routes lead to it, else an address or a port that
 * is published for it. Pure.
 */
import type { Client } from "../../client/client.ts";
import type { Address } from "../../kinds/address.ts";
import { addressKind } from "../../kinds/address.ts";
import type { Instance } from "../../kinds/instance.ts";
import { type Network, networkKind } from "../../kinds/network.ts";
import { type PublishedPort, publishedPortKind } from "../../kinds/published-port.ts";
import { addressesOf, publishedPortsOf, targetPortOf } from "../../kinds/reachability/publication.ts";
import { emptyWorld, type NetworkWorld, named, projectOf } from "../../kinds/reachability/world.ts";
import type { Target } from "../command.ts";
import { listVisible, type Scope } from "./read-world.ts";

type Service = Instance["spec"]["services"][number];

export interface Reach {
  /** Of its own card; empty before it has one. */
  address(instance: Instance): string;
  /** Of the services that speak HTTP and can be reached. */
  urls(instance: Instance): string[];
  /** What would make the first of them reachable; empty when it is, or when there is none. */
  hint(instance: Instance): string;
  /** Where ssh goes: `bind` is the address to send from. */
  ssh(instance: Instance): { host: string; port?: number; bind?: string } | undefined;
}

/** `hostName`: of the machine with the published ports, as seen from here; `local`: the caller is on it. */
export function reachOf(
  known: {
    networks: readonly Network[];
    addresses: readonly Address[];
    publishedPorts: readonly PublishedPort[];
  },
  { hostName, local }: { hostName: string; local: boolean },
): Reach {
  const world: NetworkWorld = { ...emptyWorld, ...known };
  const floating = (instance: Instance) => addressesOf(world, instance)[0]?.status.ipAddress;
  const own = (instance: Instance) => instance.status.nic?.ipAddress;
  const published = (instance: Instance, port: number) =>
    publishedPortsOf(world, instance).find(
      (one) => one.spec.protocol === "tcp" && targetPortOf(one) === port,
    );
  const networkOf = (instance: Instance) =>
    named(world.networks, projectOf(instance), instance.status.nic?.network ?? instance.spec.network);
  /** A network that cannot be seen is taken for one that is routed, as each project's first is. */
  const isRouted = (instance: Instance) => networkOf(instance)?.status.hostRoute ?? true;
  const placeOf = (instance: Instance, port: number) => {
    const address = floating(instance);
    if (address !== undefined) return { host: address, port };
    const opened = published(instance, port);
    const direct = isRouted(instance) ? own(instance) : undefined;
    if (opened && (!local || direct === undefined)) return { host: hostName, port: opened.spec.port };
    return direct === undefined ? undefined : { host: direct, port };
  };
  const web = (instance: Instance) => instance.spec.services.filter(({ protocol }) => protocol !== "tcp");
  const urls = (instance: Instance) =>
    web(instance).flatMap((service) => {
      const place = placeOf(instance, service.port);
      return place ? [urlOf(service, place)] : [];
    });
  return {
    address: (instance) => own(instance) ?? "",
    urls,
    hint: (instance) => {
      const [first] = web(instance);
      if (!first || own(instance) === undefined || urls(instance).length > 0) return "";
      return `(strata publish ${first.port} ${instance.metadata.name})`;
    },
    ssh: (instance) => {
      const address = own(instance);
      if (address === undefined) return undefined;
      if (local && isRouted(instance)) return { host: address };
      const bind = networkOf(instance)?.status.hostAddresses[instance.status.host ?? ""];
      if (local && bind !== undefined) return { host: address, bind };
      const place = placeOf(instance, 22);
      if (!place) return { host: address };
      return place.port === 22 ? { host: place.host } : place;
    },
  };
}

function urlOf({ protocol, path }: Service, { host, port }: { host: string; port: number }): string {
  const usual = (protocol === "http" && port === 80) || (protocol === "https" && port === 443);
  return `${protocol}://${host}${usual ? "" : `:${port}`}${path}`;
}

export async function readReach(
  client: Client,
  scope: Scope,
  target: Target,
  signal: AbortSignal,
): Promise<Reach> {
  const [networks, addresses, publishedPorts] = await Promise.all([
    listVisible(client, networkKind, scope, signal),
    listVisible(client, addressKind, scope, signal),
    listVisible(client, publishedPortKind, scope, signal),
  ]);
  const local = target.url === undefined;
  const hostName = target.url === undefined ? "localhost" : new URL(target.url).hostname;
  return reachOf({ networks, addresses, publishedPorts }, { hostName, local });
}
