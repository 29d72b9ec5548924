import * as z from "zod";
import { catalogueNames } from "./image-catalogue.ts";
import {
  conditionSchema,
  defineKind,
  immutable,
  nameSchema,
  progressSchema,
  type ResourceOf,
} from "./kind.ts";

export const digestSchema = z.string().regex(/^sha256:[0-9a-f]{64}$/, {
  error: "must be sha256: and 64 hexadecimal digits",
});

const packageName = z
  .string()
  .regex(/^[a-z0-9][a-z0-9+.-]{0,99}$/, { error: "must be a Debian package name" });
const httpUrl = z.url({ protocol: /^https?$/, error: "must be an http:// or https:// URL" }).max(2000);
/** Of imports and exports: a root archive, disk images, an appliance (OVF in one file), images of layers, a template. */
export const artefactFormats = [
  "tar",
  "qcow2",
  "raw",
  "vmdk",
  "vdi",
  "vhdx",
  "ova",
  "oci",
  "docker",
  "lxc",
] as const;
const artefact = z.enum(artefactFormats);
export type ArtefactFormat = z.infer<typeof artefact>;
/** What can be had of an image: each of the above, and a list of its software (SPDX 2.3, JSON). */
export const exportFormats = [...artefactFormats, "spdx"] as const;
export type ExportFormat = (typeof exportFormats)[number];
/**
 * How a VM starts from an image: `direct`, with the kernel of the root tree on a disk made of the tree; `firmware`, from
 * the disk as it was imported, by BIOS or UEFI and its own boot loader.
 */
const bootSchema = z.enum(["direct", "firmware"]);
export type Boot = z.infer<typeof bootSchema>;

const maxBuildSeconds = 2 * 3600;

/** Where an image comes from. Each leads to the same thing: one root tree, addressed by the hash of its content. */
export const imageSourceSchema = z.discriminatedUnion("type", [
  z.strictObject({
    /** Built from a Debian suite by mmdebstrap. */
    type: z.literal("debian"),
    suite: z.enum(["bookworm", "trixie"], { error: "must be bookworm (Debian 12) or trixie (Debian 13)" }),
    /** Installed on top of what every image needs (init, SSH, cloud-init, kernel, guest agent). */
    packages: z.array(packageName).max(200).default([]),
  }),
  z.strictObject({
    /** A root tarball, disk image or appliance sent to the API beforehand (POST /v1/uploads). */
    type: z.literal("upload"),
    upload: z.string().max(100),
    format: artefact,
    /** Of disks only. Left out: direct where the tree holds all that the disk held, with a kernel; else firmware. */
    boot: bootSchema.optional(),
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional(),
  }),
  z.strictObject({
    /** Built of a Dockerfile by a builder of the host: its Docker Engine, or another that is installed. */
    type: z.literal("dockerfile"),
    /** The build's context, a tar that was sent to the API beforehand (POST /v1/uploads). */
    upload: z.string().max(100),
    /** Of the context, for whoever sent it: tells whether the same one was sent before. Not looked at by the host. */
    sha256: z
      .string()
      .regex(/^[0-9a-f]{64}$/)
      .optional(),
    /** The Dockerfile's path in the context. */
    file: z.string().min(1).max(1000).default("Dockerfile"),
    /** The stage that becomes the image; left out, the last one. */
    target: z
      .string()
      .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/, { error: "must be the name or number of a stage" })
      .optional(),
    /** Values of the Dockerfile's ARGs. */
    args: z
      .record(
        z.string().regex(/^[A-Za-z_][A-Za-z0-9_]*$/, { error: "must be the name of a variable" }),
        z.string().max(32 * 1024),
      )
      .default({}),
    /** False: every step is made anew, and so is an image that was built of the same context before. */
    cache: z.boolean().default(true),
    limits: z
      .strictObject({
        /** Of each step, in MiB. */
        memoryMib: z
          .int()
          .min(64)
          .max(1024 * 1024)
          .default(2048),
        /** Processor time per time, of each step; the host's guests come first in any case. */
        cpus: z.number().min(0.1).max(1024).default(2),
        /** Of the whole build, in seconds. */
        seconds: z
          .int()
          .min(5)
          .max(maxBuildSeconds, {
            error: `must be at most ${maxBuildSeconds}: builds of a host wait for each other`,
          })
          .default(1800),
      })
      .default({ memoryMib: 2048, cpus: 2, seconds: 1800 }),
  }),
  z.strictObject({
    type: z.literal("url"),
    url: httpUrl,
    format: artefact,
    /** As for uploads. */
    boot: bootSchema.optional(),
    /** Required: what is fetched is used only when it has this checksum. */
    sha256: z.string().regex(/^[0-9a-f]{64}$/, { error: "must be 64 hexadecimal digits" }),
  }),
  z.strictObject({
    /** An image that everybody knows, by its name in the catalogue: `debian/12`. Its checksum is looked up with it. */
    type: z.literal("catalogue"),
    name: z.enum(catalogueNames, { error: `must be one of ${catalogueNames.join(", ")}` }),
  }),
  z.strictObject({
    /** A simplestreams server, as Incus, LXD and Ubuntu use them. */
    type: z.literal("simplestreams"),
    server: httpUrl,
    /** An alias or product name there, such as `debian/12`. */
    alias: z.string().min(1).max(200),
  }),
  z.strictObject({
    /** What an instance has on its root at the moment of making, also while it runs; who it is stays out of it. */
    type: z.literal("instance"),
    instance: nameSchema,
  }),
  z.strictObject({
    /** The root in a backup of an instance; who it was stays out of it. */
    type: z.literal("backup"),
    backup: nameSchema,
  }),
]);
export type ImageSource = z.infer<typeof imageSourceSchema>;

export const imageSpecSchema = z.strictObject({
  description: z.string().max(200).default(""),
  source: imageSourceSchema,
  /** Not deleted, and kept by `image gc`. */
  protected: z.boolean().default(false),
});

export const originLimits = { steps: 200, stepLength: 500 } as const;

/** What is known of how an image came to be, beside its source. */
export const imageOriginSchema = z.strictObject({
  /** When its host made it, RFC 3339. */
  madeAt: z.string(),
  /** The file that it was read from. */
  artefact: z
    .strictObject({
      format: artefact,
      sha256: z.string().regex(/^[0-9a-f]{64}$/),
      sizeBytes: z.int().min(0),
    })
    .optional(),
  /** Of images of layers: the steps that made them, as their builder wrote them down, the first first. */
  steps: z
    .array(z.strictObject({ at: z.string().max(64).optional(), by: z.string().max(originLimits.stepLength) }))
    .max(originLimits.steps),
});
export type ImageOrigin = z.infer<typeof imageOriginSchema>;

export const imageStatusSchema = z.strictObject({
  state: z.enum(["pending", "building", "ready", "failed"]),
  message: z.string().max(2048),
  /** Hash over the root tree's content: the image's identity. Present once ready. */
  digest: digestSchema.optional(),
  sizeBytes: z.int().min(0).optional(),
  /** Which types of guest can start from it. */
  types: z.array(z.enum(["vm", "container"])),
  /** How a virtual machine starts from it; absent when none can. */
  boot: bootSchema.optional(),
  /** `Debian GNU/Linux 12 (bookworm)`, from os-release. */
  os: z.string().max(200).optional(),
  /** Left out for images that were made before this was recorded. */
  origin: imageOriginSchema.optional(),
  /** The host whose agent makes it. */
  host: z.string().optional(),
  progress: progressSchema.optional(),
  observedGeneration: z.int().min(0),
  conditions: z.array(conditionSchema),
});

export const imageKind = defineKind({
  name: "Image",
  plural: "images",
  scope: "project",
  summary: "One root tree with a kernel beside it: starts as a virtual machine and as a container.",
  spec: imageSpecSchema,
  status: imageStatusSchema,
  initialStatus: () => ({
    state: "pending" as const,
    message: "waiting for a host to make it",
    types: [],
    observedGeneration: 0,
    conditions: [],
  }),
  finalizers: ["agent"],
  validateUpdate: (next, previous) => immutable(next, previous, ["source"]),
});
export type Image = ResourceOf<typeof imageKind>;
export type ImageStatus = Image["status"];
