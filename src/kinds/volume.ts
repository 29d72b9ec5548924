import { z } from "zod";
import { shortId, type Uid } from "../core/ids.ts";
import { defineKind, immutable, type ResourceOf } from "./kind.ts";

/** Smallest and largest disk. */
export const diskLimits = { minMib: 64, maxMib: 16 * 1024 * 1024 } as const;

export const volumeSpecSchema = z.strictObject({
  sizeMib: z.int().min(diskLimits.minMib).max(diskLimits.maxMib),
  /** The only role so far: the root disk of one instance, made from an image. */
  role: z.literal("root"),
  type: z.enum(["vm", "container"]),
});

export const volumeKind = defineKind({
  name: "Volume",
  plural: "volumes",
  scope: "project",
  summary: "A disk. An instance's root volume is created and deleted with it.",
  spec: volumeSpecSchema,
  status: z.strictObject({
    state: z.enum(["pending", "ready", "failed"]),
    message: z.string().max(1024),
    host: z.string().optional(),
  }),
  initialStatus: () => ({ state: "pending" as const, message: "waiting for its instance" }),
  finalizers: ["agent"],
  internal: true,
  validateUpdate: (next, previous) => immutable(next, previous, ["sizeMib", "role", "type"]),
});
export type Volume = ResourceOf<typeof volumeKind>;

/**
 * The names that the root volume of an instance may have, in the order of preference: `NAME-root` where that is short
 * enough, else (or when it is taken) one that is unique. Whose volume it is, `metadata.owner.uid` tells.
 */
export function rootVolumeNames(instance: string, uid: Uid): [plain: string | undefined, unique: string] {
  const plain = `${instance}-root`;
  return [plain.length <= 63 ? plain : undefined, `${instance.slice(0, 49)}-${shortId(uid)}-root`];
}
