/**
 * The files that a root disk consists of: the guest's own, then those it is based on. Asked once, when the guest is made:
 * a QEMU that was taken over can write anything into its disk's header, and must not be given that file at its next start.
 */
import { dirname, resolve } from "node:path";
import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import { run } from "../../host/run.ts";

export interface ChainFile {
  path: string;
  format: "qcow2" | "raw";
}

/** An overlay on a base has 2. More would only be slow. */
const maxDepth = 8;

const infoSchema = z.array(
  z.object({
    filename: z.string(),
    format: z.enum(["qcow2", "raw"], { error: "must be qcow2 or raw" }),
    "full-backing-filename": z.string().optional(),
  }),
);

/**
 * @throws Unavailable when a file is missing or no disk image, Internal when the chain is not what disks make.
 */
export async function readDiskChain(
  disk: ChainFile,
  signal: AbortSignal,
): Promise<[ChainFile, ...ChainFile[]]> {
  // A raw disk's content is the guest's: its format is never guessed from it.
  if (disk.format === "raw") return [disk];
  const { stdout } = await run(
    "qemu-img",
    ["info", "--force-share", "--backing-chain", "--output=json", "-f", "qcow2", disk.path],
    { signal },
  ).catch((cause) => {
    signal.throwIfAborted();
    throw new StrataError("Unavailable", "the guest's root disk or its image cannot be read", { cause });
  });
  return parseDiskChain(disk, stdout);
}

/** From the output of `qemu-img info`. */
export function parseDiskChain(disk: ChainFile, output: string): [ChainFile, ...ChainFile[]] {
  const parsed = infoSchema.safeParse(JSON.parse(output));
  if (!parsed.success || parsed.data.length > maxDepth) {
    throw new StrataError("Internal", "the guest's root disk is based on something that is no disk of ours", {
      detail: parsed.error?.message ?? `${parsed.data?.length} levels`,
    });
  }
  const bases = parsed.data.slice(1).map(({ filename, format }) => ({
    path: resolve(dirname(disk.path), filename),
    format,
  }));
  return [disk, ...bases];
}
