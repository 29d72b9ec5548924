/** Where images are fetched from: what users name, and the catalogue's official servers or their mirrors. */
import type { Clock } from "../../core/clock.ts";
import type { IpRange } from "../../core/ip-range.ts";
import { type Artefact, spool } from "./artefact.ts";
import type { Checksum } from "./checksum-list.ts";
import { type DownloadOptions, download, plain } from "./download.ts";
import { downloadProgress } from "./download-progress.ts";
import type { MakeImageOptions } from "./image-store.ts";
import { guardOf, type Mirrors, type Resolved, resolveCatalogue } from "./resolve-catalogue.ts";
import { findStreamItems, type StreamItem } from "./simplestreams.ts";

export interface ImageServersOptions {
  /** Where to fetch the catalogue's images instead. The operator named them: they may be anywhere. */
  mirrors?: Mirrors;
  /** Beside the public Internet: networks that users may have images fetched from. */
  networks?: readonly IpRange[];
  clock: Clock;
}

type Asked = Pick<MakeImageOptions, "signal" | "onProgress">;

export class ImageServers {
  readonly #mirrors: Mirrors;
  readonly #common: Pick<DownloadOptions, "clock" | "guard">;

  constructor({ mirrors = {}, networks = [], clock }: ImageServersOptions) {
    this.#mirrors = mirrors;
    this.#common = { clock, guard: guardOf(mirrors, networks) };
  }

  /** @throws as resolveCatalogue, and Forbidden for an internal address. */
  resolve(name: string, { signal, onProgress }: Asked): Promise<Resolved> {
    onProgress({ step: `looking ${name} up` });
    return resolveCatalogue(name, this.#mirrors, { ...this.#common, signal });
  }

  /** @throws as findStreamItems, and Forbidden for an internal address. */
  streamItems(of: { server: string; alias: string }, { signal, onProgress }: Asked): Promise<StreamItem[]> {
    onProgress({ step: `asking ${plain(of.server)} for ${of.alias}` });
    return findStreamItems(of.server, of.alias, { ...this.#common, signal });
  }

  /** Into a new file. @throws as spool and download, and Forbidden for an internal address. */
  fetch(
    { url, title, checksum }: { url: string; title: string; checksum: Checksum },
    path: string,
    { signal, onProgress }: Asked,
  ): Promise<Artefact> {
    const report = downloadProgress(title, onProgress);
    const body = download(url, { ...this.#common, signal, onSize: report.onSize });
    return spool(body, path, signal, checksum, report.onBytes);
  }
}
