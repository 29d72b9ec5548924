/** An instance's network cards, and what is published for it, as branches of a tree. Pure. */
import type { Instance } from "../../kinds/instance.ts";
import { addressesOf, publishedPortsOf, targetPortOf } from "../../kinds/reachability/publication.ts";
import { type Card, cardsOf, type NetworkWorld, projectOf } from "../../kinds/reachability/world.ts";
import type { Branch } from "../output.ts";
import type { Reach } from "./reach.ts";

export function cardBranches(world: NetworkWorld, instance: Instance, reach: Reach): Branch[] {
  const { name } = instance.metadata;
  const cards = cardsOf(world).filter(
    (card) => card.instance.metadata.name === name && card.project === projectOf(instance),
  );
  const published = [
    ...addressesOf(world, instance).map((one) => ({
      label: `address ${one.metadata.name}`,
      value: [one.status.ipAddress ?? "none yet", one.status.state].join("  "),
    })),
    ...publishedPortsOf(world, instance).map((one) => ({
      label: `port ${one.spec.port}/${one.spec.protocol} of the host`,
      value: [`leads to port ${targetPortOf(one)}`, one.status.state].join("  "),
    })),
    ...reach.urls(instance).map((url) => ({ label: "url", value: url })),
  ];
  return [
    ...(cards.length > 0 ? [{ label: "network cards", children: cards.map(cardBranch) }] : []),
    ...(published.length > 0 ? [{ label: "reached by", children: published }] : []),
  ];
}

function cardBranch(card: Card): Branch {
  return {
    label: card.interface ?? "its own",
    children: [
      { label: "network", value: card.network },
      { label: "subnet", value: card.subnet },
      { label: "address", value: addressText(card) },
      { label: "mac", value: card.macAddress },
      { label: "security groups", value: card.securityGroups.join(", ") || "none: nothing passes" },
    ],
  };
}

export function addressText({ ipAddress, ipv6Address }: Pick<Card, "ipAddress" | "ipv6Address">): string {
  return [ipAddress, ...(ipv6Address === undefined ? [] : [ipv6Address])].join(", ");
}
