/** Kinds that a stack can hold, what they refer to, and in which order they come and go. */
import { addressKind } from "../../kinds/address.ts";
import { certificateKind } from "../../kinds/certificate.ts";
import { groupKind, type MemberTemplate } from "../../kinds/group.ts";
import { imageKind } from "../../kinds/image.ts";
import { instanceKind } from "../../kinds/instance.ts";
import { keyPairKind } from "../../kinds/key-pair.ts";
import type { Kind, Resource } from "../../kinds/kind.ts";
import { loadBalancerKind } from "../../kinds/load-balancer.ts";
import { networkKind } from "../../kinds/network.ts";
import { networkInterfaceKind } from "../../kinds/network-interface.ts";
import { peeringKind } from "../../kinds/peering.ts";
import { projectKind } from "../../kinds/project.ts";
import { publishedPortKind } from "../../kinds/published-port.ts";
import { kinds } from "../../kinds/registry.ts";
import { routeTableKind } from "../../kinds/route-table.ts";
import { defaultSecurityGroup, securityGroupKind } from "../../kinds/security-group.ts";
import { subnetKind } from "../../kinds/subnet.ts";
import type { Stack } from "./stack-schema.ts";

const held: readonly unknown[] = [
  projectKind,
  keyPairKind,
  networkKind,
  peeringKind,
  routeTableKind,
  subnetKind,
  securityGroupKind,
  imageKind,
  instanceKind,
  groupKind,
  certificateKind,
  loadBalancerKind,
  networkInterfaceKind,
  addressKind,
  publishedPortKind,
];

/** In the order of their creation, which is the registry's. */
export const stackKinds = kinds.filter((kind) => held.includes(kind)) as unknown as readonly Kind[];

type PlainSection = Exclude<
  keyof Stack,
  "stack" | "project" | "images" | "keyPairs" | "instances" | "groups"
>;

/** Sections of a stack file whose entries are specs as the API has them; `created`: relative to images and instances. */
export const plainSections: readonly { section: PlainSection; kind: Kind; created: "before" | "after" }[] = [
  { section: "networks", kind: networkKind as Kind, created: "before" },
  { section: "peerings", kind: peeringKind as Kind, created: "before" },
  { section: "routeTables", kind: routeTableKind as Kind, created: "before" },
  { section: "subnets", kind: subnetKind as unknown as Kind, created: "before" },
  { section: "securityGroups", kind: securityGroupKind as unknown as Kind, created: "before" },
  { section: "certificates", kind: certificateKind as unknown as Kind, created: "after" },
  { section: "loadBalancers", kind: loadBalancerKind as unknown as Kind, created: "after" },
  { section: "networkInterfaces", kind: networkInterfaceKind as Kind, created: "after" },
  { section: "addresses", kind: addressKind as Kind, created: "after" },
  { section: "publishedPorts", kind: publishedPortKind as Kind, created: "after" },
];

/**
 * Kinds that others refer to and that hold nothing anybody waits for: what a stack no longer has of them goes last, when
 * nothing refers to it any more.
 */
export const goesLast: ReadonlySet<Kind> = new Set([routeTableKind, securityGroupKind] as unknown as Kind[]);

export interface Reference {
  kind: Kind;
  name: string;
}

/** What a spec names in its own project, besides what every project comes with. The spec must be valid. */
export function referencesOf(kind: Kind, spec: unknown): Reference[] {
  const rule = referenceRules.get(kind.name);
  return (rule?.(kind.spec.parse(spec)) ?? []).filter((one) => !isBuiltIn(one));
}

/** Each project has a network, its subnet and a security group of this name. */
function isBuiltIn({ kind, name }: Reference): boolean {
  const builtIn = ["Network", "Subnet", "SecurityGroup"].includes(kind.name);
  return builtIn && name === defaultSecurityGroup;
}

/** False where a reference can be taken out and put in again while its holder stays. */
export function isForLife(holder: Kind, named: Kind): boolean {
  if (named.name === routeTableKind.name || named.name === securityGroupKind.name) return false;
  if (named.name === peeringKind.name) return false;
  // A balancer goes on without what it leads to, and takes another certificate while it serves.
  if (holder.name === loadBalancerKind.name) return false;
  return !(named.name === instanceKind.name && holder.name !== instanceKind.name);
}

function to<S, T>(kind: Kind<S, T>, ...names: readonly (string | undefined)[]): Reference[] {
  return names.flatMap((name) => (name === undefined ? [] : [{ kind: kind as Kind, name }]));
}

function rule<S, T>(kind: Kind<S, T>, references: (spec: S) => Reference[]) {
  return [kind.name, references as (spec: unknown) => Reference[]] as const;
}

function ofTemplate(spec: MemberTemplate): Reference[] {
  return [
    ...to(imageKind, spec.image),
    ...to(keyPairKind, ...spec.keyPairs),
    ...to(networkKind, spec.network),
    ...to(subnetKind, spec.subnet),
    ...to(securityGroupKind, ...spec.securityGroups),
  ];
}

const referenceRules = new Map<string, (spec: unknown) => Reference[]>([
  rule(subnetKind, (spec) => [...to(networkKind, spec.network), ...to(routeTableKind, spec.routeTable)]),
  rule(routeTableKind, (spec) => [
    ...to(networkKind, spec.network),
    ...to(peeringKind, ...spec.routes.map((route) => route.via)),
  ]),
  rule(peeringKind, (spec) =>
    to(networkKind, spec.network, spec.peerProject === undefined ? spec.peerNetwork : undefined),
  ),
  rule(securityGroupKind, (spec) =>
    to(securityGroupKind, ...[...spec.ingress, ...spec.egress].map((one) => one.group)),
  ),
  rule(instanceKind, ofTemplate),
  rule(groupKind, ({ template }) => ofTemplate(template)),
  rule(loadBalancerKind, (spec) => [
    ...to(certificateKind, ...new Set(spec.listeners.flatMap((listener) => listener.certificates))),
    ...to(groupKind, spec.group),
    ...to(instanceKind, ...(spec.instances ?? [])),
  ]),
  rule(networkInterfaceKind, (spec) => [
    ...to(networkKind, spec.network),
    ...to(subnetKind, spec.subnet),
    ...to(securityGroupKind, ...spec.securityGroups),
    ...to(instanceKind, spec.instance),
  ]),
  rule(addressKind, (spec) => to(instanceKind, spec.instance)),
  rule(publishedPortKind, (spec) => to(instanceKind, spec.instance)),
]);

/**
 * Fields that may be left out on creation and are settled then: a stack that does not name them agrees with whatever
 * the resource has.
 */
const settledOnCreation: Readonly<Record<string, readonly string[]>> = {
  Network: ["cidr", "ipv6Cidr", "hostRoute", "mtu"],
  Subnet: ["ipv6Cidr"],
  // Who changed it by hand said more lately than a file that does not name it.
  Group: ["desired"],
  Instance: ["subnet", "ipAddress", "ipv6Address"],
  NetworkInterface: ["subnet", "ipAddress", "ipv6Address"],
  Address: ["ipAddress"],
};

export function settledFields(kind: Kind): readonly string[] {
  return settledOnCreation[kind.name] ?? [];
}

/** Made by Strata with a network or a project, and gone with it: never a stack's own. */
export function comesByItself(kind: Kind, resource: Resource): boolean {
  return resource.metadata.owner !== undefined || isBuiltIn({ kind, name: resource.metadata.name });
}
