import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import { exportFormats } from "../../kinds/image.ts";

/** What a client may ask of an exec session. */
export const execParameters = z.strictObject({
  command: z
    .array(z.string().max(128 * 1024))
    .min(1)
    .max(1024),
  env: z.record(z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/), z.string().max(128 * 1024)).default({}),
  /** With a terminal of that size. */
  tty: z.strictObject({ columns: z.int().min(1).max(10_000), rows: z.int().min(1).max(10_000) }).optional(),
});

export const consoleParameters = z.strictObject({});

export const logParameters = z.strictObject({
  tailBytes: z
    .int()
    .min(0)
    .max(16 * 1024 * 1024)
    .default(64 * 1024),
  follow: z.boolean().default(false),
});

export const exportParameters = z.strictObject({ format: z.enum(exportFormats) });

export const backupFileParameters = z.strictObject({
  path: z.string().min(1).max(4096),
  /** Of an instance's backup: in this volume. Default: in its root. */
  volume: z.string().max(63).optional(),
});

/** @throws Invalid naming the first wrong parameter. */
export function readParameters<T>(schema: z.ZodType<T>, verb: string, parameters: JsonObject): T {
  const parsed = schema.safeParse(parameters);
  if (parsed.success) return parsed.data;
  const [issue] = parsed.error.issues;
  const where = issue?.path.join(".") || "parameters";
  throw new StrataError("Invalid", `cannot open ${verb}: ${where}: ${issue?.message ?? "is not allowed"}`);
}
