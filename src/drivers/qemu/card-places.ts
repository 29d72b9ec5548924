import { StrataError } from "../../core/errors.ts";
import { cardPorts } from "./command-line.ts";
import type { CardPlaces, GuestRecord } from "./guest-files.ts";

/**
 * A place in the machine for each card. The first one's is 0, for life; the others keep theirs for as long as they are
 * plugged in, so that they have the same name in the guest after a restart.
 * @throws CapacityExceeded when there are more cards than places.
 */
export function placeCards(
  nics: readonly { port: string }[],
  known: CardPlaces,
  occupied: readonly number[] = [],
): CardPlaces {
  const [first, ...further] = nics;
  const places = new Map<string, number>();
  if (first) places.set(first.port, 0);
  const taken = new Set(occupied);
  for (const { port } of further) {
    const place = known[port];
    if (place === undefined || place === 0 || taken.has(place)) continue;
    places.set(port, place);
    taken.add(place);
  }
  for (const { port } of further) {
    if (places.has(port)) continue;
    const place = firstFree(taken);
    places.set(port, place);
    taken.add(place);
  }
  return Object.fromEntries(places);
}

/** Of a record of any version. */
export function placesOf({ spec, places }: Pick<GuestRecord, "spec" | "places">): number[] {
  const all = placeCards(spec.nics, places ?? {});
  return spec.nics.map(({ port }) => all[port] ?? 0);
}

function firstFree(taken: ReadonlySet<number>): number {
  for (let place = 1; place <= cardPorts; place++) if (!taken.has(place)) return place;
  throw new StrataError(
    "CapacityExceeded",
    `a virtual machine has places for ${cardPorts} network cards beside its own, and all of them are taken`,
  );
}
