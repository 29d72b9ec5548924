/**
 * Virtual networks on this host. Each is a network namespace of its own: bridge `br0` with the gateway's address,
 * dnsmasq for DHCP and DNS, an nftables ruleset, and an uplink pair of interfaces to the host, which routes the range
 * into the namespace and masks what leaves for the outside.
 */

export interface NetworkRequest {
  uid: string;
  cidr: string;
  gateway: string;
  domain: string;
}

/** One guest's place in a network: DHCP hands out exactly this, DNS answers NAME and NAME.DOMAIN with it. */
export interface Reservation {
  uid: string;
  hostname: string;
  macAddress: string;
  ipAddress: string;
}

/** How guests join. */
export interface NetworkAttachment {
  netns: string;
  bridge: string;
  mtu: number;
  prefixLength: number;
  gateway: string;
}

export interface Networks {
  /** Makes or mends it: namespace, interfaces, rules, the DHCP and DNS process. Idempotent. @throws Conflict when the host already routes the range elsewhere. */
  ensure(request: NetworkRequest, signal: AbortSignal): Promise<NetworkAttachment>;
  /** Adds or changes one guest's reservation; the others are not touched. */
  reserve(network: string, reservation: Reservation): Promise<void>;
  /** Absent is success. */
  release(network: string, guestUid: string): Promise<void>;
  /** Takes all of it away; absent is success. With the last one go the host's rules, and its settings are put back. */
  remove(uid: string, signal: AbortSignal): Promise<void>;
  /** Uids of all networks of this name space, orphans included. */
  list(): Promise<string[]>;
  /** Hints that a network needs mending (its DHCP process died, its namespace is gone). */
  events(signal: AbortSignal): AsyncIterable<{ uid: string }>;
}
