import { StrataError } from "../../core/errors.ts";
import type { GuestNic } from "../../drivers/driver.ts";
import type { NetworkAttachment } from "../../host/networks/networks.ts";
import type { Instance } from "../../kinds/instance.ts";
import type { Resource } from "../../kinds/kind.ts";
import type { NetworkInterface } from "../../kinds/network-interface.ts";
import type { AgentContext } from "../agent-context.ts";
import { requestFor } from "../networks/contents.ts";
import { instancePort, interfacePort } from "../networks/policy.ts";
import { networkKeyOf } from "../views.ts";

/**
 * Makes the network of an instance or a card, unless it is there, and waits until all cards that the API tells of are
 * in force in it. @throws Unavailable without such a network or a range of it.
 */
export async function joinNetwork(
  context: AgentContext,
  resource: Resource<{ network: string }>,
  signal: AbortSignal,
): Promise<NetworkAttachment> {
  const { views, attachments, policies } = context;
  const key = networkKeyOf(resource);
  const network = views.networks.get(key);
  const request = network && requestFor(views, network);
  if (!request) {
    const name = resource.spec.network;
    throw new StrataError(
      "Unavailable",
      `the network "${name}" of ${resource.metadata.name} has no range yet`,
    );
  }
  const attachment = await attachments.attach(request, signal);
  signal.throwIfAborted();
  await policies.apply(key);
  return attachment;
}

/** An instance's own card. */
export function ownNic({ metadata, status }: Instance, attachment: NetworkAttachment): GuestNic {
  return { name: "eth0", ...nicOf(metadata.name, status.nic, attachment), port: instancePort(metadata.uid) };
}

export function furtherNic({ metadata, status }: NetworkInterface, attachment: NetworkAttachment): GuestNic {
  const name = `eth${status.device ?? 1}`;
  return { name, ...nicOf(metadata.name, status, attachment), port: interfacePort(metadata.uid) };
}

interface Addresses {
  subnet?: string | undefined;
  macAddress?: string | undefined;
  ipAddress?: string | undefined;
  ipv6Address?: string | undefined;
}

function nicOf(
  owner: string,
  addresses: Addresses | undefined,
  attachment: NetworkAttachment,
): Omit<GuestNic, "name" | "port"> {
  const { subnet: name, macAddress, ipAddress, ipv6Address } = addresses ?? {};
  if (macAddress === undefined || ipAddress === undefined) {
    throw new StrataError("Unavailable", `the network card of ${owner} has no address yet`);
  }
  const subnet = attachment.subnets.find((one) => one.name === name);
  if (!subnet) {
    throw new StrataError("Unavailable", `the subnet "${name ?? ""}" of ${owner} is not on this host yet`);
  }
  const { prefixLength, gateway, bridge, ipv6 } = subnet;
  const { netns, mtu } = attachment;
  const ipv6Part = ipv6 && ipv6Address !== undefined ? { ipv6: { address: ipv6Address, ...ipv6 } } : {};
  return { macAddress, ipAddress, prefixLength, gateway, ...ipv6Part, mtu, netns, bridge };
}
