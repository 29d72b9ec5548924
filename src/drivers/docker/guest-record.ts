/**
 * The files of one guest, below `STATE/docker/UID/`. The directory is made before anything of the guest in the Engine and
 * removed after it, so that a guest of which only a part was made is found.
 *
 * guest.json            the spec, written by `create`
 * run.json              what the Engine does not remember of the runs: see RunRecord
 * gate                  the named pipe at which the container's first process waits
 * hosts, hostname, resolv.conf   as the container sees them; written anew by each start
 * seed/                 the NoCloud files, for images that run their own init
 */
import { mkdir, open, readdir, readFile, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { isUid, type Uid } from "../../core/ids.ts";
import { run } from "../../host/run.ts";
import type { ExitReason, GuestSpec } from "../driver.ts";
import type { DockerConfig } from "./docker-config.ts";

export type DockerGuest = GuestSpec<DockerConfig>;

/** A run is named by the time at which the Engine started it. */
export interface RunRecord {
  /** The run whose cards are complete and whose gate is being opened. */
  opening?: string;
  /** The run whose gate was opened: before that, nothing of the guest has run. */
  opened?: string;
  /** The run that somebody asked to stop. */
  stop?: string;
  /** How the last run ended, kept while the next one has been started and has not begun. */
  last?: { runId: string; exit: { reason: ExitReason; message: string } };
}

export class GuestRecord {
  readonly dir: string;
  readonly gate: string;
  readonly seedDir: string;

  constructor(stateDir: string, uid: Uid) {
    this.dir = join(stateDir, uid);
    this.gate = this.path("gate");
    this.seedDir = this.path("seed");
  }

  path(name: "gate" | "hosts" | "hostname" | "resolv.conf" | "seed"): string {
    return join(this.dir, name);
  }

  async writeSpec(guest: DockerGuest): Promise<void> {
    await mkdir(this.seedDir, { recursive: true, mode: 0o711 });
    await this.#replace("guest.json", JSON.stringify(guest));
  }

  /** Undefined when the guest does not exist or its creation was interrupted. */
  async readSpec(): Promise<DockerGuest | undefined> {
    return (await this.#read("guest.json")) as DockerGuest | undefined;
  }

  async readRun(): Promise<RunRecord> {
    return ((await this.#read("run.json")) as RunRecord | undefined) ?? {};
  }

  async writeRun(record: RunRecord): Promise<void> {
    await this.#replace("run.json", JSON.stringify(record));
  }

  async exists(): Promise<boolean> {
    return (await readdir(this.dir).catch(() => undefined)) !== undefined;
  }

  /**
   * What the container has mounted. Its users may read and not write: they can neither change the files nor fill the
   * host's disk through them. Written in place, since a mount shows the file and not the name.
   */
  async writeMounted(guest: DockerGuest): Promise<void> {
    await mkdir(this.seedDir, { recursive: true, mode: 0o711 });
    const { seed } = guest;
    const files: Record<string, string> = {
      hosts: hostsText(guest),
      hostname: `${guest.hostname}\n`,
      "resolv.conf": resolvText(guest),
      "seed/meta-data": seed.metaData,
      "seed/user-data": seed.userData,
      "seed/network-config": seed.networkConfig,
      ...(seed.vendorData === undefined ? {} : { "seed/vendor-data": seed.vendorData }),
    };
    await Promise.all(
      Object.entries(files).map(([name, text]) => {
        const mode = name === "seed/user-data" ? 0o600 : 0o644;
        return writeFile(join(this.dir, name), text, { mode });
      }),
    );
    const isPipe = await stat(this.gate).then(
      (found) => found.isFIFO(),
      () => false,
    );
    if (isPipe) return;
    await rm(this.gate, { recursive: true, force: true });
    await run("mkfifo", ["-m", "644", this.gate]);
  }

  async remove(): Promise<void> {
    await rm(this.dir, { recursive: true, force: true });
  }

  /** All or nothing, also when the host loses power. */
  async #replace(name: string, text: string): Promise<void> {
    const temporary = join(this.dir, `${name}.new`);
    {
      await using file = await open(temporary, "w", 0o600);
      await file.writeFile(text);
      await file.datasync();
    }
    await rename(temporary, join(this.dir, name));
  }

  async #read(name: string): Promise<unknown> {
    try {
      return JSON.parse(await readFile(join(this.dir, name), "utf8"));
    } catch (cause) {
      if (cause instanceof SyntaxError || (cause as NodeJS.ErrnoException).code === "ENOENT")
        return undefined;
      throw cause;
    }
  }
}

/** Uids of the guests with a record. */
export async function recordedGuests(stateDir: string): Promise<Uid[]> {
  return (await readdir(stateDir).catch((): string[] => [])).filter(isUid);
}

function hostsText({ hostname, nics }: DockerGuest): string {
  const [own] = nics;
  const lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback"];
  if (own === undefined) lines.push(`127.0.1.1 ${hostname}`);
  else lines.push(`${own.ipAddress} ${hostname}`);
  if (own?.ipv6 !== undefined) lines.push(`${own.ipv6.address} ${hostname}`);
  return `${lines.join("\n")}\n`;
}

/** The gateway answers names, those of the network's guests included. */
function resolvText({ nics }: DockerGuest): string {
  const [own] = nics;
  return own === undefined ? "" : `nameserver ${own.gateway}\n`;
}
