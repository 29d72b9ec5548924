/** From a name of the catalogue to what can be fetched, with its checksum, by way of the mirrors that are configured. */
import { StrataError } from "../../core/errors.ts";
import type { IpRange } from "../../core/ip-range.ts";
import { type CatalogueSource, findInCatalogue } from "../../kinds/image-catalogue.ts";
import { type Checksum, checksumOf } from "./checksum-list.ts";
import { type DownloadOptions, downloadText, plain } from "./download.ts";

/** Addresses by what they begin with: the longest that fits is replaced. */
export type Mirrors = Readonly<Record<string, string>>;

export type Resolved =
  | { type: "file"; url: string; checksum: Checksum; format: "qcow2"; title: string }
  | { type: "simplestreams"; server: string; alias: string };

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
  if (source.type === "simplestreams") return { ...source, server: throughMirrors(source.server, mirrors) };
  const base = throughMirrors(source.base, mirrors);
  const list = new URL(source.checksums, base).href;
  const checksum = checksumOf(await downloadText(list, maxListBytes, options), source.file);
  if (!checksum) {
    throw new StrataError(
      "Invalid",
      `${plain(list)} has no checksum of ${source.file}, so it is not fetched`,
    );
  }
  const url = new URL(source.file, base).href;
  return { type: "file", url, checksum, format: source.format, title: entry.title };
}

/** Users' URLs lead to the public Internet and to these networks; what the operator has named as a mirror is where it is. */
export function guardOf(mirrors: Mirrors, networks: readonly IpRange[]): DownloadOptions["guard"] {
  const named = Object.values(mirrors).map((mirror) => new URL(mirror));
  const rules = { allowed: networks, setting: "STRATA_IMAGE_NETWORKS" };
  return (url) => {
    const { origin, pathname } = new URL(url);
    const isNamed = named.some((mirror) => mirror.origin === origin && pathname.startsWith(mirror.pathname));
    return isNamed ? undefined : rules;
  };
}

export function throughMirrors(url: string, mirrors: Mirrors): string {
  const [longest] = Object.keys(mirrors)
    .filter((prefix) => url.startsWith(prefix))
    .sort((a, b) => b.length - a.length);
  return longest === undefined ? url : `${mirrors[longest]}${url.slice(longest.length)}`;
}
