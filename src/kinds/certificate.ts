import * as z from "zod";
import { defineKind, type ResourceOf } from "./kind.ts";

const pem = (what: string) =>
  z
    .string()
    .max(64 * 1024)
    .regex(/^-----BEGIN [A-Z0-9 ]+-----\n/, { error: `must be ${what} in PEM form` });

const domain = z
  .string()
  .max(253)
  .regex(/^(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, {
    error: "must be a domain name in small letters (no wildcard)",
  });

/** What is shown instead of a private key: whoever has the key sees by its SHA-256, hexadecimal, whether it is this one. */
export function hiddenKey(sha256: string): string {
  return `-----BEGIN HIDDEN PRIVATE KEY-----\nsha256 ${sha256}\n-----END HIDDEN PRIVATE KEY-----\n`;
}

/**
 * A token and its answer are written into the balancers' configuration and commands: nothing but what RFC 8555 (8.1, 8.3)
 * has in them may get there, whatever an authority sends.
 */
export const challengeForms = {
  token: /^[A-Za-z0-9_-]{1,256}$/,
  answer: /^[A-Za-z0-9_-]{1,256}\.[A-Za-z0-9_-]{1,128}$/,
} as const;

/** Of one's own, or from an authority that speaks ACME (RFC 8555), proven by HTTP (http-01). */
export const certificateSpecSchema = z
  .strictObject({
    /** The certificate and those above it, then its private key. The key is never shown again. */
    own: z.strictObject({ certificate: pem("a certificate"), privateKey: pem("a private key") }).optional(),
    acme: z
      .strictObject({
        domains: z.array(domain).min(1).max(100),
        directory: z.url({ protocol: /^https$/ }).default("https://acme-v02.api.letsencrypt.org/directory"),
        /** Where the authority writes to. */
        email: z.email().optional(),
        /** Certificates that the authority's own HTTPS is checked with, PEM. Default: the system's. */
        authorities: pem("certificates").optional(),
        /** Renewed so long before it ends. */
        renewBeforeDays: z.int().min(1).max(60).default(30),
      })
      .optional(),
  })
  .refine(({ own, acme }) => (own === undefined) !== (acme === undefined), {
    error: "needs own or acme, and not both",
  });

export const certificateKind = defineKind({
  name: "Certificate",
  plural: "certificates",
  scope: "project",
  summary: "A TLS certificate for load balancers, of one's own or from an ACME authority.",
  spec: certificateSpecSchema,
  status: z.strictObject({
    /** `ready` also while a renewal is under way or failed: then `message` says so. */
    state: z.enum(["pending", "ready", "failed"]),
    message: z.string().max(1024),
    observedGeneration: z.int().min(0),
    /** What balancers use: the chain, PEM, and its private key, which the API does not show. */
    chain: z.string().optional(),
    privateKey: z.string().optional(),
    /** SHA-256 of the first certificate, hexadecimal. */
    fingerprint: z.string().optional(),
    domains: z.array(z.string()),
    notAfter: z.string().optional(),
    /** Answers that balancers give to the authority, by token. */
    challenges: z.record(z.string().regex(challengeForms.token), z.string().regex(challengeForms.answer)),
    renewAt: z.string().optional(),
  }),
  initialStatus: () => ({
    state: "pending" as const,
    message: "",
    observedGeneration: 0,
    domains: [],
    challenges: {},
  }),
});
export type Certificate = ResourceOf<typeof certificateKind>;
