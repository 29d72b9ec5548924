/**
 * The machine that fake guests run on. It outlives its drivers: a driver made anew over the same world finds the
 * guests again, as after a restart of the daemon. Everything is deterministic: ids count up, time is the given
 * clock's, and faults happen when the script or the `faults` function says so.
 */
import { hash } from "node:crypto";
import { isDeepStrictEqual } from "node:util";
import type { Clock } from "../../core/clock.ts";
import { type ErrorCode, StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { RootEntry } from "../../kinds/drift.ts";
import type { ExitReason, GuestNic, GuestSpec, GuestVolume, ObservedGuest } from "../driver.ts";
import type { FakeConfig } from "./fake-config.ts";

export type FakeVerb =
  | "list"
  | "inspect"
  | "create"
  | "start"
  | "stop"
  | "destroy"
  | "attach"
  | "detach"
  | "attach-volume"
  | "detach-volume"
  | "still"
  | "copy"
  | "forget"
  | "put-back"
  | "leave"
  | "resize"
  | "drift";

/** What goes wrong with one call. */
export type FakeEffect =
  /** Nothing is done, and the call throws. */
  | { type: "fail"; code?: ErrorCode }
  /** It is done, and the call throws all the same: the answer got lost. */
  | { type: "lose-answer" }
  /** It is done, or not, and the call never answers: `onCrash` is told that the calling process is dead. */
  | { type: "crash"; when: "before" | "after" }
  /** It is done, and the call answers later. */
  | { type: "delay"; delayMs: number }
  /** It is done; the guest ends by itself a while after. */
  | { type: "die"; delayMs: number; reason: Exclude<ExitReason, "requested"> };

export interface FakeCall {
  verb: FakeVerb;
  /** Undefined for `list`. */
  uid: Uid | undefined;
  /** How many calls of this verb there were so far, this one included. */
  count: number;
}

/** A fault that happens once: at the `nth` (default first) call from now that fits. */
export interface ScriptedFault {
  verb: FakeVerb;
  uid?: Uid;
  nth?: number;
  effect: FakeEffect;
}

export interface FakeGuest {
  spec: GuestSpec<FakeConfig>;
  state: "created" | "running" | "stopped";
  exit?: { reason: ExitReason; message: string };
  runId?: string;
  pid?: number;
  /** What its console printed, the last 64 KiB. */
  console: string;
  consoleTaken: boolean;
  /** What was written into its root since it was made, by path; undefined: was removed. */
  written: Map<string, RootEntry | undefined>;
  /** What it has in mind: gone with its run. */
  thought: string;
  /** What its next start goes on from. */
  putBack?: { id: string; path: string; after: string | undefined };
  memory?: NonNullable<ObservedGuest<unknown>["memory"]>;
}

export interface FakeWorldOptions {
  clock: Clock;
  /** Asked at each call, after the script; for random faults from a seed. */
  faults?: (call: FakeCall) => FakeEffect | undefined;
  onCrash?: () => void;
}

const consoleLimit = 64 * 1024;

export class FakeWorld {
  readonly clock: Clock;
  readonly guests = new Map<Uid, FakeGuest>();
  /** Of disks, by what they are made for: they end with that run of the guest. */
  readonly copies = new Map<Uid, { guest: Uid; runId: string; doneMs: number }>();
  /** What was kept of guests' memory, by path. */
  readonly memories = new Map<string, { spec: GuestSpec<FakeConfig>; thought: string }>();
  readonly #options: FakeWorldOptions;
  readonly #hintListeners = new Set<(uid: Uid) => void>();
  readonly #consoleListeners = new Map<Uid, Set<(text: string) => void>>();
  readonly #counts = new Map<FakeVerb, number>();
  #script: { fault: ScriptedFault; left: number }[] = [];
  #runs = 0;

  constructor(options: FakeWorldOptions) {
    this.clock = options.clock;
    this.#options = options;
  }

  script(fault: ScriptedFault): void {
    this.#script.push({ fault, left: fault.nth ?? 1 });
  }

  /** Runs one call of a driver, with what the script has in store for it. */
  async call<Result>(
    verb: FakeVerb,
    uid: Uid | undefined,
    signal: AbortSignal | undefined,
    action: () => Result | Promise<Result>,
  ): Promise<Result> {
    signal?.throwIfAborted();
    const count = (this.#counts.get(verb) ?? 0) + 1;
    this.#counts.set(verb, count);
    const effect = this.#scripted(verb, uid) ?? this.#options.faults?.({ verb, uid, count });
    if (effect?.type === "fail") {
      throw new StrataError(
        effect.code ?? "Unavailable",
        `the fake driver was told to fail ${verb} ${uid ?? ""}`,
      );
    }
    if (effect?.type === "crash" && effect.when === "before") return this.#crash();
    const result = await action();
    switch (effect?.type) {
      case "lose-answer":
        throw new StrataError(
          "Unavailable",
          `the fake driver was told to lose the answer of ${verb} ${uid ?? ""}`,
        );
      case "crash":
        return this.#crash();
      case "delay":
        await this.clock.sleep(effect.delayMs, signal);
        return result;
      case "die":
        if (uid !== undefined) this.#endLater(uid, effect.delayMs, effect.reason);
        return result;
      default:
        return result;
    }
  }

  /** Calls back at each change of a guest; the returned function ends it. */
  onHint(listener: (uid: Uid) => void): () => void {
    this.#hintListeners.add(listener);
    return () => this.#hintListeners.delete(listener);
  }

  onConsole(uid: Uid, listener: (text: string) => void): () => void {
    const listeners = this.#consoleListeners.get(uid) ?? new Set();
    this.#consoleListeners.set(uid, listeners);
    listeners.add(listener);
    return () => {
      listeners.delete(listener);
      if (listeners.size === 0) this.#consoleListeners.delete(uid);
    };
  }

  put(uid: Uid, spec: GuestSpec<FakeConfig>): void {
    const guest = this.guests.get(uid);
    if (guest === undefined) {
      const blank = { console: "", consoleTaken: false, written: new Map(), thought: "" };
      this.guests.set(uid, { spec, state: "created", ...blank });
    } else if (guest.state !== "running") {
      if (!isDeepStrictEqual(guest.spec.root, spec.root)) guest.written.clear();
      guest.spec = spec;
    } else return;
    this.hint(uid);
  }

  attach(uid: Uid, nic: GuestNic): void {
    const { spec } = this.require(uid);
    spec.nics = [...spec.nics.filter(({ port }) => port !== nic.port), structuredClone(nic)];
  }

  detach(uid: Uid, port: string): void {
    const spec = this.guests.get(uid)?.spec;
    if (spec !== undefined) spec.nics = spec.nics.filter((nic) => nic.port !== port);
  }

  attachVolume(uid: Uid, volume: GuestVolume): void {
    const { spec } = this.require(uid);
    const others = (spec.volumes ?? []).filter(({ id }) => id !== volume.id);
    spec.volumes = [...others, structuredClone(volume)];
  }

  detachVolume(uid: Uid, id: string): void {
    const spec = this.guests.get(uid)?.spec;
    if (spec?.volumes) spec.volumes = spec.volumes.filter((volume) => volume.id !== id);
  }

  async whileStill<Result>(
    uid: Uid,
    use: () => Promise<Result>,
  ): Promise<{ result: Result; guest: "frozen" | "idle" }> {
    const running = this.guests.get(uid)?.state === "running";
    return { result: await use(), guest: running ? "frozen" : "idle" };
  }

  resize(uid: Uid, size: { cpus: number; memoryMib: number }): void {
    Object.assign(this.require(uid).spec, { cpus: size.cpus, memoryMib: size.memoryMib });
  }

  /** @throws NotFound. */
  require(uid: Uid): FakeGuest {
    const guest = this.guests.get(uid);
    if (guest === undefined) throw new StrataError("NotFound", `the fake guest ${uid} was not created`);
    return guest;
  }

  run(uid: Uid): void {
    const guest = this.require(uid);
    if (guest.state === "running") return;
    this.#runs += 1;
    this.#remember(guest);
    guest.state = "running";
    guest.runId = `run-${this.#runs}`;
    guest.pid = 1_000_000 + this.#runs;
    delete guest.exit;
    this.print(uid, `${guest.spec.hostname} login: `);
    const { lifetimeMs } = guest.spec.config;
    if (lifetimeMs !== undefined) this.#endLater(uid, lifetimeMs, guest.spec.config.endsBy);
    this.hint(uid);
  }

  /** Of a guest that begins: what it has in mind. */
  #remember(guest: FakeGuest): void {
    const { putBack, runId } = guest;
    delete guest.putBack;
    delete guest.memory;
    guest.thought = "";
    if (putBack === undefined) return;
    const kept = this.memories.get(putBack.path);
    const refused =
      putBack.after !== runId
        ? "it was started since"
        : kept === undefined
          ? "its snapshot is gone"
          : isSameMachine(kept.spec, guest.spec)
            ? undefined
            : "it is another machine now";
    const state = refused === undefined ? "resumed" : "booted";
    guest.memory = { id: putBack.id, state, message: refused ?? "" };
    if (refused === undefined && kept) guest.thought = kept.thought;
  }

  /** As if somebody in the guest wrote a file, or removed it. */
  write(uid: Uid, path: string, text: string | undefined): void {
    const file = { path, type: "file", mode: 0o644, uid: 0, gid: 0 } as const;
    const content = text === undefined ? undefined : { sizeBytes: text.length, sha256: hash("sha256", text) };
    this.require(uid).written.set(path, content && { ...file, ...content });
  }

  /** Ends a guest; one that does not run is left as it is. */
  end(uid: Uid, reason: ExitReason, message: string): void {
    const guest = this.guests.get(uid);
    if (guest?.state !== "running") return;
    guest.state = "stopped";
    guest.exit = { reason, message };
    delete guest.pid;
    this.hint(uid);
  }

  remove(uid: Uid): void {
    if (this.guests.delete(uid)) this.hint(uid);
  }

  /** As if the guest's main process was killed from outside. */
  kill(uid: Uid): void {
    this.end(uid, "crash", "killed by signal 9");
  }

  /** As if somebody in the guest shut it down. */
  powerOff(uid: Uid): void {
    this.end(uid, "poweroff", "powered off by itself");
  }

  /** As if the host was switched off and on. */
  reboot(): void {
    for (const uid of this.guests.keys()) this.end(uid, "crash", "the host was restarted");
  }

  print(uid: Uid, text: string): void {
    const guest = this.guests.get(uid);
    if (guest === undefined) return;
    guest.console = (guest.console + text).slice(-consoleLimit);
    for (const listener of this.#consoleListeners.get(uid) ?? []) listener(text);
  }

  hint(uid: Uid): void {
    for (const listener of this.#hintListeners) listener(uid);
  }

  #endLater(uid: Uid, delayMs: number, reason: ExitReason): void {
    const runId = this.guests.get(uid)?.runId;
    this.clock.after(delayMs, () => {
      if (this.guests.get(uid)?.runId === runId)
        this.end(uid, reason, `the fake guest was told to end by ${reason}`);
    });
  }

  #scripted(verb: FakeVerb, uid: Uid | undefined): FakeEffect | undefined {
    let due: ScriptedFault | undefined;
    for (const entry of this.#script) {
      const { fault } = entry;
      if (fault.verb !== verb || (fault.uid !== undefined && fault.uid !== uid)) continue;
      entry.left -= 1;
      if (entry.left <= 0) due ??= fault;
    }
    if (due !== undefined) this.#script = this.#script.filter(({ fault }) => fault !== due);
    return due?.effect;
  }

  #crash(): Promise<never> {
    this.#options.onCrash?.();
    return new Promise(() => {});
  }
}

function isSameMachine({ seed: _a, ...a }: GuestSpec<FakeConfig>, { seed: _b, ...b }: GuestSpec<FakeConfig>) {
  return isDeepStrictEqual(a, b);
}
