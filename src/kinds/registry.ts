import { eventKind } from "./event.ts";
import { hostKind } from "./host.ts";
import { imageKind } from "./image.ts";
import { instanceKind } from "./instance.ts";
import { keyPairKind } from "./key-pair.ts";
import type { Kind } from "./kind.ts";
import { leaseKind } from "./lease.ts";
import { networkKind } from "./network.ts";
import { projectKind } from "./project.ts";
import { tokenKind } from "./token.ts";
import { volumeKind } from "./volume.ts";

/** Every kind, in the order in which a stack creates them (a kind may name those before it). */
export const kinds = [
  projectKind,
  hostKind,
  tokenKind,
  leaseKind,
  keyPairKind,
  networkKind,
  imageKind,
  volumeKind,
  instanceKind,
  eventKind,
] as const;

export function findKind(nameOrPlural: string): Kind | undefined {
  return kinds.find((kind) => kind.name === nameOrPlural || kind.plural === nameOrPlural) as Kind | undefined;
}
