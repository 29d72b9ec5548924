/** Keeps the host's part of published ports and floating addresses: the table, routes, and answers for neighbours. */
import { writeFile } from "node:fs/promises";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../../core/clock.ts";
import { contains, parseIp, parseRange } from "../../../core/ip-range.ts";
import { run } from "../../run.ts";
import { uplinkPrefix } from "../network-plan.ts";
import type { NetworkPolicy } from "../networks.ts";
import type { FirewallNetwork } from "./firewall.ts";
import type { Marks } from "./foreign-changes.ts";
import {
  type Publications,
  parseHostTable,
  planHostTable,
  publicationsOf,
  publicationTable,
} from "./host-table.ts";
import { NftMonitor } from "./nft-monitor.ts";
import { NftSession } from "./nft-session.ts";
import { type Ruleset, renderDifference, renderRemoval, renderWhole } from "./ruleset.ts";

export interface HostPublicationsOptions {
  namespace: string;
  directory: string;
  clock: Clock;
  idleMs: number;
  marks: Marks;
  /** Somebody changed the table, and `ensure` would mend it. */
  onDamage: () => void;
}

/** Of our routes to floating addresses; as free as any (/etc/iproute2/rt_protos). */
const routeProtocol = "84";

/** Calls must not overlap. */
export class HostPublications {
  readonly #options: HostPublicationsOptions;
  readonly #session: NftSession;
  #monitor: NftMonitor | undefined;
  #networks: Map<string, Publications> | undefined;
  #inForce: Ruleset | undefined;
  /** Host's ends of uplinks, by network: known of those that were ensured. */
  readonly #uplinks = new Map<string, string>();

  constructor(options: HostPublicationsOptions) {
    this.#options = options;
    const { clock, idleMs, directory, marks } = options;
    this.#session = new NftSession({
      owner: "the host",
      file: join(directory, "host.nft"),
      marks,
      clock,
      idleMs,
    });
  }

  /** Table, routes and settings that this network needs. True: something had to be made or mended. */
  async ensure({ uid, uplink }: FirewallNetwork, signal: AbortSignal): Promise<boolean> {
    this.#uplinks.set(uid, uplink.host);
    const networks = await this.#read(signal);
    const known = networks.get(uid);
    if (known) networks.set(uid, { ...known, innerAddress: uplink.innerAddress });
    // Answers of guests to the host's own loopback come in by the uplink.
    await writeFile(`/proc/sys/net/ipv4/conf/${uplink.host}/route_localnet`, "1");
    const changed = await this.#write();
    if (known) await this.#route(uid, known.addresses, [], signal);
    return changed;
  }

  async apply({ uid, uplink }: FirewallNetwork, policy: NetworkPolicy, signal: AbortSignal): Promise<void> {
    const networks = await this.#read(signal);
    const before = networks.get(uid);
    const after = publicationsOf(policy, uplink.innerAddress);
    // Behind the others: of two claims to one thing the last counts.
    networks.delete(uid);
    if (after.ports.length + after.addresses.length > 0) networks.set(uid, after);
    for (const [other, publications] of networks) {
      if (other !== uid) networks.set(other, withoutClaims(publications, after));
    }
    await this.#write();
    const gone = (before?.addresses ?? []).filter((address) => !after.addresses.includes(address));
    const come = after.addresses.filter((address) => !before?.addresses.includes(address));
    await this.#route(uid, come, gone, signal);
  }

  async remove(uid: string, signal: AbortSignal): Promise<void> {
    const networks = await this.#read(signal, false);
    const before = networks?.get(uid);
    if (before) {
      networks?.delete(uid);
      await this.#write();
      await this.#route(uid, [], before.addresses, signal);
    }
    this.#uplinks.delete(uid);
  }

  async removeTable(signal: AbortSignal): Promise<void> {
    const networks = await this.#read(signal, false);
    for (const uid of [...(networks?.keys() ?? [])]) await this.remove(uid, signal);
    await this.#monitor?.end();
    this.#monitor = undefined;
    const name = publicationTable(this.#options.namespace);
    await this.#session.leave(renderRemoval([{ family: "inet", name }]));
    this.#networks = undefined;
    this.#inForce = undefined;
    await this.#session.end();
  }

  close(): void {
    this.#monitor?.kill();
    this.#session.kill();
  }

  async #read(signal: AbortSignal): Promise<Map<string, Publications>>;
  async #read(signal: AbortSignal, make: false): Promise<Map<string, Publications> | undefined>;
  async #read(signal: AbortSignal, make = true): Promise<Map<string, Publications> | undefined> {
    if (this.#networks) return this.#networks;
    const table = publicationTable(this.#options.namespace);
    const args = ["-j", "list", "table", "inet", table];
    const { stdout, status } = await run("nft", args, { signal, timeoutMs: 10_000, expected: [0, 1] });
    if (status !== 0 && !make) return undefined;
    this.#networks = status === 0 ? parseHostTable(stdout) : new Map();
    return this.#networks;
  }

  async #write(): Promise<boolean> {
    const { namespace, clock, marks, onDamage } = this.#options;
    this.#monitor ??= new NftMonitor({
      tables: [`inet ${publicationTable(namespace)}`],
      clock,
      marks,
      onChange: () => this.#damage(onDamage),
      onGap: () => this.#damage(onDamage),
    });
    const wanted = planHostTable(namespace, uplinkPrefix(namespace), this.#networks ?? new Map());
    const text = this.#inForce ? renderDifference(this.#inForce, wanted) : renderWhole(wanted);
    if (text === "") return false;
    this.#inForce = undefined;
    await this.#session.transact(text);
    this.#inForce = wanted;
    return true;
  }

  /** Of many lines about one change the first counts. */
  #damage(onDamage: () => void): void {
    if (this.#inForce === undefined) return;
    this.#inForce = undefined;
    onDamage();
  }

  /** The host leads floating addresses to the uplink, and answers for them where its neighbours ask. */
  async #route(
    uid: string,
    come: readonly string[],
    gone: readonly string[],
    signal: AbortSignal,
  ): Promise<void> {
    const uplink = this.#uplinks.get(uid);
    const inner = this.#networks?.get(uid)?.innerAddress;
    const others = new Set([...(this.#networks?.values() ?? [])].flatMap(({ addresses }) => addresses));
    const outside = (address: string) => devicesAround(address, uplinkPrefix(this.#options.namespace));
    const withdrawn = gone
      .filter((address) => !others.has(address))
      .flatMap((address) => [
        `route flush ${address}/32 proto ${routeProtocol}`,
        ...outside(address).map((device) => `neigh del proxy ${address} dev ${device}`),
      ]);
    // What is gone already is no error.
    if (withdrawn.length > 0) await ipBatch(["-force"], withdrawn, signal, [0, 1, 2]);
    if (come.length === 0 || uplink === undefined || inner === undefined) return;
    const granted = come.flatMap((address) => [
      `route replace ${address}/32 via ${inner} dev ${uplink} onlink proto ${routeProtocol}`,
      ...outside(address).map((device) => `neigh replace proxy ${address} dev ${device}`),
    ]);
    await ipBatch([], granted, signal, [0]);
  }
}

async function ipBatch(
  options: readonly string[],
  lines: readonly string[],
  signal: AbortSignal,
  expected: readonly number[],
): Promise<void> {
  const input = `${lines.join("\n")}\n`;
  await run("ip", [...options, "-batch", "-"], { input, signal, timeoutMs: 10_000, expected });
}

/** Interfaces in whose own range the address lies. */
function devicesAround(address: string, uplinks: string): string[] {
  const parsed = parseIp(address);
  if (!parsed) return [];
  return Object.entries(networkInterfaces())
    .filter(([device]) => device !== "lo" && !device.startsWith(uplinks))
    .filter(([, entries]) =>
      entries?.some(({ cidr }) => {
        const range = parseRange(cidr ?? "")?.range;
        return range !== undefined && contains(range, parsed);
      }),
    )
    .map(([device]) => device);
}

function withoutClaims(publications: Publications, claimed: Publications): Publications {
  return {
    ...publications,
    ports: publications.ports.filter((port) => !claimed.ports.includes(port)),
    addresses: publications.addresses.filter((address) => !claimed.addresses.includes(address)),
  };
}
