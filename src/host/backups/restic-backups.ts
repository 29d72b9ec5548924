/**
 * Repositories in restic's format, by restic's program (docs/rfd/0009-backup.md says why). A disk is saved as the one file
 * `/disk.raw`, the archive of an instance's root as `/root.tar`, of a restic snapshot that bears the backup's tag.
 *
 * restic only adds until it prunes, so whatever is killed leaves at most data that nothing refers to, which the next prune
 * takes out, and locks, which are removed before each operation when their process is gone.
 */
import { mkdir, open, readdir, rm } from "node:fs/promises";
import { dirname, join } from "node:path";
import type { Readable } from "node:stream";
import { type Clock, systemClock } from "../../core/clock.ts";
import { assert, StrataError } from "../../core/errors.ts";
import type { IpRange } from "../../core/ip-range.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import type { Cgroups } from "../cgroups.ts";
import { requireRoom } from "../disks/copy-file.ts";
import { allowedAddress, GuardedProxy } from "../egress/guarded-proxy.ts";
import type { Backups, Examined, OperationOptions, RepositoryAccess, Saved } from "./backups.ts";
import { complainedPacks, putAside } from "./damaged-packs.ts";
import { repositoryDirectory } from "./repository-directory.ts";
import {
  explainFailure,
  findings,
  isIncomplete,
  isMissing,
  parseBackupLine,
  parseRepositoryId,
  parseSnapshotIds,
} from "./restic-output.ts";
import { type ResticEnd, type ResticRun, runRestic } from "./restic-process.ts";
import { useWhole } from "./use-whole.ts";
import { writeSparse } from "./write-sparse.ts";

export interface ResticOptions {
  /** For its cache and for scratch files; made where it is missing. */
  directory: string;
  /** Below which repositories may be. */
  roots: readonly string[];
  /** One of the roots that is made where it is missing; others are their operator's to mount. */
  ownRoot?: string | undefined;
  /** Networks with internal addresses that S3 services may be in. */
  s3Networks: readonly IpRange[];
  /** Certificates of authorities that S3 services are trusted by, in PEM, instead of the system's. */
  s3Authorities?: string | undefined;
  cgroups: Pick<Cgroups, "ensure" | "procsFiles">;
  /** Control group of its processes. */
  group: string;
  clock?: Clock;
}

/** A service that does not answer is given up after this long. */
const shortMs = 10 * 60_000;
/** Reading takes as long as there is much. */
const longMs = 12 * 60 * 60_000;
const diskName = "disk.raw";
const archiveName = "root.tar";
const progressEveryMs = 1_000;
const opening = "open the repository";

export function createBackups(options: ResticOptions): Backups {
  return new ResticBackups(options);
}

type Call = Omit<ResticRun, "repository" | "timeoutMs"> & { timeoutMs?: number };

class ResticBackups implements Backups {
  readonly #options: ResticOptions;
  readonly #clock: Clock;
  readonly #locks = new KeyedLock();

  constructor(options: ResticOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
  }

  open(repository: RepositoryAccess, known: string | undefined, signal: AbortSignal): Promise<string> {
    return this.#locks.run(repository.uid, async () => {
      const placed = await this.#place(repository, known === undefined);
      const call = { args: ["cat", "config", "--no-lock"], signal };
      let found = await this.#restic(placed, call);
      if (found.status !== 0) {
        if (known !== undefined || !isMissing(found.stderr)) throw explainFailure(opening, found.stderr);
        const args = ["init", "--repository-version", "2"];
        await this.#succeed("make the repository", placed, { args, signal });
        found = await this.#succeed(opening, placed, call);
      }
      const id = parseRepositoryId(found.stdout);
      if (id === undefined) throw explainFailure(opening, found.stdout);
      if (known === undefined || id === known) {
        // What a killed predecessor left would keep others out.
        await this.#succeed(opening, placed, { args: ["unlock"], signal });
        return id;
      }
      throw new StrataError("Conflict", "there is another repository in its place", {
        detail: `${known} ${id}`,
      });
    });
  }

  async save(
    repository: RepositoryAccess,
    disk: string | AsyncIterable<Uint8Array>,
    tag: string,
    options: OperationOptions,
  ): Promise<Saved> {
    if (typeof disk !== "string") {
      return await this.#save(repository, { name: diskName, stdin: disk }, tag, options);
    }
    await using file = await open(disk, "r");
    return await this.#save(repository, { name: diskName, stdin: file.fd }, tag, options);
  }

  saveArchive(
    repository: RepositoryAccess,
    bytes: AsyncIterable<Uint8Array>,
    tag: string,
    options: OperationOptions,
  ): Promise<Saved> {
    return this.#save(repository, { name: archiveName, stdin: bytes }, tag, options);
  }

  #save(
    repository: RepositoryAccess,
    { name, stdin }: { name: string; stdin: number | AsyncIterable<Uint8Array> },
    tag: string,
    { signal, onProgress }: OperationOptions,
  ): Promise<Saved> {
    return this.#locks.run(repository.uid, async () => {
      const placed = await this.#unlocked(repository, signal);
      const left = await this.#find(placed, [tag], signal);
      if (left.length > 0) {
        await this.#succeed("save", placed, { args: ["forget", ...left], signal, timeoutMs: longMs });
      }
      const saved = { readBytes: 0, addedBytes: 0 };
      const named = ["--host", "strata", "--tag", tag];
      const args = ["backup", "--json", ...named, "--stdin", "--stdin-filename", name];
      await this.#succeed("save", placed, {
        ...{ args, signal, stdin, timeoutMs: longMs },
        onStdoutLine(line) {
          const told = parseBackupLine(line);
          if (told?.type === "progress") onProgress?.(told.bytes);
          if (told?.type === "summary") Object.assign(saved, told);
        },
      });
      const [snapshot] = await this.#find(placed, [tag], signal);
      if (snapshot === undefined)
        throw new StrataError("Internal", "restic saved a disk and does not know it");
      return { snapshot, readBytes: saved.readBytes, addedBytes: saved.addedBytes };
    });
  }

  /** Reads only: it takes no lock, and goes on beside others, also beside a check that has one for itself. */
  async restore(
    repository: RepositoryAccess,
    snapshot: string,
    { path, sizeBytes }: { path: string; sizeBytes: number },
    { signal, onProgress }: OperationOptions,
  ): Promise<void> {
    assert(/^[0-9a-f]{64}$/.test(snapshot), "restic's ids are hexadecimal");
    const placed = await this.#place(repository, false);
    await using file = await open(path, "wx", 0o600);
    let written = 0;
    const onWritten = this.#nowAndThen(onProgress);
    const room = (bytes: number) => requireRoom(bytes, dirname(path));
    const take = async (bytes: Readable) => {
      written = await writeSparse(file, bytes, sizeBytes, { requireRoom: room, onWritten });
    };
    const args = ["dump", "--no-lock", snapshot, `/${diskName}`];
    await this.#succeed("restore", placed, { args, signal, onStdout: take, timeoutMs: longMs });
    if (written !== sizeBytes) {
      throw new StrataError("Internal", `the backup has ${written} bytes, not the ${sizeBytes} of its disk`);
    }
    await file.truncate(sizeBytes);
    await file.sync();
  }

  /** As `restore`, beside others. */
  async readArchive<Result>(
    repository: RepositoryAccess,
    { snapshot, sizeBytes }: { snapshot: string; sizeBytes: number },
    use: (bytes: AsyncIterable<Uint8Array>) => Promise<Result>,
    { signal, onProgress }: OperationOptions,
  ): Promise<Result> {
    assert(/^[0-9a-f]{64}$/.test(snapshot), "restic's ids are hexadecimal");
    const placed = await this.#place(repository, false);
    const ended: { result?: Result; failure?: unknown } = {};
    const take = async (stdout: Readable) => {
      try {
        ended.result = await useWhole(stdout, sizeBytes, use, this.#nowAndThen(onProgress));
      } catch (error) {
        ended.failure = error;
        // Then restic ends as well.
        stdout.destroy();
      }
    };
    const args = ["dump", "--no-lock", snapshot, `/${archiveName}`];
    const { status, stderr } = await this.#restic(placed, {
      ...{ args, signal, onStdout: take, timeoutMs: longMs },
    });
    const failed = "failure" in ended;
    // What broke off did so because of restic, unless that had nothing to say.
    if (status !== 0 && (!failed || stderr.trim() !== "")) throw explainFailure("restore", stderr);
    if (failed) throw ended.failure;
    return ended.result as Result;
  }

  forget(repository: RepositoryAccess, tags: readonly string[], signal: AbortSignal): Promise<void> {
    return this.#locks.run(repository.uid, async () => {
      const placed = await this.#unlocked(repository, signal);
      const found = await this.#find(placed, tags, signal);
      const args = found.length > 0 ? ["forget", "--prune", ...found] : ["prune"];
      const { status, stderr } = await this.#restic(placed, { args, signal, timeoutMs: longMs });
      // Forgotten it is. As long as a damaged one is there, nothing is pruned, lest more be lost.
      if (status === 0 || isIncomplete(stderr)) return;
      throw explainFailure("take out of the repository", stderr);
    });
  }

  examine(repository: RepositoryAccess, signal: AbortSignal): Promise<Examined> {
    return this.#locks.run(repository.uid, async () => {
      const placed = await this.#unlocked(repository, signal);
      const args = ["check", "--read-data"];
      const { status, stdout, stderr } = await this.#restic(placed, { args, signal, timeoutMs: longMs });
      if (status === 0) return { intact: true, mended: true, message: "" };
      const error = explainFailure("read the repository", stderr);
      const about = error.code === "Forbidden" || error.code === "Unavailable";
      if (about) throw error;
      const mended = await this.#mend(placed, `${stderr}\n${stdout}`, signal);
      return { intact: false, mended, message: findings(stderr, stdout) || error.message };
    });
  }

  /** Takes damaged packs out of the index. True when the next save stores anew what was in them. */
  async #mend(placed: RepositoryAccess, complaint: string, signal: AbortSignal): Promise<boolean> {
    const packs = complainedPacks(complaint);
    if (packs.length === 0) return isIncomplete(complaint);
    if (placed.place.type !== "directory") return false;
    const all = await putAside(placed.place.path, packs);
    const args = ["rebuild-index"];
    const { status } = await this.#restic(placed, { args, signal, timeoutMs: longMs });
    return all && status === 0;
  }

  async withScratch<Result>(name: string, use: (path: string) => Promise<Result>): Promise<Result> {
    assert(/^[a-z0-9-]{1,100}$/.test(name), "a scratch file's name is plain");
    const directory = join(this.#options.directory, "scratch");
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const path = join(directory, name);
    await rm(path, { force: true });
    try {
      return await use(path);
    } finally {
      await rm(path, { force: true });
    }
  }

  async recover(): Promise<void> {
    const { ownRoot } = this.#options;
    if (ownRoot !== undefined) await mkdir(ownRoot, { recursive: true, mode: 0o700 });
    const scratch = join(this.#options.directory, "scratch");
    for (const name of await namesIn(scratch)) await rm(join(scratch, name), { force: true });
    const cache = join(this.#options.directory, "cache");
    for (const name of await namesIn(cache)) {
      // Of a check that was killed.
      if (name.startsWith("restic-check-cache-"))
        await rm(join(cache, name), { recursive: true, force: true });
    }
  }

  /** Locks of processes that are gone are removed; with those of others, operations that need to be alone fail. */
  async #unlocked(repository: RepositoryAccess, signal: AbortSignal): Promise<RepositoryAccess> {
    const placed = await this.#place(repository, false);
    await this.#succeed(opening, placed, { args: ["unlock"], signal });
    return placed;
  }

  async #find(placed: RepositoryAccess, tags: readonly string[], signal: AbortSignal): Promise<string[]> {
    const args = ["snapshots", "--json", ...tags.flatMap((tag) => ["--tag", tag])];
    if (tags.length === 0) return [];
    const { stdout } = await this.#succeed("list the repository", placed, { args, signal });
    return parseSnapshotIds(stdout);
  }

  async #place(repository: RepositoryAccess, make: boolean): Promise<RepositoryAccess> {
    const { place } = repository;
    if (place.type === "s3") return repository;
    const path = await repositoryDirectory(place.path, this.#options.roots, make);
    if (path !== undefined) return { ...repository, place: { type: "directory", path } };
    throw new StrataError(
      "Unavailable",
      `the repository's directory ${place.path} is gone; is its file system mounted?`,
    );
  }

  async #succeed(doing: string, placed: RepositoryAccess, call: Call): Promise<ResticEnd> {
    const end = await this.#restic(placed, call);
    if (end.status === 0) return end;
    throw explainFailure(doing, end.stderr);
  }

  #nowAndThen(tell: ((bytes: number) => void) | undefined): (bytes: number) => void {
    let toldAt = 0;
    return (bytes) => {
      const now = this.#clock.monotonicMs();
      if (now - toldAt < progressEveryMs) return;
      toldAt = now;
      tell?.(bytes);
    };
  }

  async #restic(repository: RepositoryAccess, call: Call): Promise<ResticEnd> {
    const { cgroups, group, directory, s3Networks, s3Authorities } = this.#options;
    const host = { cgroups, group, cacheDir: join(directory, "cache") };
    const request = { timeoutMs: shortMs, ...call, repository };
    if (repository.place.type !== "s3") return runRestic(host, request);
    const guard = { allowed: s3Networks, setting: "STRATA_S3_NETWORKS" };
    // Programs leave a proxy out for loopback, so that is looked at here.
    await allowedAddress(new URL(repository.place.endpoint).hostname, guard);
    // restic would try again for a quarter of an hour.
    const refused = new AbortController();
    await using proxy = await GuardedProxy.open({ ...guard, onRefusal: (error) => refused.abort(error) });
    const signal = AbortSignal.any([request.signal, refused.signal]);
    const trusted = s3Authorities === undefined ? [] : ["--cacert", s3Authorities];
    const args = [...trusted, ...request.args];
    return await runRestic(host, { ...request, args, signal, proxy: proxy.url });
  }
}

async function namesIn(directory: string): Promise<string[]> {
  return readdir(directory).catch((error) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });
}
