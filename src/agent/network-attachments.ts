import { StrataError } from "../core/errors.ts";
import type { NetworkAttachment, NetworkRequest, Networks } from "../host/networks/networks.ts";
import type { Network } from "../kinds/network.ts";

/**
 * How guests join the networks of this host. A network is made on its first use and then remembered, so that the next
 * guest in it costs nothing; whoever hears that it may be broken calls `doubt`. Callers that come together share one
 * attempt.
 */
export class NetworkAttachments {
  readonly #networks: Networks;
  readonly #known = new Map<string, Promise<NetworkAttachment>>();

  constructor(networks: Networks) {
    this.#networks = networks;
  }

  /** Makes or mends the network unless that was done before. @throws what ensure throws; Unavailable without a range. */
  attach(network: Network, signal: AbortSignal): Promise<NetworkAttachment> {
    const { uid } = network.metadata;
    let attachment = this.#known.get(uid);
    if (!attachment) {
      attachment = this.#networks.ensure(networkRequest(network), signal);
      this.#known.set(uid, attachment);
      // Also when the first caller gave up: the next one begins anew.
      attachment.catch(() => this.doubt(uid));
    }
    return attachment;
  }

  isKnown(uid: string): boolean {
    return this.#known.has(uid);
  }

  doubt(uid: string): void {
    this.#known.delete(uid);
  }
}

/** @throws Unavailable while the network has no range. */
function networkRequest(network: Network): NetworkRequest {
  const { cidr, gateway, domain } = network.status;
  const { uid, name, project } = network.metadata;
  if (cidr === undefined || gateway === undefined) {
    throw new StrataError("Unavailable", `network "${name}" of project "${project ?? ""}" has no range yet`);
  }
  return { uid, cidr, gateway, domain: domain ?? `${project ?? "default"}.internal` };
}
