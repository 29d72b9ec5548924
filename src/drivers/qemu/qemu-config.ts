import * as z from "zod";
import type { JsonObject } from "../../core/json.ts";

/** What a guest may set beyond the common specification; all of it optional. */
export const qemuConfigSchema = z.strictObject({
  /** A QEMU CPU model under KVM, for guests that must move between unlike hosts. Left out: the host's own CPU. */
  cpuModel: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, { error: "must be the name of a QEMU CPU model" })
    .optional(),
});
export type QemuConfig = z.infer<typeof qemuConfigSchema> & JsonObject;
