/** A file from elsewhere, brought here and checked before anything reads it. */
import { createHash } from "node:crypto";
import { createReadStream, type ReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";
import { formatBytes } from "../../core/units.ts";
import type { Checksum } from "./checksum-list.ts";
import { type Packing, packingOf } from "./decompression.ts";

export interface Artefact {
  path: string;
  sha256: string;
  sizeBytes: number;
  packing: Packing;
  read(): ReadStream;
}

export const maxArtefactBytes = 16 * 1024 ** 3;

/**
 * Writes the stream to `path`.
 * @throws Invalid when it is too large, empty, or does not have the expected checksum.
 */
export async function spool(
  source: AsyncIterable<Uint8Array>,
  path: string,
  signal: AbortSignal,
  expected?: Checksum,
  onBytes?: (bytes: number) => void,
): Promise<Artefact> {
  const sum = createHash("sha256");
  const other = expected && expected.algorithm !== "sha256" ? createHash(expected.algorithm) : undefined;
  let start = Buffer.alloc(0);
  let sizeBytes = 0;
  await using file = await open(path, "wx", 0o600);
  for await (const chunk of source) {
    signal.throwIfAborted();
    sizeBytes += chunk.length;
    if (sizeBytes > maxArtefactBytes) {
      throw new StrataError(
        "Invalid",
        `the image file is larger than ${formatBytes(maxArtefactBytes)}, the limit`,
      );
    }
    if (start.length < 16) start = Buffer.concat([start, chunk]).subarray(0, 16);
    sum.update(chunk);
    other?.update(chunk);
    await file.writeFile(chunk);
    onBytes?.(sizeBytes);
  }
  if (sizeBytes === 0) throw new StrataError("Invalid", "the image file is empty");
  const sha256 = sum.digest("hex");
  const found = other?.digest("hex") ?? sha256;
  if (expected !== undefined && expected.digits !== found) {
    const name = expected.algorithm.replace("sha", "SHA-");
    throw new StrataError(
      "Invalid",
      `the image file has the ${name} ${found}, not ${expected.digits} as asked for; check the source or the checksum`,
    );
  }
  return { path, sha256, sizeBytes, packing: packingOf(start), read: () => createReadStream(path) };
}
