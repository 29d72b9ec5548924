/**
 * The files of one guest, below `STATE/lxc/UID/`. The directory is the guest: it exists from `create` to `destroy`.
 *
 * guest.json   the spec, written by `create`; everything else is derived from it at each start
 * config       LXC's configuration
 * cards/       the texts that make its network cards (see cards.ts), and the error of the last try
 * volumes      what is mounted in it beyond its root (see lxc-volumes.ts)
 * seed/        the NoCloud files, seen by the guest
 * console/     log, log.1: what its console printed
 * run/run      id of the latest run, written before its recorder is started
 * run/init     `RUN PID`, by the recorder; run/exit: how the run ended, by the recorder
 * run/stop     id of the run that somebody asked to stop
 *
 * Files of a run carry its id, so what an earlier run left is told apart without deleting it.
 */
import { type FSWatcher, watch } from "node:fs";
import { chmod, chown, mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isUid, type Uid } from "../../core/ids.ts";
import type { GuestNic, GuestSpec, Seed } from "../driver.ts";
import type { CardTexts } from "./cards.ts";
import { parseExit, parseInit, type RecordedExit } from "./recorder.ts";

/** Everything on disk that tells what became of a guest. */
export interface RunFiles {
  run: string | undefined;
  init: { runId: string; pid: number } | undefined;
  exit: RecordedExit | undefined;
  stop: string | undefined;
}

export class GuestFiles {
  readonly uid: Uid;
  readonly dir: string;
  readonly runDir: string;
  readonly cardsDir: string;
  readonly seedDir: string;
  readonly consoleDir: string;
  readonly consoleLog: string;

  constructor(lxcPath: string, uid: Uid) {
    this.uid = uid;
    this.dir = join(lxcPath, uid);
    this.runDir = join(this.dir, "run");
    this.cardsDir = join(this.dir, "cards");
    this.seedDir = join(this.dir, "seed");
    this.consoleDir = join(this.dir, "console");
    this.consoleLog = join(this.consoleDir, "log");
  }

  /** Makes or replaces the record: all or nothing, also when the host loses power. */
  async writeSpec(guest: GuestSpec): Promise<void> {
    await mkdir(this.runDir, { recursive: true, mode: 0o700 });
    await mkdir(this.consoleDir, { recursive: true, mode: 0o700 });
    const temporary = join(this.dir, "guest.json.new");
    const file = await open(temporary, "w", 0o600);
    try {
      await file.writeFile(JSON.stringify(guest));
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(temporary, join(this.dir, "guest.json"));
  }

  /** Undefined when the guest does not exist or its creation was interrupted. */
  async readSpec(): Promise<GuestSpec | undefined> {
    const text = await readText(join(this.dir, "guest.json"));
    if (text === undefined) return undefined;
    try {
      return JSON.parse(text) as GuestSpec;
    } catch {
      return undefined;
    }
  }

  async exists(): Promise<boolean> {
    return (await readdir(this.dir).catch(() => undefined)) !== undefined;
  }

  /**
   * The shifted root may read the seed through its group; it owns nothing, so that it can neither change the files nor
   * fill the host's disk through them, even if it mounts the directory writable.
   */
  async writeSeed(seed: Seed, rootGid: number): Promise<void> {
    await mkdir(this.seedDir, { recursive: true, mode: 0o750 });
    await share(this.dir, rootGid, 0o710);
    await share(this.seedDir, rootGid, 0o750);
    const files = {
      "meta-data": seed.metaData,
      "user-data": seed.userData,
      ...(seed.vendorData === undefined ? {} : { "vendor-data": seed.vendorData }),
      "network-config": seed.networkConfig,
    };
    await Promise.all(
      Object.entries(files).map(async ([name, text]) => {
        const path = join(this.seedDir, name);
        await writeFile(path, text, { mode: 0o600 });
        await share(path, rootGid, 0o640);
      }),
    );
  }

  /** Forgets all cards: a start writes them anew. */
  async clearCards(): Promise<void> {
    await rm(this.cardsDir, { recursive: true, force: true });
    await mkdir(this.cardsDir, { recursive: true, mode: 0o700 });
  }

  /** What plug-cards.sh looks for comes last, and whole: a guest may be rebooting from inside. */
  async writeCard(nic: Pick<GuestNic, "port" | "netns">, texts: CardTexts): Promise<void> {
    const path = (kind: string) => join(this.cardsDir, `${nic.port}.${kind}`);
    for (const kind of ["forwarding", "inside", "inside6"] as const) {
      await writeFile(path(kind), texts[kind], { mode: 0o600 });
    }
    await writeFile(path("new"), `#${nic.netns}\n${texts.outside}`, { mode: 0o600 });
    await rename(path("new"), path("outside"));
  }

  async removeCard(port: string): Promise<void> {
    for (const kind of ["outside", "forwarding", "inside", "inside6"]) {
      await rm(join(this.cardsDir, `${port}.${kind}`), { force: true });
    }
  }

  async writeVolumes(lines: string): Promise<void> {
    const path = join(this.dir, "volumes");
    await writeFile(`${path}.new`, lines, { mode: 0o600 });
    await rename(`${path}.new`, path);
  }

  /** Why the cards could not be made at the last start; empty when they could. */
  async readCardsError(): Promise<string> {
    return (await readText(join(this.cardsDir, "error")))?.trim().slice(0, 1_000) ?? "";
  }

  async writeConfig(text: string): Promise<void> {
    await writeFile(join(this.dir, "config"), text, { mode: 0o600 });
  }

  async writeRun(runId: string): Promise<void> {
    await writeFile(join(this.runDir, "run"), `${runId}\n`, { mode: 0o600 });
  }

  async writeStop(runId: string): Promise<void> {
    await writeFile(join(this.runDir, "stop"), `${runId}\n`, { mode: 0o600 });
  }

  async readRun(): Promise<RunFiles> {
    const [run, init, exit, stop] = await Promise.all(
      ["run", "init", "exit", "stop"].map((name) => readText(join(this.runDir, name))),
    );
    return {
      run: run?.trim() || undefined,
      init: parseInit(init ?? ""),
      exit: parseExit(exit ?? ""),
      stop: stop?.trim() || undefined,
    };
  }

  /** Calls back when something in the run's directory changes; the returned function ends it. */
  watchRun(onChange: () => void): () => void {
    return watchDir(this.runDir, onChange);
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }
}

/** Uids of the guests below `lxcPath`. */
export async function listGuests(lxcPath: string): Promise<Uid[]> {
  return (await readdir(lxcPath).catch((): string[] => [])).filter(isUid);
}

/** Watches a directory; one that does not exist is silent. */
export function watchDir(path: string, onChange: () => void): () => void {
  let watcher: FSWatcher;
  try {
    watcher = watch(path, { persistent: false });
  } catch {
    return () => {};
  }
  watcher.on("change", onChange);
  watcher.on("error", () => watcher.close());
  return () => watcher.close();
}

async function readText(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (cause) {
    if (cause instanceof Error && "code" in cause && cause.code === "ENOENT") return undefined;
    throw cause;
  }
}

async function share(path: string, gid: number, mode: number): Promise<void> {
  await chown(path, 0, gid);
  await chmod(path, mode);
}
