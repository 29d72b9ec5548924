import * as z from "zod";
import { conditionSchema, defineKind, immutable, type ResourceOf } from "./kind.ts";

/** Shown in place of secrets; never a secret itself. */
export const hiddenSecret = "(hidden)";

const secret = (what: string, min: number) =>
  z
    .string()
    .min(min)
    .max(1024)
    .regex(/^[\x21-\x7e]+$/, { error: `must be ${what} of printable ASCII characters without spaces` })
    .refine((text) => text !== hiddenSecret, { error: `is what stands for a hidden one; give ${what}` });

/** As restic's own keys, at least this long: it is all that keeps what is in there from whoever gets hold of it. */
export const minKeyLength = 16;

const directorySchema = z.strictObject({
  /** Below a directory that the host's operator has named for backups. Made where it is missing. */
  path: z
    .string()
    .max(512)
    .regex(/^(\/(?!\.\.?(\/|$))[A-Za-z0-9._@=+-]+)+$/, {
      error:
        "must be an absolute path of letters, digits and . _ @ = + - without `.`, `..`, `//` or a / at its end",
    }),
});

const s3Schema = z.strictObject({
  endpoint: z
    .url({ protocol: /^https?$/, error: "must be an http:// or https:// URL" })
    .max(500)
    .regex(/^https?:\/\/[A-Za-z0-9.:[\]-]+\/?$/, {
      error: "must be a scheme, a host and perhaps a port, such as https://s3.example.org",
    }),
  bucket: z.string().regex(/^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$/, { error: "must be the name of a bucket" }),
  prefix: z
    .string()
    .max(200)
    .regex(/^[A-Za-z0-9_-][A-Za-z0-9._-]*(\/[A-Za-z0-9_-][A-Za-z0-9._-]*)*$/, {
      error: "must be names of letters, digits and . _ - with / between, none of which begins with a dot",
    })
    .optional(),
  region: z
    .string()
    .regex(/^[a-z0-9-]{1,40}$/)
    .optional(),
  accessKeyId: z
    .string()
    .min(1)
    .max(256)
    .regex(/^[\x21-\x7e]+$/),
  /** Never shown again. */
  secretAccessKey: secret("the secret access key", 1),
});

export const backupRepositorySpecSchema = z
  .strictObject({
    directory: directorySchema.optional(),
    s3: s3Schema.optional(),
    /**
     * Encrypts all that is in there. Never shown again, and without it nothing in there can ever be read: whoever made it
     * keeps it.
     */
    key: secret("the key", minKeyLength),
    /** How often it was asked to be read as a whole; one more than before does so once. */
    checks: z.int().min(0).default(0),
    /**
     * It will not come back, or its key will not: backups in it can be deleted without what is in there, and nothing in there
     * is touched any more. May be taken back for what has not been deleted yet.
     */
    lost: z.boolean().default(false),
  })
  .refine(({ directory, s3 }) => (directory === undefined) !== (s3 === undefined), {
    error: "needs directory or s3, and not both",
  });

export const backupRepositoryKind = defineKind({
  name: "BackupRepository",
  plural: "backup-repositories",
  scope: "project",
  summary: "Where backups are kept, encrypted with a key that its owner holds: a directory, or an S3 bucket.",
  spec: backupRepositorySpecSchema,
  status: z.strictObject({
    state: z.enum(["pending", "ready", "failed"]),
    message: z.string().max(1024),
    /** Whose agent looks after it, and whose directory it is in. */
    host: z.string().optional(),
    /** Of what was found or made there: another one in its place is refused. */
    repositoryId: z.string().optional(),
    /** `Intact`: all of it was read and is as it was written. */
    conditions: z.array(conditionSchema),
    /** The `spec.checks` that have been carried out. */
    checks: z.int().min(0),
    checkedAt: z.string().optional(),
    observedGeneration: z.int().min(0),
  }),
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for its host to open it",
    conditions: [],
    checks: 0,
    observedGeneration: 0,
  }),
  validateUpdate(next, previous) {
    const errors = immutable(next, previous, ["directory"]);
    const [to, from] = [next.s3, previous.s3];
    if ((to && placeOf(to)) !== (from && placeOf(from))) {
      errors.push({ path: "spec.s3", message: "cannot lead to another place", allowed: "new access keys" });
    }
    if (next.checks < previous.checks) {
      errors.push({ path: "spec.checks", message: "can only grow", allowed: `>= ${previous.checks}` });
    }
    return errors;
  },
});
export type BackupRepository = ResourceOf<typeof backupRepositoryKind>;

function placeOf({ endpoint, bucket, prefix = "" }: z.infer<typeof s3Schema>): string {
  return `${endpoint} ${bucket} ${prefix}`;
}

/** One line that says where it is. */
export function repositoryPlace({ spec }: BackupRepository): string {
  if (spec.directory) return spec.directory.path;
  const { endpoint = "", bucket = "", prefix } = spec.s3 ?? {};
  return `${endpoint.replace(/\/$/, "")}/${bucket}${prefix === undefined ? "" : `/${prefix}`}`;
}
