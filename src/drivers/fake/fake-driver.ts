/**
 * A driver without a hypervisor: for simulations of thousands of guests, for tests, and for `strata daemon --fake`.
 * It keeps nothing itself; all state is the world's.
 */
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { RootEntry, RootListing } from "../../kinds/drift.ts";
import type { Fingerprint } from "../../kinds/host.ts";
import type {
  Cards,
  Drift,
  Exec,
  GuestDriver,
  GuestSpec,
  ObservedGuest,
  Resize,
  Snapshots,
  Volumes,
} from "../driver.ts";
import { HintQueue } from "../hint-queue.ts";
import { fakeConsole, runFakeCommand } from "./fake-commands.ts";
import { type FakeConfig, fakeConfigSchema } from "./fake-config.ts";
import { fakeCopies } from "./fake-copies.ts";
import type { FakeGuest, FakeWorld } from "./fake-world.ts";

export interface FakeDriverOptions {
  /** Default `fake`. */
  name?: string;
  /** Default both. */
  types?: Fingerprint["types"];
  /** What it can change while a guest runs. Default all. */
  liveResize?: Resize<JsonObject>["live"];
}

type GuestSize = Pick<GuestSpec, "cpus" | "memoryMib">;

export function createFakeDriver(world: FakeWorld, options: FakeDriverOptions = {}): GuestDriver<JsonObject> {
  return new FakeDriver(world, options);
}

class FakeDriver implements GuestDriver<JsonObject> {
  readonly name: string;
  readonly config = fakeConfigSchema as unknown as GuestDriver["config"];
  readonly handleVersion = 1;
  readonly console;
  readonly exec: Exec<JsonObject>;
  readonly cards: Cards<JsonObject>;
  readonly resize: Resize<JsonObject>;
  readonly volumes: Volumes<JsonObject>;
  readonly drift: Drift<JsonObject>;
  readonly snapshots: Snapshots<JsonObject>;
  readonly #world: FakeWorld;
  readonly #types: Fingerprint["types"];

  constructor(world: FakeWorld, options: FakeDriverOptions) {
    this.#world = world;
    this.name = options.name ?? "fake";
    this.#types = options.types ?? ["vm", "container"];
    this.console = fakeConsole(world, (handle) => this.#uidOf(handle));
    this.exec = {
      run: async (handle, request, signal) => {
        signal.throwIfAborted();
        const guest = world.guests.get(this.#uidOf(handle));
        if (guest?.state !== "running") {
          throw new StrataError("Unavailable", "the guest is not running, so no command can run in it");
        }
        return runFakeCommand(guest, request, signal);
      },
    };
    this.cards = {
      attach: (handle, nic, signal) => {
        const uid = this.#uidOf(handle);
        return world.call("attach", uid, signal, () => world.attach(uid, nic));
      },
      detach: (handle, nic, signal) => {
        const uid = this.#uidOf(handle);
        return world.call("detach", uid, signal, () => world.detach(uid, nic.port));
      },
    };
    this.volumes = {
      takes: "mount",
      attach: (handle, volume, signal) => {
        const uid = this.#uidOf(handle);
        return world.call("attach-volume", uid, signal, () => world.attachVolume(uid, volume));
      },
      detach: (handle, volume, signal) => {
        const uid = this.#uidOf(handle);
        return world.call("detach-volume", uid, signal, () => world.detachVolume(uid, volume.id));
      },
    };
    this.drift = {
      read: (handle, { original }, signal) => {
        const uid = this.#uidOf(handle);
        return world.call("drift", uid, signal, () => {
          const { written, state } = world.require(uid);
          const reading = state === "running" ? "running" : "idle";
          return { listings: listingsOf(original, written), reading };
        });
      },
    };
    this.snapshots = {
      keptStillBy: "driver",
      whileStill: (handle, use, signal) => {
        const uid = this.#uidOf(handle);
        return world.call("still", uid, signal, () => world.whileStill(uid, use));
      },
      copies: fakeCopies(world, (handle) => this.#uidOf(handle)),
    };
    const live = options.liveResize ?? { cpus: true, memory: "both" };
    this.resize = {
      live,
      apply: (handle, size, signal) => {
        const uid = this.#uidOf(handle);
        return world.call("resize", uid, signal, () => {
          const { spec, state } = world.require(uid);
          if (state === "running" && !canChange(live, spec, size)) {
            throw new StrataError("Unsupported", "the fake guest needs a restart for another size");
          }
          world.resize(uid, size);
        });
      },
    };
  }

  async fingerprint(): Promise<Fingerprint> {
    return {
      available: true,
      message: "",
      version: "fake",
      types: this.#types,
      abilities: [
        "exec",
        "exec-tty",
        "console",
        "cards",
        "resize",
        "volumes",
        "drift",
        "snapshots",
        "memory",
      ],
      facts: { guests: "simulated" },
    };
  }

  list(): Promise<ObservedGuest<JsonObject>[]> {
    return this.#world.call("list", undefined, undefined, () =>
      [...this.#world.guests].map(([uid, guest]) => this.#observe(uid, guest)),
    );
  }

  inspect(uid: Uid): Promise<ObservedGuest<JsonObject> | undefined> {
    return this.#world.call("inspect", uid, undefined, () => {
      const guest = this.#world.guests.get(uid);
      return guest && this.#observe(uid, guest);
    });
  }

  create(guest: GuestSpec, signal: AbortSignal): Promise<JsonObject> {
    return this.#world.call("create", guest.uid, signal, () => {
      const config: FakeConfig = fakeConfigSchema.parse(guest.config);
      this.#world.put(guest.uid, { ...structuredClone(guest), config });
      return this.#handleOf(guest.uid);
    });
  }

  start(handle: JsonObject, signal: AbortSignal): Promise<void> {
    const uid = this.#uidOf(handle);
    return this.#world.call("start", uid, signal, () => this.#world.run(uid));
  }

  stop(handle: JsonObject, options: { graceMs: number }, signal: AbortSignal): Promise<void> {
    const uid = this.#uidOf(handle);
    return this.#world.call("stop", uid, signal, async () => {
      const guest = this.#world.guests.get(uid);
      if (guest?.state !== "running") return;
      const { runId } = guest;
      const needsMs = guest.spec.config.shutdownMs === "never" ? Infinity : guest.spec.config.shutdownMs;
      const waitMs = Math.min(needsMs, options.graceMs);
      if (waitMs > 0) await this.#world.clock.sleep(waitMs, signal);
      if (guest.runId !== runId) return;
      const message = needsMs <= options.graceMs ? "shut down as requested" : "killed after the grace period";
      this.#world.end(uid, "requested", message);
    });
  }

  destroy(handle: JsonObject, signal: AbortSignal): Promise<void> {
    const uid = this.#uidOf(handle);
    return this.#world.call("destroy", uid, signal, () => this.#world.remove(uid));
  }

  events(signal: AbortSignal): AsyncIterable<{ uid: Uid }> {
    const hints = new HintQueue(signal);
    const end = this.#world.onHint((uid) => hints.push(uid));
    signal.addEventListener("abort", end, { once: true });
    if (signal.aborted) end();
    return hints;
  }

  #observe(uid: Uid, guest: FakeGuest): ObservedGuest<JsonObject> {
    const { putBack } = guest;
    const memory = putBack ? { id: putBack.id, state: "waiting" as const, message: "" } : guest.memory;
    return {
      uid,
      handle: this.#handleOf(uid),
      state: guest.state,
      ...(guest.exit === undefined ? {} : { exit: guest.exit }),
      ...(guest.runId === undefined ? {} : { runId: guest.runId }),
      ...(guest.pid === undefined ? {} : { pid: guest.pid }),
      ...(memory && { memory }),
    };
  }

  #handleOf(uid: Uid): JsonObject {
    return { version: this.handleVersion, uid };
  }

  #uidOf(handle: JsonObject): Uid {
    return handle.uid as Uid;
  }
}

/** The directories in which something was written or removed. */
function listingsOf(
  original: ReadonlyMap<string, RootEntry>,
  written: ReadonlyMap<string, RootEntry | undefined>,
): RootListing[] {
  const directoryOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf("/")));
  const nameOf = (path: string) => path.slice(path.lastIndexOf("/") + 1);
  return [...new Set([...written.keys()].map(directoryOf))].map((path) => {
    const here = (key: string) => key !== "" && directoryOf(key) === path;
    const entries = [...written].flatMap(([key, entry]) => (here(key) && entry ? [entry] : []));
    const kept = [...original.keys()].filter((key) => here(key) && !written.has(key));
    return { path, names: [...kept, ...entries.map((entry) => entry.path)].map(nameOf), entries };
  });
}

function canChange(live: Resize<JsonObject>["live"], from: GuestSize, to: GuestSize): boolean {
  if (to.cpus !== from.cpus && !live.cpus) return false;
  if (to.memoryMib === from.memoryMib || live.memory === "both") return true;
  return live.memory === "grow" && to.memoryMib > from.memoryMib;
}
