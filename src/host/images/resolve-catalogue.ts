/** From a name of the catalogue to what can be fetched, with its checksum, by way of the mirrors that are configured. */
import { StrataError } from "../../core/errors.ts";
import { type CatalogueSource, findInCatalogue } from "../../kinds/image-catalogue.ts";
import { type Checksum, checksumOf } from "./checksum-list.ts";
import { type DownloadOptions, downloadText, plain } from "./download.ts";

/** Addresses by what they begin with: the longest that fits is replaced. */
export type Mirrors = Readonly<Record<string, string>>;

export type Resolved =
  | (Place & { type: "file"; url: string; checksum: Checksum; format: "qcow2"; title: string })
  | (Place & { type: "simplestreams"; server: string; alias: string });

interface Place {
  /** A mirror, which the operator named: it may be anywhere. */
  mirrored: boolean;
}

const maxListBytes = 4 * 1024 ** 2;
const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };

/** @throws Invalid for an unknown name or a list without the file; Unavailable when the server does not answer. */
export async function resolveCatalogue(
  name: string,
  mirrors: Mirrors,
  options: DownloadOptions,
): Promise<Resolved> {
  const entry = findInCatalogue(name);
  if (!entry) throw new StrataError("Invalid", `the catalogue has no image "${name}"`);
  const source: CatalogueSource = entry.source(architectures[process.arch] ?? process.arch);
  if (source.type === "simplestreams") {
    const server = throughMirrors(source.server, mirrors);
    return { ...source, server, mirrored: server !== source.server };
  }
  const base = throughMirrors(source.base, mirrors);
  const mirrored = base !== source.base;
  const list = new URL(source.checksums, base).href;
  const asked = mirrored ? { ...options, guard: undefined } : options;
  const checksum = checksumOf(await downloadText(list, maxListBytes, asked), source.file);
  if (!checksum) {
    throw new StrataError(
      "Invalid",
      `${plain(list)} has no checksum of ${source.file}, so it is not fetched`,
    );
  }
  const url = new URL(source.file, base).href;
  return { type: "file", mirrored, url, checksum, format: source.format, title: entry.title };
}

export function throughMirrors(url: string, mirrors: Mirrors): string {
  const [longest] = Object.keys(mirrors)
    .filter((prefix) => url.startsWith(prefix))
    .sort((a, b) => b.length - a.length);
  return longest === undefined ? url : `${mirrors[longest]}${url.slice(longest.length)}`;
}
