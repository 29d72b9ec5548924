/**
 * A root tree as an image of one layer, in a file that OCI tools and `docker load` both read (an OCI layout with Docker's
 * manifest.json beside it), or as a template of Incus and LXD. Nothing in them depends on when or where they were made.
 */
import { createHash, hash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { canonicalJson, type Json } from "../../../core/json.ts";
import { plainFileHeader, tarEnd, tarPadding } from "../../../core/tar-writer.ts";
import { withTreeArchive } from "../tree-archive.ts";

export interface TreeExport {
  tree: { path: string; idBase: number };
  /** PRETTY_NAME of the tree's system. */
  os: string;
  /** Of the work; must exist. */
  directory: string;
  signal: AbortSignal;
  /** Of the image; left out, one that starts the tree's init. */
  config?: Json;
}

type Use = (bytes: AsyncIterable<Uint8Array>) => Promise<void>;

const architectures: Record<string, { oci: string; lxc: string }> = {
  x64: { oci: "amd64", lxc: "x86_64" },
  arm64: { oci: "arm64", lxc: "aarch64" },
};
const architecture = architectures[process.arch] ?? { oci: process.arch, lxc: process.arch };
const mediaType = "application/vnd.oci.image";
const templateRoot = "rootfs";

/** An OCI layout and what `docker save` would write, in one. */
export async function exportLayers(request: TreeExport, use: Use): Promise<void> {
  const layer = await spoolLayer(request);
  const config = text({
    architecture: architecture.oci,
    os: "linux",
    created: "1970-01-01T00:00:00Z",
    config: request.config ?? { Cmd: ["/sbin/init"], StopSignal: "SIGRTMIN+3" },
    rootfs: { type: "layers", diff_ids: [`sha256:${layer.sha256}`] },
  });
  const manifest = text({
    schemaVersion: 2,
    mediaType: `${mediaType}.manifest.v1+json`,
    config: descriptor("config.v1+json", config),
    layers: [
      { mediaType: `${mediaType}.layer.v1.tar`, digest: `sha256:${layer.sha256}`, size: layer.sizeBytes },
    ],
  });
  const index = text({ schemaVersion: 2, manifests: [descriptor("manifest.v1+json", manifest)] });
  const layerName = blobName(layer.sha256);
  const docker = text([{ Config: blobName(sumOf(config)), RepoTags: null, Layers: [layerName] }]);
  await use(
    (async function* () {
      yield member("oci-layout", text({ imageLayoutVersion: "1.0.0" }));
      yield member("index.json", index);
      yield member("manifest.json", docker);
      yield member(blobName(sumOf(config)), config);
      yield member(blobName(sumOf(manifest)), manifest);
      yield plainFileHeader(layerName, layer.sizeBytes);
      yield* createReadStream(layer.path, { highWaterMark: 1024 ** 2 }) as AsyncIterable<Buffer>;
      yield Buffer.concat([tarPadding(layer.sizeBytes), tarEnd]);
    })(),
  );
}

/** What `incus image import` and `lxc image import` take: metadata.yaml and the tree in `rootfs/`. */
export async function exportTemplate({ tree, os }: TreeExport, use: Use): Promise<void> {
  // JSON is YAML.
  const metadata = text({
    architecture: architecture.lxc,
    creation_date: 0,
    properties: { architecture: architecture.lxc, description: os, os },
  });
  await withTreeArchive(
    tree,
    (archive) =>
      use(
        (async function* () {
          yield member("metadata.yaml", metadata);
          yield* archive as AsyncIterable<Buffer>;
        })(),
      ),
    { below: templateRoot },
  );
}

async function spoolLayer({ tree, directory, signal }: TreeExport) {
  const path = join(directory, "layer.tar");
  const sum = createHash("sha256");
  let sizeBytes = 0;
  const counting = new Transform({
    transform(chunk: Buffer, _encoding, done) {
      sum.update(chunk);
      sizeBytes += chunk.length;
      done(null, chunk);
    },
  });
  await withTreeArchive(tree, (archive: Readable) =>
    pipeline(archive, counting, createWriteStream(path, { mode: 0o600 }), { signal }),
  );
  return { path, sizeBytes, sha256: sum.digest("hex") };
}

function descriptor(type: string, content: string): Json {
  return {
    mediaType: `${mediaType}.${type}`,
    digest: `sha256:${sumOf(content)}`,
    size: Buffer.byteLength(content),
  };
}

const sumOf = (content: string) => hash("sha256", content);
const blobName = (sha256: string) => `blobs/sha256/${sha256}`;
const text = (value: Json) => `${canonicalJson(value)}\n`;

function member(path: string, content: string): Buffer {
  const bytes = Buffer.from(content);
  return Buffer.concat([plainFileHeader(path, bytes.length), bytes, tarPadding(bytes.length)]);
}
