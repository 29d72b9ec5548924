import * as z from "zod";

/** How a fake guest behaves. */
export const fakeConfigSchema = z.strictObject({
  /** How long it takes to shut down when asked to; "never" ignores the request. */
  shutdownMs: z.union([z.int().min(0), z.literal("never")]).default(0),
  /** Ends by itself this long after each start. */
  lifetimeMs: z.int().min(0).optional(),
  endsBy: z.enum(["poweroff", "crash"]).default("poweroff"),
});
export type FakeConfig = z.infer<typeof fakeConfigSchema>;
