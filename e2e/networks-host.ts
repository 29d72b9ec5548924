/**
 * A daemon's networks on the kernel, with guests that are namespaces, for tests. What is left behind fails them.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, expect } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { newUid } from "../src/core/ids.ts";
import { silentLogger } from "../src/core/logger.ts";
import { systemRandom } from "../src/core/random.ts";
import type { Cgroups } from "../src/host/cgroups.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { createNetworks, type KernelNetworks } from "../src/host/networks/kernel-networks.ts";
import { type NetworkNames, networkNames, uplinkPrefix } from "../src/host/networks/network-plan.ts";
import type { CardPolicy, NetworkAttachment, NetworkRequest } from "../src/host/networks/networks.ts";
import { run } from "../src/host/run.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { NetnsGuest } from "./netns-guest.ts";
import { cardOf, placeOf, policyOf } from "./networks-scene.ts";

export const never = new AbortController().signal;

export type Guest = NetnsGuest & { card: CardPolicy; ip: string; ipv6: string };

export class NetworksHost {
  readonly namespace = `n7${newUid(systemRandom).slice(0, 6)}`;
  runDir = "";
  cgroups!: Cgroups;
  networks!: KernelNetworks;
  readonly #guests: NetnsGuest[] = [];
  readonly #cards = new Map<string, CardPolicy[]>();
  /** Of all networks that guests joined. */
  readonly #hostAddresses = new Set<string>();
  #before: Snapshot = new Set();

  /** For a whole file of tests; each begins without networks. */
  static forTests(): NetworksHost {
    const host = new NetworksHost();
    beforeAll(() => host.#begin());
    afterEach(() => host.#clear());
    afterAll(() => host.#end());
    return host;
  }

  async #begin(): Promise<void> {
    this.#before = await takeSnapshot();
    this.runDir = await mkdtemp(join(tmpdir(), "strata-networks-"));
    this.cgroups = await openCgroups({ clock: systemClock });
    this.reopen();
  }

  async #clear(): Promise<void> {
    for (const guest of this.#guests.splice(0)) await guest.leave();
    for (const uid of await this.networks.list()) await this.networks.remove(uid, never);
    this.#cards.clear();
  }

  async #end(): Promise<void> {
    await this.networks.removeEverything(never);
    this.networks.close();
    await this.cgroups.remove(this.namespace);
    await rm(this.runDir, { recursive: true, force: true });
    expect(await this.leaks()).toEqual([]);
    expect(await this.hostRules()).toEqual([]);
  }

  /** As after a restart of the daemon. */
  reopen(options: { forgetAfterMs?: number } = {}): void {
    this.networks?.close();
    this.networks = createNetworks({
      config: { namespace: this.namespace, runDir: this.runDir },
      cgroups: this.cgroups,
      clock: systemClock,
      logger: silentLogger,
      hostRecheckMs: 0,
      ...options,
    });
  }

  names(wanted: NetworkRequest): NetworkNames {
    return networkNames({ namespace: this.namespace, runDir: this.runDir }, wanted.uid);
  }

  async ensure(wanted: NetworkRequest): Promise<NetworkAttachment> {
    return await this.networks.ensure(wanted, never);
  }

  /** All of a network's cards are allowed everything. */
  async apply(wanted: NetworkRequest, all: CardPolicy[]): Promise<void> {
    this.#cards.set(wanted.uid, all);
    await this.networks.apply(wanted.uid, policyOf(all), never);
  }

  /** A guest with a card whose addresses end in `last`. */
  async join(
    wanted: NetworkRequest,
    network: NetworkAttachment,
    hostname: string,
    last: number,
    options: { subnet?: string } = {},
  ): Promise<Guest> {
    const card = cardOf(wanted, hostname, last, options);
    await this.apply(wanted, [...(this.#cards.get(wanted.uid) ?? []), card]);
    return await this.plug(network, card);
  }

  /** A guest with that card, whether the network knows it or not. */
  async plug(network: NetworkAttachment, card: CardPolicy): Promise<Guest> {
    const place = placeOf(network, card.subnet);
    const guest = await NetnsGuest.join(card.port, place, card.macAddress, this.runDir);
    this.#guests.push(guest);
    this.#hostAddresses.add(network.hostAddress);
    return Object.assign(guest, { card, ip: card.ipAddress, ipv6: card.ipv6Address ?? "" });
  }

  /** A guest with its addresses in force. */
  async start(
    wanted: NetworkRequest,
    network: NetworkAttachment,
    hostname: string,
    last: number,
    options: { subnet?: string } = {},
  ): Promise<Guest> {
    const guest = await this.join(wanted, network, hostname, last, options);
    expect((await guest.dhcp())?.ip).toBe(guest.ip);
    expect(await guest.dhcp6()).toBe(guest.ipv6);
    return guest;
  }

  /** What of ours is on the host now and was not before; other tests and daemons may run beside. */
  async leaks(): Promise<string[]> {
    const marks = [this.namespace, uplinkPrefix(this.namespace), "10.213.", this.runDir];
    const found = await findLeaks(this.#before, marks);
    return found.filter((line) => marks.some((mark) => line.includes(mark)));
  }

  /** Of our networks' addresses those that the host still has rules for. */
  async hostRules(): Promise<string[]> {
    const { stdout } = await run("ip", ["rule", "show", "pref", "6464"]);
    return [...this.#hostAddresses].filter((address) => stdout.includes(`from ${address} `));
  }
}

export async function waitFor(
  what: string,
  condition: () => Promise<boolean>,
  timeoutMs = 10_000,
): Promise<void> {
  const deadline = systemClock.monotonicMs() + timeoutMs;
  while (!(await condition())) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`waited in vain: ${what}`);
    await systemClock.sleep(20);
  }
}
