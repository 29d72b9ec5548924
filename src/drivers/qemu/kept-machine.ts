/**
 * How a machine was set up when its memory was kept, and whether it would be set up just so again: memory and the state of
 * devices fit no other machine. Pure.
 *
 * The seed is no part of it: a guest reads that when it boots, which it does not.
 */
import { isDeepStrictEqual } from "node:util";
import * as z from "zod";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import { placesOf } from "./card-places.ts";
import { cardIds, diskNodes, execChardevs } from "./command-line.ts";
import { type GuestRecord, launchedSchema } from "./guest-files.ts";

/** What the memory is called in its file, and what it is opened as inside QEMU. */
export const memoryTag = "memory";
export function memoryNames(id: Uid) {
  const node = `copy-${id}-memory`;
  return { node, data: `${node}-data` };
}

export const keptMachineSchema = z.object({
  version: z.literal(1),
  /** QEMU's own version. */
  qemu: z.string(),
  /** Of the host, where the guest sees it; "" under emulation. */
  processor: z.string(),
  launched: launchedSchema,
  /** By name; see partsOf. */
  parts: z.record(z.string(), z.json()),
  /** Names of processors that came since its start. */
  cpus: z.array(z.string()),
  /** Numbers of volumes' disks on their controller, by the volumes' ids. */
  targets: z.record(z.string(), z.int()),
  /** Ports of commands that were running. */
  ports: z.array(z.object({ id: z.string(), nr: z.int() })),
  /** The guest's agent was asked to freeze its file systems, and will be found in the midst of it. */
  frozen: z.boolean(),
});
export type KeptMachine = z.infer<typeof keptMachineSchema>;

/** What a machine consists of, as JSON: what must be the same. */
export function partsOf(record: Pick<GuestRecord, "spec" | "places">): KeptMachine["parts"] {
  const { cpus, memoryMib, root, nics, volumes = [], config } = record.spec;
  const places = placesOf(record);
  const cards = Object.fromEntries(nics.map((nic, index) => [nic.port, { ...nic, place: places[index] }]));
  const disks = Object.fromEntries(volumes.map((volume) => [volume.id, volume]));
  return JSON.parse(JSON.stringify({ size: { cpus, memoryMib }, root, cards, disks, config }));
}

const differences: Readonly<Record<string, string>> = {
  size: "it has another number of CPUs or another amount of memory now",
  root: "its root or its image is another one now",
  cards: "its network cards are not the ones it had",
  disks: "its volumes are not the ones it had",
  config: "its driver's settings are other ones now",
};

export interface NextMachine {
  parts: KeptMachine["parts"];
  accelerator: "kvm" | "tcg";
  processor: string;
}

/** Why the next machine would be another one; undefined when it would not. */
export function differenceOf(kept: KeptMachine, next: NextMachine): string | undefined {
  if (kept.launched.accelerator !== next.accelerator) {
    return `it ran under ${kept.launched.accelerator}, and this host has ${next.accelerator} now`;
  }
  if (kept.processor !== next.processor) return "the host has another processor now";
  for (const [part, difference] of Object.entries(differences)) {
    if (!isDeepStrictEqual(kept.parts[part], next.parts[part])) return difference;
  }
  return undefined;
}

/** What of the machine is on its way in or out, so that its memory fits nothing that could be made again. */
export function unsettled(record: GuestRecord, devices: ReadonlySet<string>): string | undefined {
  const { spec } = record;
  const wanted = new Set([
    ...placesOf(record).map((place) => cardIds(place).device),
    ...(spec.volumes ?? []).map(({ id }) => diskNodes(id).device),
  ]);
  const there = [...devices].filter((name) => /^(nic\d+|disk-.*)$/.test(name));
  if (there.length === wanted.size && there.every((name) => wanted.has(name))) return undefined;
  return "a network card or a volume of it is just coming or leaving";
}

/** Of all devices: processors that came, and the ports of commands. */
export function comers(devices: ReadonlySet<string>): { cpus: string[]; ports: string[] } {
  const names = [...devices].sort();
  return {
    cpus: names.filter((name) => /^cpu\d+$/.test(name)),
    ports: names.filter((name) => execChardevs.includes(name)),
  };
}

/** As blockdev-add takes it, to be read: what QEMU changes goes into a qcow2 layer above the file. By descriptor sets. */
export function keptNode(node: string, { memory, changes }: { memory: number; changes: number }): JsonObject {
  const file = (set: number) => ({ driver: "file", filename: `/dev/fdset/${set}`, aio: "threads" });
  const cache = { direct: false, "no-flush": true };
  const below = { driver: "raw", "read-only": true, file: { ...file(memory), "read-only": true } };
  const layer = { driver: "qcow2", cache, file: { ...file(changes), cache }, backing: below };
  return { "node-name": node, driver: "qcow2", backing: null, cache, file: layer };
}

/** As blockdev-add takes it, to be written. It is written through the host's page cache, and is on disk once all is copied. */
export function memoryNode(node: string, set: number): JsonObject {
  const file = { driver: "file", filename: `/dev/fdset/${set}`, aio: "threads" };
  const cache = { direct: false, "no-flush": true };
  return { "node-name": node, driver: "qcow2", backing: null, cache, file: { ...file, cache } };
}
