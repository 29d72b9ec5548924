import type { Clock, Instant } from "../../core/clock.ts";
import type { Host } from "../../kinds/host.ts";
import { resourceKey } from "../../kinds/keys.ts";
import { type Lease, leaseKind } from "../../kinds/lease.ts";
import type { ControllerCaches } from "../context.ts";

export interface HostWorld {
  host: Host | undefined;
  lease: Lease | undefined;
  /** When this process first saw the lease as it is, or its absence: hosts' clocks need not agree with ours. */
  seenAt: Instant;
}

/** Remembers when each lease was last seen to change. */
export class Sightings {
  readonly #clock: Clock;
  readonly #seen = new Map<string, { revision: number; at: Instant }>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  at(host: string, revision: number): Instant {
    const known = this.#seen.get(host);
    if (known?.revision === revision) return known.at;
    const at = this.#clock.now();
    this.#seen.set(host, { revision, at });
    return at;
  }

  forget(host: string): void {
    this.#seen.delete(host);
  }
}

export function observeHost(caches: ControllerCaches, sightings: Sightings, key: string): HostWorld {
  const host = caches.hosts.get(key);
  if (!host) return { host: undefined, lease: undefined, seenAt: 0 };
  const { name } = host.metadata;
  const lease = caches.leases.get(resourceKey(leaseKind, { name }));
  return { host, lease, seenAt: sightings.at(name, lease?.metadata.revision ?? 0) };
}
