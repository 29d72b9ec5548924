/** Images of layers for tests, in the forms of an OCI layout and of `docker save`. */
import { hash } from "node:crypto";
import { gzipSync } from "node:zlib";
import { type TestEntry, tarOf } from "../test-archives.ts";

export type TestLayer = readonly TestEntry[];

export interface OciOptions {
  gzip?: boolean;
  /** Of the first layer, instead of its own. */
  diffId?: string;
  architecture?: string;
  config?: object;
  urls?: string[];
  /** Changes a byte of the first layer's blob. */
  damage?: boolean;
}

const ownArchitecture = process.arch === "arm64" ? "arm64" : "amd64";
const digestOf = (bytes: Buffer | string) => `sha256:${hash("sha256", bytes)}`;
const blobPath = (digest: string) => `blobs/sha256/${digest.slice("sha256:".length)}`;

export async function ociArchive(layers: readonly TestLayer[], options: OciOptions = {}): Promise<Buffer> {
  const plain = await Promise.all(layers.map((entries) => tarOf(entries)));
  const diffIds = plain.map(digestOf);
  if (options.diffId !== undefined) diffIds[0] = options.diffId;
  const packed = options.gzip ? plain.map((bytes) => gzipSync(bytes)) : plain;
  const config = JSON.stringify({
    architecture: options.architecture ?? ownArchitecture,
    os: "linux",
    config: options.config ?? {},
    rootfs: { type: "layers", diff_ids: diffIds },
  });
  const descriptor = (bytes: Buffer | string, mediaType: string) => ({
    mediaType,
    digest: digestOf(bytes),
    size: bytes.length,
  });
  const manifest = JSON.stringify({
    schemaVersion: 2,
    config: descriptor(config, "application/vnd.oci.image.config.v1+json"),
    layers: packed.map((bytes) => ({
      ...descriptor(bytes, "application/vnd.oci.image.layer.v1.tar"),
      ...(options.urls && { urls: options.urls }),
    })),
  });
  const index = JSON.stringify({
    schemaVersion: 2,
    manifests: [descriptor(manifest, "application/vnd.oci.image.manifest.v1+json")],
  });
  const blobs = new Map([...packed, config, manifest].map((bytes) => [blobPath(digestOf(bytes)), bytes]));
  if (options.damage) {
    const [path = "", bytes = ""] = [...blobs][0] ?? [];
    const damaged = Buffer.from(bytes);
    damaged[600] = (damaged[600] ?? 0) ^ 1;
    blobs.set(path, damaged);
  }
  return tarOf([
    { name: "oci-layout", content: '{"imageLayoutVersion":"1.0.0"}' },
    ...[...blobs].map(([name, content]) => ({ name, content })),
    { name: "index.json", content: index },
  ]);
}

/** As Docker before 25 writes it; `linked`: a layer that comes again is a link to the first. */
export async function dockerArchive(
  layers: readonly TestLayer[],
  { linked = false }: { linked?: boolean } = {},
): Promise<Buffer> {
  const plain = await Promise.all(layers.map((entries) => tarOf(entries)));
  const config = JSON.stringify({
    architecture: ownArchitecture,
    os: "linux",
    rootfs: { type: "layers", diff_ids: plain.map(digestOf) },
  });
  const name = (index: number) => `${hash("sha256", `${index}`)}/layer.tar`;
  const manifest = [{ Config: "config.json", RepoTags: null, Layers: plain.map((_, index) => name(index)) }];
  return tarOf([
    ...plain.map(
      (content, index): TestEntry =>
        linked && index > 0
          ? { name: name(index), type: "symlink", linkname: `../${name(0)}` }
          : { name: name(index), content },
    ),
    { name: "config.json", content: config },
    { name: "manifest.json", content: JSON.stringify(manifest) },
  ]);
}
