import * as z from "zod";
import { defineKind, immutable, type ResourceOf } from "./kind.ts";

export const keyPairSpecSchema = z.strictObject({
  /** One line in the form of authorized_keys. The private half is never stored. */
  publicKey: z
    .string()
    .max(8192)
    .regex(
      /^(ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(256|384|521)|sk-[a-z0-9@.-]+) [A-Za-z0-9+/]+={0,3}( [^\r\n]*)?$/,
      {
        error: "must be one line as in ~/.ssh/id_ed25519.pub",
      },
    ),
});

export const keyPairKind = defineKind({
  name: "KeyPair",
  plural: "key-pairs",
  scope: "project",
  summary: "A public SSH key that instances accept.",
  spec: keyPairSpecSchema,
  status: z.strictObject({}),
  initialStatus: () => ({}),
  validateUpdate: (next, previous) => immutable(next, previous, ["publicKey"]),
});
export type KeyPair = ResourceOf<typeof keyPairKind>;
