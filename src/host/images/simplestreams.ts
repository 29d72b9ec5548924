/**
 * Finds an image on a simplestreams server: `streams/v1/index.json` lists files of products, each product has versions
 * by date, each version items by file type. Formats `index:1.0` and `products:1.0`, as Canonical, LXD and Incus serve
 * them. A disk image comes first, because it has a kernel: a root archive can only start as a container.
 */
import * as z from "zod";
import { StrataError } from "../../core/errors.ts";
import type { DownloadOptions } from "./download.ts";
import { downloadText, plain } from "./download.ts";

export interface StreamItem {
  url: string;
  sha256: string;
  format: "tar" | "qcow2";
  /** The directory of the archive that holds the root tree, where it is not the archive itself. */
  below?: string;
  /** `debian:12:amd64:default 20240105_05:24`, for people. */
  title: string;
}

const maxDocumentBytes = 64 * 1024 ** 2;

const indexSchema = z.object({
  index: z.record(z.string(), z.object({ datatype: z.string().optional(), path: z.string() })),
});

const itemSchema = z.object({ ftype: z.string(), path: z.string(), sha256: z.string().optional() });
const productsSchema = z.object({
  products: z.record(
    z.string(),
    z.object({
      aliases: z.string().optional(),
      arch: z.string(),
      versions: z.record(z.string(), z.object({ items: z.record(z.string(), itemSchema) })),
    }),
  ),
});
type Products = z.infer<typeof productsSchema>["products"];

/** File types in the order of preference. */
const fileTypes: readonly { ftype: string; format: "tar" | "qcow2"; below?: string }[] = [
  { ftype: "disk-kvm.img", format: "qcow2" },
  { ftype: "disk1.img", format: "qcow2" },
  { ftype: "uefi1.img", format: "qcow2" },
  { ftype: "root.tar.xz", format: "tar" },
  { ftype: "incus_combined.tar.gz", format: "tar", below: "rootfs" },
  { ftype: "lxd_combined.tar.gz", format: "tar", below: "rootfs" },
];

const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };

/**
 * The usable items of the newest version that has any, best first.
 * @throws Invalid when the server has no such image for this host; Unavailable when it does not answer.
 */
export async function findStreamItems(
  server: string,
  alias: string,
  options: DownloadOptions,
): Promise<StreamItem[]> {
  const base = server.endsWith("/") ? server : `${server}/`;
  const index = await fetchDocument(new URL("streams/v1/index.json", base).href, indexSchema, options);
  const paths = Object.values(index.index).filter(
    ({ datatype = "image-downloads" }) => datatype === "image-downloads",
  );
  for (const { path } of paths) {
    const { products } = await fetchDocument(withinServer(base, path), productsSchema, options);
    const found = selectItems(products, alias, architectures[process.arch] ?? process.arch, base);
    if (found) return found;
  }
  throw new StrataError(
    "Invalid",
    `${plain(base)} has no image "${alias}" for ${architectures[process.arch] ?? process.arch}`,
  );
}

/** Undefined when there is no such product. @throws Invalid when it has no version with a usable item. */
export function selectItems(
  products: Products,
  alias: string,
  architecture: string,
  base: string,
): StreamItem[] | undefined {
  const suffix = `/${architecture}`;
  const wanted = alias.endsWith(suffix) ? alias.slice(0, -suffix.length) : alias;
  const match = Object.entries(products).find(
    ([name, { aliases = "", arch }]) =>
      arch === architecture &&
      (name === alias || aliases.split(",").some((other) => other.trim() === wanted)),
  );
  if (!match) return undefined;
  const [name, { versions }] = match;
  // Versions begin with their date, so the newest is the last.
  for (const version of Object.keys(versions).sort().reverse()) {
    const items = Object.values(versions[version]?.items ?? {});
    const usable = fileTypes.flatMap(({ ftype, ...how }) => {
      const item = items.find((candidate) => candidate.ftype === ftype);
      if (!item?.sha256 || !/^[0-9a-f]{64}$/.test(item.sha256)) return [];
      return [
        { ...how, url: withinServer(base, item.path), sha256: item.sha256, title: `${name} ${version}` },
      ];
    });
    if (usable.length > 0) return usable;
  }
  const types = fileTypes.map(({ ftype }) => ftype).join(", ");
  throw new StrataError("Invalid", `the image "${name}" has no file of a type that can be used (${types})`);
}

/** @throws Invalid for a path that leads to another server. */
function withinServer(base: string, path: string): string {
  const url = URL.parse(path, base);
  if (!url?.href.startsWith(new URL(base).href)) {
    throw new StrataError("Invalid", `${plain(base)} names a file outside itself`, { detail: path });
  }
  return url.href;
}

async function fetchDocument<T>(url: string, schema: z.ZodType<T>, options: DownloadOptions): Promise<T> {
  const text = await downloadText(url, maxDocumentBytes, options);
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new StrataError("Invalid", `${plain(url)} is no simplestreams document`, { cause });
  }
}
