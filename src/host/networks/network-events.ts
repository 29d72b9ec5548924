/**
 * Notices when a network needs mending: its DHCP or DNS process died, or its namespace lost its name. A network whose
 * process keeps dying is announced at growing intervals, so that mending it does not eat the host.
 */
import { existsSync, watch as watchFile } from "node:fs";
import type { Clock } from "../../core/clock.ts";
import { Hints } from "../../core/hints.ts";
import type { Cgroups } from "../cgroups.ts";
import { type NetworkNames, netnsDirectory } from "./network-plan.ts";

const calmMs = 10_000;
const firstDelayMs = 1_000;
const maxDelayMs = 60_000;

interface Watched {
  names: NetworkNames;
  endings: (() => void)[];
}

interface Deaths {
  lastAtMs: number;
  delayMs: number;
}

export class NetworkEvents {
  readonly #cgroups: Cgroups;
  readonly #clock: Clock;
  readonly #watched = new Map<string, Watched>();
  readonly #deaths = new Map<string, Deaths>();
  readonly #hints = new Hints();
  readonly #watchNames: WatchNames;
  #directoryWatcher: { close(): void } | undefined;

  constructor(cgroups: Cgroups, clock: Clock, watchNames: WatchNames = watchNetnsNames) {
    this.#cgroups = cgroups;
    this.#clock = clock;
    this.#watchNames = watchNames;
  }

  /** Starts to watch a network whose groups and namespace exist. Repeating does nothing while it is being watched. */
  watch(names: NetworkNames): void {
    this.#watchDirectory();
    if (this.#watched.has(names.uid)) return;
    const watched: Watched = { names, endings: [] };
    this.#watched.set(names.uid, watched);
    for (const group of [names.dnsGroup, names.dhcpGroup]) {
      watched.endings.push(
        this.#cgroups.watch(group, (populated) => {
          if (!populated && this.#watched.get(names.uid) === watched) this.#lost(names.uid);
        }),
      );
    }
  }

  /** While a network is mended or removed its processes end because we end them. */
  unwatch(uid: string): void {
    const watched = this.#watched.get(uid);
    this.#watched.delete(uid);
    for (const end of watched?.endings ?? []) end();
  }

  /** Says that a network needs mending. */
  hint(uid: string): void {
    this.#hints.hint(uid);
  }

  async *read(signal: AbortSignal): AsyncGenerator<{ uid: string }, void> {
    for await (const uid of this.#hints.keys(signal)) yield { uid };
  }

  close(): void {
    for (const uid of [...this.#watched.keys()]) this.unwatch(uid);
    this.#directoryWatcher?.close();
    this.#directoryWatcher = undefined;
  }

  /** A loss is announced once; `ensure` starts watching again. */
  #lost(uid: string): void {
    this.unwatch(uid);
    const now = this.#clock.monotonicMs();
    const before = this.#deaths.get(uid);
    const calm = before === undefined || now - before.lastAtMs > Math.max(calmMs, 2 * before.delayMs);
    const delayMs = calm ? 0 : Math.min(Math.max(before.delayMs * 2, firstDelayMs), maxDelayMs);
    this.#deaths.set(uid, { lastAtMs: now, delayMs });
    if (delayMs === 0) this.hint(uid);
    else this.#clock.after(delayMs, () => this.hint(uid));
  }

  #watchDirectory(): void {
    this.#directoryWatcher ??= this.#watchNames(
      (file) => {
        for (const { names } of [...this.#watched.values()]) {
          if (names.netns === file && !existsSync(names.netnsPath)) this.#lost(names.uid);
        }
      },
      () => {
        this.#directoryWatcher = undefined;
      },
    );
  }
}

/** Calls back with each name that appears or vanishes among the network namespaces; `onEnd` when that cannot go on. */
type WatchNames = (onChange: (file: string) => void, onEnd: () => void) => { close(): void };

const watchNetnsNames: WatchNames = (onChange, onEnd) => {
  const watcher = watchFile(netnsDirectory, { persistent: false }, (kind, file) => {
    if (kind === "rename" && file !== null) onChange(file);
  });
  watcher.on("error", () => {
    watcher.close();
    onEnd();
  });
  return watcher;
};
