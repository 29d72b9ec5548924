/**
 * Guests' places in a network: DHCP and DNS reservations, the gateway's neighbour entries, and ports that lost their bridge.
 *
 * What was applied last is remembered, so that a change costs in proportion to itself; after a restart of the daemon, or when
 * a bridge was made anew, it is read back from the files and the kernel.
 */
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";
import { type BridgePort, joinBridge } from "./bridge-port.ts";
import { parseAddresses, parseNeighbours } from "./kernel-json.ts";
import { text } from "./links.ts";
import type { SeenLink } from "./mending.ts";
import { type Neighbours, planNeighbours, renderNeighbours, seenNeighbours } from "./neighbours.ts";
import type { NetworkPlan } from "./network-plan.ts";
import type { CardPolicy } from "./networks.ts";
import { Reservations, type ReservationTexts, renderReservation } from "./reservations.ts";

interface Applied {
  cards: readonly CardPolicy[];
  reservations: Map<string, ReservationTexts>;
  /** Undefined: to be read back. */
  neighbours: Neighbours | undefined;
}

/** What the DHCP process has to do about it. */
export interface CardChanges {
  /** It must forget a lease before it can serve a new card: to be restarted now. */
  restart: boolean;
  /** It remembers leases of cards that are gone. */
  forget: boolean;
}

const separator = "=== strata ===";
const showScript = `ip -j address show; echo; echo "${separator}"; ip -j neigh show nud permanent`;
const timeoutMs = 15_000;
/** At once, so that the lines stay below what the kernel takes as one argument. */
const portsAtOnce = 256;

export class NetworkCards {
  readonly #applied = new Map<string, Applied>();

  /**
   * Carries out the difference. After a failure the rest is done by the next call.
   * @throws Invalid for values that may not get into files and commands; NotFound for a card in a subnet that the network
   * does not have.
   */
  async apply(plan: NetworkPlan, cards: readonly CardPolicy[], signal: AbortSignal): Promise<CardChanges> {
    requireSubnets(plan, cards);
    const wanted = new Map(cards.map((card) => [card.uid, renderReservation(card)]));
    const reservations = new Reservations(plan.directory);
    const applied = this.#applied.get(plan.uid) ?? {
      cards: [],
      reservations: await reservations.read(),
      neighbours: undefined,
    };
    this.#applied.set(plan.uid, applied);
    for (const uid of [...applied.reservations.keys()].filter((one) => !wanted.has(one))) {
      await reservations.remove(uid);
      applied.reservations.delete(uid);
    }
    let restart = false;
    for (const card of cards) {
      const texts = wanted.get(card.uid);
      const before = applied.reservations.get(card.uid);
      if (!texts || (before?.dhcp === texts.dhcp && before.hosts === texts.hosts)) continue;
      applied.reservations.delete(card.uid);
      if (await reservations.put(card)) restart = true;
      applied.reservations.set(card.uid, texts);
    }
    applied.cards = cards;
    await putNeighbours(plan, applied, signal);
    return { restart, forget: (await reservations.forgotten()).length > 0 };
  }

  /** Brings neighbours and ports back after bridges were mended. */
  async settle(plan: NetworkPlan, signal: AbortSignal): Promise<void> {
    const applied = this.#applied.get(plan.uid);
    if (!applied) return; // the first policy is still to come
    applied.neighbours = undefined;
    await putNeighbours(plan, applied, signal);
  }

  /** The network is gone. */
  drop(uid: string): void {
    this.#applied.delete(uid);
  }
}

async function putNeighbours(plan: NetworkPlan, applied: Applied, signal: AbortSignal): Promise<void> {
  const wanted = planNeighbours(plan, applied.cards);
  let seen = applied.neighbours;
  applied.neighbours = undefined;
  if (seen === undefined) {
    const { links, neighbours } = await observe(plan, signal);
    seen = neighbours;
    const lost = portsToJoin(plan, applied.cards, links);
    for (let start = 0; start < lost.length; start += portsAtOnce) {
      await joinBridge(plan.netnsPath, lost.slice(start, start + portsAtOnce), { signal });
    }
  }
  const { puts, deletes } = renderNeighbours(wanted, seen);
  const batch = (lines: string[], options: string[], expected: number[]) =>
    lines.length === 0
      ? undefined
      : run("nsenter", [`--net=${plan.netnsPath}`, "ip", ...options, "-batch", "-"], {
          input: text(lines),
          signal,
          timeoutMs,
          expected,
        });
  await batch(deletes, ["-force"], [0, 1, 2]);
  await batch(puts, [], [0]);
  applied.neighbours = wanted;
}

async function observe(
  plan: NetworkPlan,
  signal: AbortSignal,
): Promise<{ links: Map<string, SeenLink>; neighbours: Neighbours }> {
  const args = [`--net=${plan.netnsPath}`, "sh", "-c", showScript];
  const { stdout } = await run("nsenter", args, { signal, timeoutMs });
  const [links = "", neighbours = ""] = stdout.split(`${separator}\n`).map((part) => part.trim());
  return {
    links: parseAddresses(links),
    neighbours: seenNeighbours(plan, parseNeighbours(neighbours)),
  };
}

/** Ports that are there, but not in their bridge: it was deleted and made anew. */
export function portsToJoin(
  plan: NetworkPlan,
  cards: readonly CardPolicy[],
  links: ReadonlyMap<string, SeenLink>,
): BridgePort[] {
  const bridges = new Map(plan.subnets.map(({ name, bridge }) => [name, bridge]));
  return cards.flatMap(({ subnet, port, macAddress }) => {
    const bridge = bridges.get(subnet);
    const link = links.get(port);
    return link && bridge !== undefined && link.bridge !== bridge ? [{ port, bridge, macAddress }] : [];
  });
}

function requireSubnets(plan: NetworkPlan, cards: readonly CardPolicy[]): void {
  const known = new Set(plan.subnets.map(({ name }) => name));
  const lost = cards.find(({ subnet }) => !known.has(subnet));
  if (!lost) return;
  throw new StrataError(
    "NotFound",
    `network card ${lost.uid} cannot join network ${plan.uid} on this host: it has no subnet ${lost.subnet} here (yet)`,
  );
}
