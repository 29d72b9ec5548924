import fc from "fast-check";
import { expect, test } from "vitest";
import { StrataError } from "../core/errors.ts";
import { contains, overlaps, parseIp, parseRange } from "../core/ip-range.ts";
import { type Address, addressKind } from "../kinds/address.ts";
import { type Instance, instanceKind } from "../kinds/instance.ts";
import { resourcePrefix } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import { type Network, networkKind } from "../kinds/network.ts";
import { maxCards, type NetworkInterface, networkInterfaceKind } from "../kinds/network-interface.ts";
import { type Peering, peeringKind } from "../kinds/peering.ts";
import { projectKind } from "../kinds/project.ts";
import { type PublishedPort, publishedPortKind } from "../kinds/published-port.ts";
import { type RouteTable, routeTableKind } from "../kinds/route-table.ts";
import { type SecurityGroup, securityGroupKind } from "../kinds/security-group.ts";
import { fromStored } from "../kinds/stored.ts";
import { type Subnet, subnetKind } from "../kinds/subnet.ts";
import type { Store } from "../store/store.ts";
import { systemPrincipal as system } from "./principal.ts";
import type { Services } from "./services.ts";
import { createImage, testServices } from "./testing.ts";

/**
 * Users of two projects who create, change and delete at random, several at once. Whatever is refused: what stands is
 * whole. Every name leads somewhere, every allocation has its owner and every owner its allocation.
 */

type Verb = "create" | "patch" | "delete";
interface Command {
  verb: Verb;
  kind: Kind;
  project: string;
  name: string;
  spec: object;
}

const projects = ["left", "right"];
const kinds = [
  networkKind,
  subnetKind,
  routeTableKind,
  peeringKind,
  securityGroupKind,
  instanceKind,
  networkInterfaceKind,
  addressKind,
  publishedPortKind,
] as unknown as Kind[];

const names = fc.constantFrom("a", "b", "c");
const maybe = <T>(value: fc.Arbitrary<T>) => fc.option(value, { nil: undefined });
const networks = fc.constantFrom("a", "b", "c", "default");
const groups = fc.uniqueArray(fc.constantFrom("a", "b", "default"), { maxLength: 2 });

const specs: Readonly<Record<string, fc.Arbitrary<object>>> = {
  Network: fc.record({
    cidr: fc.constantFrom("10.1.0.0/16", "10.2.0.0/16", "10.1.0.0/20"),
    subnets: fc.constantFrom("custom", "custom", "auto"),
    hostRoute: maybe(fc.boolean()),
  }),
  Subnet: fc.record({
    network: names,
    cidr: fc.constantFrom("10.1.0.0/29", "10.1.0.0/24", "10.1.1.0/29", "10.2.0.0/29"),
    routeTable: maybe(names),
  }),
  RouteTable: fc.record({
    network: names,
    routes: fc.array(
      names.map((via) => ({ destination: "10.9.0.0/16", target: "peering", via })),
      { maxLength: 1 },
    ),
  }),
  Peering: fc.record({
    network: networks,
    peerNetwork: networks,
    peerProject: maybe(fc.constantFrom(...projects)),
  }),
  SecurityGroup: fc.record({
    ingress: groups.map((all) => all.map((group) => ({ protocol: "any", group }))),
  }),
  Instance: fc.record({
    type: fc.constant("container"),
    image: fc.constant("debian"),
    network: networks,
    subnet: fc.constantFrom(undefined, undefined, undefined, "a", "b"),
    ipAddress: fc.constantFrom(undefined, undefined, undefined, "10.1.0.2", "10.1.0.3"),
    securityGroups: groups,
  }),
  NetworkInterface: fc.record({
    network: networks,
    instance: maybe(names),
    securityGroups: groups,
  }),
  Address: fc.record({ instance: maybe(names) }),
  PublishedPort: fc.record({ port: fc.constantFrom(80, 81), instance: names }),
};

/** Something to begin with, so that most commands find what they name. */
const beginnings: readonly [Kind, string, object][] = (
  [
    [networkKind, "a", { cidr: "10.1.0.0/16", subnets: "custom" }],
    [networkKind, "b", { cidr: "10.2.0.0/16" }],
    [subnetKind, "a", { network: "a", cidr: "10.1.0.0/24" }],
    [securityGroupKind, "a", {}],
    [instanceKind, "a", { type: "container", image: "debian", network: "a" }],
    [instanceKind, "b", { type: "container", image: "debian" }],
  ] as const
).map(([kind, name, spec]) => [kind as unknown as Kind, name, spec]);

const command: fc.Arbitrary<Command> = fc.constantFrom(...kinds).chain((kind) =>
  fc.record({
    verb: fc.constantFrom<Verb>("create", "create", "create", "create", "patch", "patch", "delete"),
    kind: fc.constant(kind),
    project: fc.constantFrom(...projects),
    name: names,
    spec: specs[kind.name] ?? fc.constant({}),
  }),
);

/** What may change after creation. */
const mutable: Readonly<Record<string, readonly string[]>> = {
  Subnet: ["routeTable"],
  RouteTable: ["routes"],
  SecurityGroup: ["ingress"],
  Instance: ["securityGroups"],
  NetworkInterface: ["instance", "securityGroups"],
  Address: ["instance"],
  PublishedPort: ["instance"],
};

async function run({ resources }: Services, { verb, kind, project, name, spec }: Command): Promise<void> {
  const ref = { project, name };
  try {
    if (verb === "create") await resources.create(system, kind, { ...ref, spec });
    else if (verb === "patch") {
      const changes = (mutable[kind.name] ?? []).map((field) => [
        field,
        (spec as Record<string, unknown>)[field] ?? null,
      ]);
      await resources.patch(system, kind, ref, { spec: Object.fromEntries(changes) });
    } else {
      const left = await resources.delete(system, kind, ref);
      if (left) await resources.removeFinalizer(system, kind, ref, left.metadata.uid, "agent");
    }
  } catch (error) {
    if (!(error instanceof StrataError) || error.code === "Internal") throw error;
    // Nobody else is in the way of so few for so long.
    expect(error.message).not.toContain("others changed the same things");
  }
}

/** All of the store, by kind and project. */
class State {
  readonly #entries: Map<string, Resource>;
  readonly keys: string[];

  private constructor(entries: Map<string, Resource>, keys: string[]) {
    this.#entries = entries;
    this.keys = keys;
  }

  static async read(store: Store): Promise<State> {
    const { entries } = await store.list("/", { limit: 1000 });
    const prefixes = kinds.map((kind) => resourcePrefix(kind));
    const resources = entries.filter(({ key }) => prefixes.some((prefix) => key.startsWith(prefix)));
    return new State(
      new Map(resources.map((entry) => [entry.key, fromStored(entry)])),
      entries.map(({ key }) => key),
    );
  }

  all<R>(kind: unknown): (R & { metadata: Resource["metadata"] & { project: string } })[] {
    const prefix = resourcePrefix(kind as Kind);
    return [...this.#entries].flatMap(([key, value]) => (key.startsWith(prefix) ? [value as never] : []));
  }

  require<R>(kind: unknown, project: string, name: string): R {
    const found = this.#entries.get(`${resourcePrefix(kind as Kind, project)}${name}`);
    expect(found, `${(kind as Kind).name} ${project}/${name}`).toBeDefined();
    return found as R;
  }

  under(prefix: string): string[] {
    return this.keys.filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
  }
}

function rangeOf(cidr: string | undefined) {
  const range = parseRange(cidr ?? "")?.range;
  if (!range) throw new Error(`no range: ${cidr}`);
  return range;
}

function rangesOf({ status }: Network) {
  return [rangeOf(status.cidr), rangeOf(status.ipv6Cidr)];
}

const clash = (a: Network, b: Network) =>
  rangesOf(a).some((one) => rangesOf(b).some((other) => overlaps(one, other)));

function checkSubnets(state: State): void {
  const subnets = state.all<Subnet>(subnetKind);
  for (const { spec, status, metadata } of subnets) {
    const network = state.require<Network>(networkKind, metadata.project, spec.network);
    expect(contains(rangeOf(network.status.cidr), rangeOf(spec.cidr))).toBe(true);
    expect(contains(rangeOf(network.status.ipv6Cidr), rangeOf(status.ipv6Cidr))).toBe(true);
    if (spec.routeTable !== undefined) {
      const table = state.require<RouteTable>(routeTableKind, metadata.project, spec.routeTable);
      expect(table.spec.network).toBe(spec.network);
    }
    for (const other of subnets) {
      if (other.metadata.uid === metadata.uid || other.metadata.project !== metadata.project) continue;
      if (other.spec.network !== spec.network) continue;
      expect(overlaps(rangeOf(other.spec.cidr), rangeOf(spec.cidr))).toBe(false);
      expect(other.status.ipv6Cidr).not.toBe(status.ipv6Cidr);
      expect(other.status.index).not.toBe(status.index);
    }
  }
}

interface Card {
  project: string;
  network: string;
  subnet: string | undefined;
  addresses: (string | undefined)[];
  groups: string[];
}

function checkCards(state: State): void {
  const cards: Card[] = [
    ...state.all<Instance>(instanceKind).map(({ metadata: { project }, spec, status: { nic } }) => ({
      project,
      network: spec.network,
      subnet: nic?.subnet,
      addresses: [nic?.ipAddress, nic?.ipv6Address],
      groups: spec.securityGroups,
    })),
    ...state.all<NetworkInterface>(networkInterfaceKind).map(({ metadata: { project }, spec, status }) => ({
      project,
      network: spec.network,
      subnet: status.subnet,
      addresses: [status.ipAddress, status.ipv6Address],
      groups: spec.securityGroups,
    })),
  ];
  const taken: string[] = [];
  for (const { project, network, subnet = "", addresses, groups: all } of cards) {
    const { uid } = state.require<Network>(networkKind, project, network).metadata;
    const { spec, status } = state.require<Subnet>(subnetKind, project, subnet);
    expect(spec.network).toBe(network);
    for (const group of all) state.require(securityGroupKind, project, group);
    for (const [index, range] of [rangeOf(spec.cidr), rangeOf(status.ipv6Cidr)].entries()) {
      const address = parseIp(addresses[index] ?? "");
      expect(address && contains(range, address)).toBe(true);
      taken.push(
        `${uid}/${range.family}/${(address?.value ?? 0n).toString(16).padStart(range.family === 4 ? 8 : 32, "0")}`,
      );
    }
  }
  // One key a card's address, and none beside them.
  expect(state.under("/allocations/cards/").sort()).toEqual(taken.sort());
}

function checkUsers(state: State): void {
  const floating = state.all<Address>(addressKind);
  const ports = state.all<PublishedPort>(publishedPortKind);
  const plugged = state.all<NetworkInterface>(networkInterfaceKind);
  for (const { metadata, spec } of [...floating, ...ports, ...plugged]) {
    if (spec.instance !== undefined) state.require(instanceKind, metadata.project, spec.instance);
  }
  expect(state.under("/allocations/addresses/")).toHaveLength(floating.length);
  expect(new Set(floating.map(({ status }) => status.ipAddress)).size).toBe(floating.length);
  expect(state.under("/allocations/ports/tcp/").sort()).toEqual(
    ports.map(({ spec }) => String(spec.port)).sort(),
  );
  for (const { metadata, spec } of state.all<Instance>(instanceKind)) {
    const own = (user: { metadata: { project: string }; spec: { instance?: string | undefined } }) =>
      user.metadata.project === metadata.project && user.spec.instance === metadata.name;
    expect(floating.filter(own).length).toBeLessThanOrEqual(1);
    const cards = plugged.filter(own);
    expect(cards.length).toBeLessThan(maxCards);
    const joined = [...new Set([spec.network, ...cards.map((card) => card.spec.network)])].map((name) =>
      state.require<Network>(networkKind, metadata.project, name),
    );
    for (const [i, a] of joined.entries())
      for (const b of joined.slice(i + 1)) expect(clash(a, b)).toBe(false);
  }
}

function checkPeerings(state: State): void {
  const peers = new Map<string, Network[]>();
  const all = state.all<Peering>(peeringKind);
  const join = (a: Network, b: Network) =>
    peers.set(a.metadata.uid, [...(peers.get(a.metadata.uid) ?? []), b]);
  for (const {
    metadata: { project },
    spec,
    status,
  } of all) {
    const network = state.require<Network>(networkKind, project, spec.network);
    const { peerProject = project } = spec;
    const other = all.find(({ metadata, spec: back }) => {
      const consents = back.network === spec.peerNetwork && back.peerNetwork === spec.network;
      return metadata.project === peerProject && back.peerProject === project && consents;
    });
    expect(status.state).toBe(peerProject === project || other ? "active" : "waiting");
    if (status.state === "waiting") continue;
    const peer = state.require<Network>(networkKind, peerProject, spec.peerNetwork);
    join(network, peer);
    if (peerProject === project) join(peer, network);
  }
  for (const network of state.all<Network>(networkKind)) {
    const joined = [network, ...(peers.get(network.metadata.uid) ?? [])];
    for (const [i, a] of joined.entries())
      for (const b of joined.slice(i + 1)) expect(clash(a, b)).toBe(false);
  }
}

function checkNames(state: State): void {
  for (const { metadata, spec } of state.all<SecurityGroup>(securityGroupKind)) {
    for (const { group } of spec.ingress)
      if (group !== undefined) state.require(securityGroupKind, metadata.project, group);
  }
  for (const { metadata, spec } of state.all<RouteTable>(routeTableKind)) {
    state.require(networkKind, metadata.project, spec.network);
    for (const { via } of spec.routes)
      if (via !== undefined) state.require(peeringKind, metadata.project, via);
  }
  const routed = state.all<Network>(networkKind).filter(({ status }) => status.hostRoute);
  for (const [i, a] of routed.entries()) for (const b of routed.slice(i + 1)) expect(clash(a, b)).toBe(false);
  const claims = routed.length * 2;
  expect(state.under("/allocations/cidrs/")).toHaveLength(claims);
}

test("whatever users do at once, what stands is whole", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.array(command, { minLength: 2, maxLength: 8, size: "max" }), {
        minLength: 20,
        maxLength: 40,
        size: "max",
      }),
      async (batches) => {
        const { services, store } = await testServices();
        for (const name of projects) {
          await services.resources.create(system, projectKind, { name });
          await createImage(services, "debian", name);
          for (const [kind, of, spec] of beginnings) {
            await services.resources.create(system, kind, { project: name, name: of, spec });
          }
        }
        for (const batch of batches) {
          await Promise.all(batch.map((one) => run(services, one)));
          const state = await State.read(store);
          checkSubnets(state);
          checkCards(state);
          checkUsers(state);
          checkPeerings(state);
          checkNames(state);
        }
      },
    ),
    { numRuns: 60 },
  );
}, 60_000);
