/**
 * The metadata of an instance as EC2 lays it out: a tree of directories and texts. Pure.
 *
 * What EC2 says of its own insides (credentials, events, billing) is left out rather than made up. Sizes and places have
 * names of our own in EC2's form, because clients take them apart: a zone is its region and one letter.
 *
 * @see https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-categories.html
 */
import { prefixedHexId, type Uid } from "../../core/ids.ts";
import type { CardFacts, InstanceFacts } from "./instance-facts.ts";

/** A file's text, or a directory. */
export type MetadataNode = string | Uint8Array | MetadataDirectory;

export interface MetadataDirectory {
  /** In the order of the listing. */
  entries: ReadonlyMap<string, MetadataNode>;
  /** What its listing says instead of the entries' names. */
  listing?: readonly string[];
}

/** A place, and the account that everything is in. */
const region = "strata-1";
const zone = `${region}a`;
const accountId = "000000000000";

/** Below `/latest`. */
export function metadataTree(facts: InstanceFacts): MetadataDirectory {
  const { userData } = facts;
  return directory({
    dynamic: directory({ "instance-identity": directory({ document: identityDocument(facts) }) }),
    "meta-data": metaData(facts),
    "user-data": userData === undefined || userData === "" ? undefined : Buffer.from(userData),
  });
}

/** What a listing shows: a line for each entry, directories with a slash, no line break at the end. */
export function listingOf(of: MetadataDirectory): string {
  const names = [...of.entries].map(([name, node]) => (isDirectory(node) ? `${name}/` : name));
  return (of.listing ?? names).join("\n");
}

/** Follows the names; undefined where there is nothing. */
export function findNode(root: MetadataDirectory, names: readonly string[]): MetadataNode | undefined {
  let node: MetadataNode | undefined = root;
  for (const name of names) node = node && isDirectory(node) ? node.entries.get(name) : undefined;
  return node;
}

export function isDirectory(node: MetadataNode): node is MetadataDirectory {
  return typeof node !== "string" && !(node instanceof Uint8Array);
}

function metaData(facts: InstanceFacts): MetadataDirectory {
  const [own] = facts.cards;
  return directory({
    "ami-id": imageId(facts),
    "ami-launch-index": "0",
    "ami-manifest-path": "(unknown)",
    "block-device-mapping":
      facts.type === "vm" ? directory({ ami: "/dev/vda", root: "/dev/vda" }) : undefined,
    hostname: facts.hostname,
    "instance-action": "none",
    "instance-id": id("i", facts.uid),
    "instance-life-cycle": "on-demand",
    "instance-type": instanceType(facts),
    ipv6: own?.ipv6Address,
    "local-hostname": facts.hostname,
    "local-ipv4": own?.ipAddress,
    mac: own?.macAddress,
    network: directory({ interfaces: directory({ macs: macs(facts) }) }),
    placement: directory({ "availability-zone": zone, "availability-zone-id": zone, region }),
    "public-ipv4": own?.publicAddress,
    "public-keys": publicKeys(facts),
    "reservation-id": id("r", facts.uid),
    "security-groups": own?.securityGroups.map((group) => group.name).join("\n"),
  });
}

/** Clients ask for `public-keys/` and find `0=NAME`, then ask for `public-keys/0/openssh-key`. */
function publicKeys({ publicKeys: keys }: InstanceFacts): MetadataDirectory | undefined {
  if (keys.length === 0) return undefined;
  return {
    entries: new Map(keys.map(({ text }, index) => [`${index}`, directory({ "openssh-key": text })])),
    listing: keys.map(({ name }, index) => `${index}=${name}`),
  };
}

function macs(facts: InstanceFacts): MetadataDirectory {
  const cards = facts.cards.map((card, index): [string, MetadataNode] => [
    card.macAddress,
    cardDirectory(facts, card, index),
  ]);
  return { entries: new Map(cards.sort(([a], [b]) => (a < b ? -1 : 1))) };
}

function cardDirectory(facts: InstanceFacts, card: CardFacts, index: number): MetadataDirectory {
  const { subnet, network, publicAddress } = card;
  return directory({
    "device-number": `${card.device ?? index}`,
    "interface-id": id("eni", card.uid),
    "ipv4-associations":
      publicAddress === undefined ? undefined : directory({ [publicAddress]: card.ipAddress }),
    ipv6s: card.ipv6Address,
    "local-hostname": index === 0 ? facts.hostname : undefined,
    "local-ipv4s": card.ipAddress,
    mac: card.macAddress,
    "owner-id": accountId,
    "public-ipv4s": publicAddress,
    "security-group-ids": card.securityGroups.map((group) => id("sg", group.uid)).join("\n"),
    "security-groups": card.securityGroups.map((group) => group.name).join("\n"),
    "subnet-id": subnet && id("subnet", subnet.uid),
    "subnet-ipv4-cidr-block": subnet?.cidr,
    "subnet-ipv6-cidr-blocks": subnet?.ipv6Cidr,
    "vpc-id": network && id("vpc", network.uid),
    "vpc-ipv4-cidr-block": network?.cidr,
    "vpc-ipv4-cidr-blocks": network?.cidr,
    "vpc-ipv6-cidr-blocks": network?.ipv6Cidr,
  });
}

function identityDocument(facts: InstanceFacts): string {
  const document = {
    accountId,
    architecture: process.arch === "arm64" ? "arm64" : "x86_64",
    availabilityZone: zone,
    billingProducts: null,
    devpayProductCodes: null,
    marketplaceProductCodes: null,
    imageId: imageId(facts),
    instanceId: id("i", facts.uid),
    instanceType: instanceType(facts),
    kernelId: null,
    pendingTime: facts.createdAt.replace(/\.\d+Z$/, "Z"),
    privateIp: facts.cards[0]?.ipAddress ?? null,
    ramdiskId: null,
    region,
    version: "2017-09-30",
  };
  return JSON.stringify(document, undefined, 2);
}

function imageId({ imageUid }: InstanceFacts): string {
  return id("ami", imageUid ?? "");
}

/** `vm.2x1024`: 2 processors, 1,024 MiB. */
function instanceType({ type, cpus, memoryMib }: InstanceFacts): string {
  return `${type}.${cpus}x${memoryMib}`;
}

function id(prefix: string, uid: string): string {
  return prefixedHexId(prefix, uid.padEnd(16, "0") as Uid);
}

/** In the order of their names; what is undefined is not there. */
function directory(entries: Readonly<Record<string, MetadataNode | undefined>>): MetadataDirectory {
  const present = Object.entries(entries).filter(
    (entry): entry is [string, MetadataNode] => entry[1] !== undefined,
  );
  return { entries: new Map(present.sort(([a], [b]) => (a < b ? -1 : 1))) };
}
