/**
 * An image of layers in one file: an OCI layout (image-spec 1.1, "Image Layout") or what `docker save` writes, of any
 * version. Every blob is written under a name of ours and used only when it has the digest that refers to it.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { open } from "node:fs/promises";
import { join, posix } from "node:path";
import * as z from "zod";
import { StrataError } from "../../../core/errors.ts";
import { formatBytes } from "../../../core/units.ts";
import { type Packing, packingOf } from "../decompression.ts";
import { readTar, show, type TarEntry } from "../tar-reader.ts";

export interface LayerFile {
  path: string;
  packing: Packing;
  sizeBytes: number;
  /** Of the unpacked layer, where the image tells it: hexadecimal SHA-256. */
  diffId: string | undefined;
  read(): ReturnType<typeof createReadStream>;
}

export interface LayeredImage {
  /** The lowest first. */
  layers: LayerFile[];
  config: ImageConfig;
}

const strings = z.array(z.string().max(64 * 1024)).max(4096);
export const imageConfigSchema = z.object({
  architecture: z.string().optional(),
  os: z.string().optional(),
  config: z
    .object({
      Entrypoint: strings.nullish(),
      Cmd: strings.nullish(),
      Env: strings.nullish(),
      WorkingDir: z.string().nullish(),
      User: z.string().nullish(),
      StopSignal: z.string().nullish(),
      /** `8080/tcp` */
      ExposedPorts: z.record(z.string().max(64), z.unknown()).nullish(),
      /** Paths of directories. */
      Volumes: z.record(z.string().max(4096), z.unknown()).nullish(),
    })
    .nullish(),
  history: z
    .array(
      z.object({
        created: z.string().nullish(),
        created_by: z.string().nullish(),
        comment: z.string().nullish(),
      }),
    )
    .max(4096)
    .nullish(),
  rootfs: z.object({ diff_ids: z.array(z.string()).max(1024) }).optional(),
});
export type ImageConfig = z.infer<typeof imageConfigSchema>;

const descriptorSchema = z.object({
  mediaType: z.string().default(""),
  digest: z.string(),
  urls: z.array(z.string()).optional(),
  platform: z.object({ architecture: z.string(), os: z.string() }).optional(),
});
const indexSchema = z.object({ manifests: z.array(descriptorSchema).max(1024) });
const manifestSchema = z.object({ config: descriptorSchema, layers: z.array(descriptorSchema).max(1024) });
const dockerSchema = z
  .array(z.object({ Config: z.string(), Layers: z.array(z.string()).max(1024) }))
  .max(1024);

const limits = { members: 4096, jsonBytes: 4 * 1024 ** 2, layers: 256, indexDepth: 2 } as const;
const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };

interface Member {
  path: string;
  sizeBytes: number;
  sha256: string;
  packing: Packing;
}

/**
 * @throws Invalid for members that are no plain files, blobs with another digest, more than one image; Unsupported for
 * an image for other machines only.
 */
export async function readImageArchive(
  archive: AsyncIterable<Uint8Array>,
  /** Of the work: files are made in it. */
  directory: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<LayeredImage> {
  const members = await writeMembers(archive, directory, maxBytes, signal);
  const image = members.has("index.json") ? await readLayout(members) : await readDocker(members);
  const count = image.layers.length;
  if (count === 0 || count > limits.layers)
    throw invalid(`has ${count} layers; 1 to ${limits.layers} are read`);
  return image;
}

async function readLayout(members: ReadonlyMap<string, Member>): Promise<LayeredImage> {
  const index = members.get("index.json");
  if (!index) throw invalid("has no index.json");
  const manifest = await findManifest(members, await json(index, indexSchema, "index.json"), 0);
  const config = await json(blobOf(members, manifest.config.digest), imageConfigSchema, "the configuration");
  const foreign = manifest.layers.find(
    ({ urls, mediaType }) => urls?.length || /foreign|nondistributable/.test(mediaType),
  );
  if (foreign) throw invalid("has a layer that must be fetched from elsewhere");
  const files = manifest.layers.map(({ digest }) => blobOf(members, digest));
  return { config, layers: layersOf(files, config) };
}

async function findManifest(
  members: ReadonlyMap<string, Member>,
  { manifests }: z.infer<typeof indexSchema>,
  depth: number,
): Promise<z.infer<typeof manifestSchema>> {
  const wanted = architectures[process.arch] ?? process.arch;
  const fits = manifests.filter(
    ({ platform }) => !platform || (platform.os === "linux" && platform.architecture === wanted),
  );
  if (fits.length === 0) {
    throw new StrataError("Unsupported", `the image archive has nothing for linux/${wanted}`);
  }
  if (fits.length > 1) throw invalid(`holds ${fits.length} images for linux/${wanted}; save one alone`);
  const [chosen] = fits;
  const blob = blobOf(members, chosen?.digest ?? "");
  const isIndex = /index|manifest\.list/.test(chosen?.mediaType ?? "");
  if (!isIndex) return json(blob, manifestSchema, "the manifest");
  if (depth >= limits.indexDepth) throw invalid("has indexes within indexes");
  return findManifest(members, await json(blob, indexSchema, "an index"), depth + 1);
}

async function readDocker(members: ReadonlyMap<string, Member>): Promise<LayeredImage> {
  const manifest = members.get("manifest.json");
  if (!manifest) throw invalid("has neither index.json (OCI) nor manifest.json (docker save)");
  const images = await json(manifest, dockerSchema, "manifest.json");
  const [image] = images;
  if (images.length !== 1 || !image) throw invalid(`holds ${images.length} images; save one alone`);
  const member = (path: string) => {
    const found = members.get(path);
    if (found) return found;
    throw invalid(`does not hold "${show(path)}", which its manifest names`);
  };
  const config = await json(member(image.Config), imageConfigSchema, "the configuration");
  return { config, layers: layersOf(image.Layers.map(member), config) };
}

function layersOf(files: readonly Member[], config: ImageConfig): LayerFile[] {
  const wanted = architectures[process.arch] ?? process.arch;
  if ((config.architecture ?? wanted) !== wanted || (config.os ?? "linux") !== "linux") {
    throw new StrataError(
      "Unsupported",
      `the image is for ${config.os}/${config.architecture}, this host is linux/${wanted}`,
    );
  }
  const diffIds = config.rootfs?.diff_ids;
  if (diffIds && diffIds.length !== files.length)
    throw invalid("has another number of layers than its configuration says");
  return files.map(({ path, packing, sizeBytes }, index) => ({
    ...{ path, packing, sizeBytes },
    diffId: /^sha256:([0-9a-f]{64})$/.exec(diffIds?.[index] ?? "")?.[1],
    read: () => createReadStream(path, { highWaterMark: 256 * 1024 }),
  }));
}

function blobOf(members: ReadonlyMap<string, Member>, digest: string): Member {
  const digits = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1];
  if (digits === undefined) throw invalid(`refers to "${show(digest)}", which is no SHA-256 digest`);
  const member = members.get(`blobs/sha256/${digits}`);
  if (!member) throw invalid(`does not hold the blob ${digest.slice(0, 19)} that it refers to`);
  if (member.sha256 !== digits)
    throw invalid(`is damaged: the blob ${digest.slice(0, 19)} has another checksum`);
  return member;
}

async function writeMembers(
  archive: AsyncIterable<Uint8Array>,
  directory: string,
  maxBytes: number,
  signal: AbortSignal,
): Promise<Map<string, Member>> {
  const members = new Map<string, Member>();
  const links: [path: string, target: string][] = [];
  let count = 0;
  let total = 0;
  for await (const entry of readTar(archive)) {
    signal.throwIfAborted();
    if (++count > limits.members) throw invalid(`holds more than ${limits.members} files`);
    if (entry.type === "directory") continue;
    const path = plainPath(entry.path);
    if (members.has(path)) throw invalid(`holds "${show(path)}" twice`);
    if (entry.type === "symlink" || entry.type === "hardlink") {
      // Older versions of Docker save a layer that comes again as a link to the first.
      const from = entry.type === "symlink" ? posix.dirname(path) : ".";
      links.push([path, plainPath(posix.join(from, entry.target))]);
      continue;
    }
    if (entry.type !== "file") throw invalid(`holds "${show(path)}", which is no plain file`);
    total += entry.sizeBytes;
    if (total > maxBytes) throw invalid(`holds more than ${formatBytes(maxBytes)}`);
    members.set(path, await writeMember(entry, join(directory, `blob-${members.size}`)));
  }
  for (const [path, target] of links) {
    const member = members.get(target);
    if (!member) throw invalid(`holds "${show(path)}", a link to "${show(target)}", which is no file of it`);
    members.set(path, member);
  }
  return members;
}

async function writeMember(entry: TarEntry, path: string): Promise<Member> {
  const sum = createHash("sha256");
  let start = Buffer.alloc(0);
  await using file = await open(path, "wx", 0o600);
  for await (const chunk of entry.content) {
    if (start.length < 16) start = Buffer.concat([start, chunk]).subarray(0, 16);
    sum.update(chunk);
    await file.writeFile(chunk);
  }
  return { path, sizeBytes: entry.sizeBytes, sha256: sum.digest("hex"), packing: packingOf(start) };
}

function plainPath(path: string): string {
  const normal = posix.normalize(path);
  if (normal.startsWith("/") || normal === ".." || normal.startsWith("../") || normal.includes("\0"))
    throw invalid(`holds the path "${show(path)}", which leads out of it`);
  return normal;
}

async function json<T>(member: Member, schema: z.ZodType<T>, what: string): Promise<T> {
  if (member.sizeBytes > limits.jsonBytes) throw invalid(`has ${what} of ${member.sizeBytes} bytes`);
  const chunks: Buffer[] = [];
  for await (const chunk of createReadStream(member.path)) chunks.push(chunk as Buffer);
  try {
    return schema.parse(JSON.parse(Buffer.concat(chunks).toString("utf8")));
  } catch (cause) {
    throw new StrataError("Invalid", `the image archive has ${what} that cannot be read`, { cause });
  }
}

function invalid(what: string): StrataError {
  return new StrataError("Invalid", `the image archive ${what}`);
}
