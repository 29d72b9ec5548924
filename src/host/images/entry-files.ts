/** Where an entry keeps what, and its description. */
import { randomUUID } from "node:crypto";
import { readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import * as z from "zod";

export const entryPaths = (directory: string) => ({
  directory,
  manifest: join(directory, "manifest.json"),
  description: join(directory, "image.json"),
  /** Only the ids of guests may pass: trees hold set-user-id programs whose owners are guests' ids. */
  guarded: join(directory, "root"),
  tree: join(directory, "root", "tree"),
  disk: join(directory, "disk.qcow2"),
  diskDescription: join(directory, "disk.json"),
  kernel: join(directory, "vmlinuz"),
  initrd: join(directory, "initrd"),
  verified: join(directory, "verified.json"),
});
export type EntryPaths = ReturnType<typeof entryPaths>;

const sha256 = z.string().regex(/^[0-9a-f]{64}$/);

export const descriptionSchema = z.object({
  version: z.literal(1),
  digest: z.string(),
  sizeBytes: z.int(),
  entryCount: z.int(),
  os: z.string(),
  types: z.array(z.enum(["vm", "container"])),
  limitation: z.string(),
  remark: z.string().default(""),
  dataPaths: z.array(z.string()).default([]),
  /** Hashes of vmlinuz and initrd. */
  boot: z.object({ kernel: sha256, initrd: sha256.optional() }).optional(),
  /** Where VMs start the imported disk as it is. */
  firmware: z.enum(["bios", "uefi"]).optional(),
  /** Of the tree, where the digest is not that; absent also when there is no tree. */
  treeDigest: z.string().optional(),
});
export type Description = z.infer<typeof descriptionSchema>;

export const diskDescriptionSchema = z.object({ version: z.literal(1), sha256, sizeMib: z.int() });

/** Reads JSON of a known form; undefined when it is missing or not of that form. */
export async function readJson<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  try {
    return schema.safeParse(JSON.parse(await readFile(path, "utf8"))).data;
  } catch {
    return undefined;
  }
}

/** Replaces the file at once: readers see the old or the new one. */
export async function writeJson(path: string, value: unknown): Promise<void> {
  const next = `${path}.${randomUUID()}`;
  try {
    await writeFile(next, `${JSON.stringify(value, undefined, 2)}\n`, { flush: true });
    await rename(next, path);
  } catch (error) {
    await rm(next, { force: true });
    throw error;
  }
}
