/** Where images are fetched from: what users name, and the catalogue's official servers or their mirrors. */
import type { Clock } from "../../core/clock.ts";
import type { IpRange } from "../../core/ip-range.ts";
import { type Artefact, spool } from "./artefact.ts";
import type { Checksum } from "./checksum-list.ts";
import { type DownloadOptions, download, plain } from "./download.ts";
import { downloadProgress } from "./download-progress.ts";
import type { MakeImageOptions } from "./image-store.ts";
import { type Mirrors, type Resolved, resolveCatalogue } from "./resolve-catalogue.ts";
import { findStreamItems, type StreamItem } from "./simplestreams.ts";

export interface ImageServersOptions {
  /** Where to fetch the catalogue's images instead. The operator named them: they may be anywhere. */
  mirrors?: Mirrors;
  /** Beside the public Internet: networks that users may have images fetched from. */
  networks?: readonly IpRange[];
  clock: Clock;
}

type Asked = Pick<MakeImageOptions, "signal" | "onProgress">;

/** Every call throws Forbidden for an internal address that neither the operator named nor a mirror is. */
export class ImageServers {
  readonly #mirrors: Mirrors;
  readonly #guarded: Omit<DownloadOptions, "signal">;

  constructor({ mirrors = {}, networks = [], clock }: ImageServersOptions) {
    this.#mirrors = mirrors;
    this.#guarded = { clock, guard: { allowed: networks, setting: "STRATA_IMAGE_NETWORKS" } };
  }

  /** @throws as resolveCatalogue. */
  resolve(name: string, { signal, onProgress }: Asked): Promise<Resolved> {
    onProgress({ step: `looking ${name} up` });
    return resolveCatalogue(name, this.#mirrors, { ...this.#guarded, signal });
  }

  /** @throws as findStreamItems. */
  async streamItems(
    { server, alias, mirrored = false }: { server: string; alias: string; mirrored?: boolean },
    { signal, onProgress }: Asked,
  ): Promise<(StreamItem & { mirrored: boolean })[]> {
    onProgress({ step: `asking ${plain(server)} for ${alias}` });
    const items = await findStreamItems(server, alias, this.#options(mirrored, signal));
    return items.map((item) => ({ ...item, mirrored }));
  }

  /** Into a new file. @throws as spool and download. */
  fetch(
    { url, title, checksum, mirrored = false }: FetchedItem,
    path: string,
    { signal, onProgress }: Asked,
  ): Promise<Artefact> {
    const report = downloadProgress(title, onProgress);
    const body = download(url, { ...this.#options(mirrored, signal), onSize: report.onSize });
    return spool(body, path, signal, checksum, report.onBytes);
  }

  #options(mirrored: boolean, signal: AbortSignal): DownloadOptions {
    return mirrored ? { ...this.#guarded, guard: undefined, signal } : { ...this.#guarded, signal };
  }
}

export interface FetchedItem {
  url: string;
  title: string;
  checksum: Checksum;
  /** It is of a mirror, which the operator named. */
  mirrored?: boolean;
}
