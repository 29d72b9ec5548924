import type { z } from "zod";
import { applicationSchema } from "../../kinds/instance.ts";

/** An application as in an instance's specification; without a command the image's own init runs. */
export const dockerConfigSchema = applicationSchema.partial({ command: true });
export type DockerConfig = z.infer<typeof dockerConfigSchema>;
