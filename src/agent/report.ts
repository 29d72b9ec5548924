import type { Client } from "../client/client.ts";
import type { Ref } from "../kinds/keys.ts";
import type { Kind, Resource } from "../kinds/kind.ts";
import type { ResourceView } from "./resource-view.ts";
import { statusPatch } from "./status-patch.ts";

/**
 * Writes what differs between the resource's status and `next`, and lets the view know at once. False when nothing
 * differs, and nothing was sent.
 * @throws NotFound when the resource is gone.
 */
export async function reportStatus<S, T extends object>(
  client: Client,
  kind: Kind<S, T>,
  view: ResourceView<S, T>,
  resource: Resource<S, T>,
  next: T,
  signal: AbortSignal,
): Promise<boolean> {
  const patch = statusPatch(resource.status, next);
  if (!patch) return false;
  const { metadata } = resource;
  view.learn(
    view.keyOf(resource),
    await client.patchStatus(kind, metadata as Ref, metadata.uid, patch, { signal }),
  );
  return true;
}
