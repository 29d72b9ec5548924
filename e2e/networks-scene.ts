/** What tests of networks have in common: requests, policies that allow everything, guests in their places. */
import { newUid } from "../src/core/ids.ts";
import { systemRandom } from "../src/core/random.ts";
import type {
  CardPolicy,
  NetworkAttachment,
  NetworkPolicy,
  NetworkRequest,
  SubnetAttachment,
  SubnetRequest,
} from "../src/host/networks/networks.ts";

export const everything = "0000000000000a11";

/** All traffic is allowed, by a group. */
export function policyOf(cards: readonly CardPolicy[]): NetworkPolicy {
  const rules = ["0.0.0.0/0", "::/0"].map((cidr) => ({ protocol: "any" as const, peer: { cidr } }));
  return {
    cards,
    groups: [{ uid: everything, ingress: rules, egress: rules }],
    publishedPorts: [],
    addresses: [],
  };
}

/** With two subnets, `front` and `back`. */
export function requestOf(second: number, change: Partial<NetworkRequest> = {}): NetworkRequest {
  const prefix = (index: number) => (index === 0 ? `fd00:${second}::` : `fd00:${second}:0:${index}::`);
  const subnet = (name: string, index: number): SubnetRequest => ({
    name,
    index,
    cidr: `10.${second}.${index}.0/24`,
    gateway: `10.${second}.${index}.1`,
    ipv6Cidr: `${prefix(index)}/64`,
    ipv6Gateway: `${prefix(index)}1`,
  });
  return {
    uid: newUid(systemRandom),
    cidr: `10.${second}.0.0/16`,
    ipv6Cidr: `fd00:${second}::/48`,
    domain: "demo.internal",
    hostRoute: false,
    internet: true,
    subnets: [subnet("front", 0), subnet("back", 1)],
    peerings: [],
    ...change,
  };
}

export function cardOf(
  request: NetworkRequest,
  hostname: string,
  last: number,
  options: { subnet?: string; namespace?: string } = {},
): CardPolicy {
  const uid = newUid(systemRandom);
  const subnet = request.subnets.find(({ name }) => name === (options.subnet ?? "front"));
  if (!subnet) throw new Error(`no subnet ${options.subnet}`);
  return {
    uid,
    subnet: subnet.name,
    port: `${options.namespace ?? "n7"}${uid.slice(0, 6)}`,
    macAddress: `02:13:${[...Buffer.from(uid).subarray(0, 4)].map((b) => b.toString(16)).join(":")}`,
    ipAddress: subnet.gateway.replace(/\d+$/, String(last)),
    ...(subnet.ipv6Gateway !== undefined && {
      ipv6Address: subnet.ipv6Gateway.replace(/[\da-f]+$/, String(last)),
    }),
    hostname,
    groups: [everything],
    metadata: true,
  };
}

export function placeOf(
  network: NetworkAttachment,
  name: string,
): { netns: string; mtu: number; subnet: SubnetAttachment | undefined } {
  const subnet = network.subnets.find((one) => one.name === name);
  return { netns: network.netns, mtu: network.mtu, subnet };
}
