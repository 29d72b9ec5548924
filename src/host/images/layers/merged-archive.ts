/**
 * Layers as one root archive. They are read twice: first to learn what is where (and that all of it is within the
 * limits and has the checksums that the image tells), then for the content that is left. Only names are held in memory.
 */
import { createHash } from "node:crypto";
import { StrataError } from "../../../core/errors.ts";
import { type TarHeader, tarEnd, tarPadding, writeTarHeader } from "../../../core/tar-writer.ts";
import { formatBytes } from "../../../core/units.ts";
import { unpackStream } from "../decompression.ts";
import type { Replacement, TreeTidying } from "../dockerfile/tidy-tree.ts";
import type { ArchiveLimits } from "../root-archive.ts";
import { readTar, show, type TarEntry } from "../tar-reader.ts";
import type { LayerFile } from "./image-archive.ts";
import { entryId, type LayerEntry, LayerMerge } from "./layer-merge.ts";

/** Of files that are written anew. */
const maxTextBytes = 1024 ** 2;

/**
 * `tidy` is asked, with all paths, what should become of each.
 * @throws (while reading) Invalid for layers that are damaged, climb, or unpack to more than the limits.
 */
export async function* mergedArchive(
  layers: readonly LayerFile[],
  limits: ArchiveLimits,
  signal: AbortSignal,
  tidy?: (paths: ReadonlySet<string>) => TreeTidying,
): AsyncGenerator<Buffer, void, void> {
  const merge = new LayerMerge();
  const budget = { entries: 0, bytes: 0, packed: 0 };
  for (const layer of layers) merge.add(await listEntries(layer, limits, budget, signal));
  const paths = merge.paths();
  const tidying = tidy?.(new Set([...paths.values()].flat()));
  for (const [number, layer] of layers.entries()) {
    let index = 0;
    for await (const entry of readTar(unpackStream(layer.read(), layer.packing, signal))) {
      const names = paths.get(entryId(number, index++));
      if (names) yield* copyTidied(entry, names, tidying);
    }
  }
  for (const [path, content] of tidying?.missing ?? []) yield* replace({ ...newEntry, path }, content, "");
  yield tarEnd;
}

const newEntry: TarHeader = {
  ...{ path: "", type: "file", target: "", sizeBytes: 0, mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0 },
  attributes: new Map(),
};

async function* copyTidied(
  entry: TarEntry,
  paths: readonly string[],
  tidying: TreeTidying | undefined,
): AsyncGenerator<Buffer, void, void> {
  const isDirectory = entry.type === "directory";
  const kept = tidying ? paths.filter((path) => tidying.of(path, isDirectory) !== "drop") : paths;
  if (kept.length === 0) return;
  const tidied = tidying?.of(kept[0] ?? "", isDirectory);
  if (tidied === undefined || typeof tidied === "string") yield* copy(entry, kept);
  else yield* replace({ ...entry, path: kept[0] ?? "" }, tidied, await readText(entry));
}

function* replace(entry: TarHeader, content: Replacement, before: string): Generator<Buffer, void, void> {
  const plain = { ...entry, attributes: new Map<string, Uint8Array>() };
  if ("link" in content) {
    yield writeTarHeader({ ...plain, type: "symlink", target: content.link, mode: 0o777, sizeBytes: 0 });
    return;
  }
  const text = Buffer.from(content.text(before));
  yield writeTarHeader({ ...plain, type: "file", target: "", sizeBytes: text.length });
  yield text;
  yield tarPadding(text.length);
}

async function readText(entry: TarEntry): Promise<string> {
  if (entry.sizeBytes > maxTextBytes) {
    throw new StrataError(
      "Invalid",
      `"${show(entry.path)}" has ${entry.sizeBytes} bytes; ${maxTextBytes} is the limit`,
    );
  }
  const chunks: Uint8Array[] = [];
  for await (const chunk of entry.content) chunks.push(Uint8Array.from(chunk));
  return Buffer.concat(chunks).toString("utf8");
}

async function* copy(entry: TarEntry, paths: readonly string[]): AsyncGenerator<Buffer, void, void> {
  const [first = "", ...others] = paths;
  const path = first === "" ? "." : first;
  yield writeTarHeader({ ...entry, path });
  for await (const chunk of entry.content) yield Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length);
  yield tarPadding(entry.sizeBytes);
  for (const other of others) {
    const link = { ...entry, path: other, type: "hardlink" as const, target: first, sizeBytes: 0 };
    yield writeTarHeader({ ...link, attributes: new Map() });
  }
}

async function listEntries(
  layer: LayerFile,
  limits: ArchiveLimits,
  budget: { entries: number; bytes: number; packed: number },
  signal: AbortSignal,
): Promise<LayerEntry[]> {
  const sum = createHash("sha256");
  const entries: LayerEntry[] = [];
  let unpacked = 0;
  const summed = async function* () {
    for await (const chunk of unpackStream(layer.read(), layer.packing, signal)) {
      sum.update(chunk);
      unpacked += chunk.length;
      checkBudget(limits, budget.bytes + unpacked, budget.packed + layer.sizeBytes);
      yield chunk;
    }
  };
  for await (const { path, type, target } of readTar(summed())) {
    entries.push({ path, type, target });
    if (++budget.entries > limits.maxEntries) {
      throw new StrataError("Invalid", `the image's layers have more than ${limits.maxEntries} entries`);
    }
  }
  budget.bytes += unpacked;
  budget.packed += layer.sizeBytes;
  if (layer.diffId !== undefined && sum.digest("hex") !== layer.diffId) {
    throw new StrataError(
      "Invalid",
      "a layer of the image does not have the checksum that its configuration tells",
    );
  }
  return entries;
}

function checkBudget(
  { maxUnpackedBytes, maxRatio, ratioFromBytes }: ArchiveLimits,
  unpacked: number,
  packed: number,
): void {
  if (unpacked > maxUnpackedBytes) {
    throw new StrataError(
      "Invalid",
      `the image's layers unpack to more than ${formatBytes(maxUnpackedBytes)}, the limit`,
    );
  }
  if (unpacked > ratioFromBytes && unpacked > packed * maxRatio) {
    throw new StrataError(
      "Invalid",
      `the image's layers unpack to more than ${maxRatio} times their packed size; this looks like a decompression bomb`,
    );
  }
}
