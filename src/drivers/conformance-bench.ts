/** What the conformance suite stands on: what a driver's test provides, and what each test sees of it. */
import { expect } from "vitest";
import { systemClock } from "../core/clock.ts";
import type { Uid } from "../core/ids.ts";
import type { RootEntry } from "../kinds/drift.ts";
import type { GuestDriver, GuestNic, GuestSpec, GuestVolume, ObservedGuest } from "./driver.ts";

export const noSignal = new AbortController().signal;

export interface DriverHarness {
  /** A spec for a small guest with a new uid and a root of its own. What it does is up to the driver's test image. */
  makeGuest(overrides?: Partial<GuestSpec>): Promise<GuestSpec>;
  /** Like makeGuest, but a guest that ignores the request to shut down. */
  makeStubbornGuest?(): Promise<GuestSpec>;
  /** Resolves when the guest's own software is up: able to shut down in order and to run commands. */
  untilReady?(uid: Uid): Promise<void>;
  /** kill -9 of the guest's main process, from outside. */
  killGuest(uid: Uid): Promise<void>;
  /** Somebody inside shuts it down. */
  powerOffGuest(uid: Uid): Promise<void>;
  /** What the running guest was really given, seen from outside the driver. */
  observeSpec(uid: Uid): Promise<{ memoryMib: number; hostname: string }>;
  /**
   * Calls create and start in a process of its own and kills that process (-9) on the way; a higher `step` (0 to 9)
   * lets it come further. Left out where it cannot be done.
   */
  crashWhileStarting?(spec: GuestSpec, step: number): Promise<void>;
  /** For the ability `cards`. A further card, in the network of makeGuest's guests or in another one that exists. */
  makeCard?(network: "same" | "another"): Promise<GuestNic>;
  /** Hardware addresses of the cards that software in the running guest sees, loopback aside. */
  observeCards?(uid: Uid): Promise<string[]>;
  /**
   * Does the guest answer at the card's address when asked from the card's network? Where guests take their addresses
   * from DHCP, the harness sets it first.
   */
  reachesCard?(uid: Uid, nic: GuestNic): Promise<boolean>;
  /** Like crashWhileStarting, on the way through `cards.attach` (steps 0 to 5). */
  crashWhileAttaching?(handle: GuestDriverHandle, nic: GuestNic, step: number): Promise<void>;
  /** For the ability `volumes`. A volume in the form that the driver takes. */
  makeVolume?(): Promise<GuestVolume>;
  /** Removes it from the host. @throws when something still uses it. */
  dropVolume?(volume: GuestVolume): Promise<void>;
  /** Software in the running guest writes a short text into the volume, durably. */
  writeVolume?(uid: Uid, volume: GuestVolume, text: string): Promise<void>;
  /** What software in the running guest reads there; undefined when it finds no such volume. */
  readVolume?(uid: Uid, volume: GuestVolume): Promise<string | undefined>;
  /** For the ability `resize`. What software in the running guest finds; a VM's memory less what its kernel reserves. */
  observeSize?(uid: Uid): Promise<{ cpus: number; memoryMib: number }>;
  /** For the ability `memory`. Software in the running guest keeps a word in its memory and nowhere else. */
  remember?(uid: Uid, word: string): Promise<void>;
  /** What is kept so; "" when nothing is. */
  recall?(uid: Uid): Promise<string>;
  /** A path that memory can be kept at. */
  memoryPath?(): string;
  /** For the ability `drift`. What the root was made from. */
  originalOf?(root: GuestSpec["root"]): Promise<ReadonlyMap<string, RootEntry>>;
  /** Software in the running guest writes a file into its root, durably. */
  writeRoot?(uid: Uid, path: string, text: string): Promise<void>;
  /** Nothing is real, so what a real host would refuse is not. */
  simulated?: boolean;
  /** Does what makeGuest made go away with `destroy`? Removes it otherwise. */
  forgetGuest?(uid: Uid): Promise<void>;
  /** A new driver over the same state, as after a restart of the daemon. */
  reopen(): Promise<GuestDriver>;
  /** What is left of guests on the host: processes, cgroups, mounts, links, files. Empty when clean. */
  leaks(): Promise<string[]>;
  /** Text that the console prints soon after each start. */
  consoleText?: string;
  dispose(): Promise<void>;
  timeouts: {
    /** From start to ready, and any other single wait. */
    readyMs: number;
    /** Enough for an orderly shutdown. */
    graceMs: number;
  };
}

/** One test's view of the harness. */
export interface Bench {
  readonly harness: DriverHarness;
  /** The driver to call next. */
  driver(): Promise<GuestDriver>;
  /** A guest that is created; its handle went through JSON. */
  created(overrides?: Partial<GuestSpec>): Promise<{ spec: GuestSpec; uid: Uid; handle: GuestDriverHandle }>;
  /** A guest that runs and is ready. */
  running(overrides?: Partial<GuestSpec>): Promise<{ spec: GuestSpec; uid: Uid; handle: GuestDriverHandle }>;
  inspect(uid: Uid): Promise<ObservedGuest<GuestDriverHandle> | undefined>;
  untilState(uid: Uid, state: ObservedGuest<unknown>["state"]): Promise<ObservedGuest<GuestDriverHandle>>;
}

export type GuestDriverHandle = Awaited<ReturnType<GuestDriver["create"]>>;

export async function makeBench(harness: DriverHarness, reopenAlways: boolean): Promise<Bench> {
  const single = await harness.reopen();
  const driver = async () => (reopenAlways ? await harness.reopen() : single);
  const inspect: Bench["inspect"] = async (uid) => (await driver()).inspect(uid);
  const created: Bench["created"] = async (overrides) => {
    const spec = await harness.makeGuest(overrides);
    const subject = await driver();
    const handle = await subject.create(spec, noSignal);
    expect(handle.version).toBe(subject.handleVersion);
    return { spec, uid: spec.uid, handle: JSON.parse(JSON.stringify(handle)) };
  };
  return {
    harness,
    driver,
    inspect,
    created,
    async running(overrides) {
      const guest = await created(overrides);
      await (await driver()).start(guest.handle, noSignal);
      await harness.untilReady?.(guest.uid);
      return guest;
    },
    async untilState(uid, state) {
      let guest: Awaited<ReturnType<Bench["inspect"]>>;
      await until(
        async () => {
          guest = await inspect(uid);
          return guest?.state === state;
        },
        harness.timeouts.readyMs,
        `guest ${uid} being ${state}`,
      );
      if (guest === undefined) throw new Error(`guest ${uid} disappeared`);
      return guest;
    },
  };
}

/** Waits for a condition; fails with what was waited for. */
export async function until(
  condition: () => boolean | Promise<boolean>,
  withinMs: number,
  what: string,
): Promise<void> {
  const deadline = systemClock.monotonicMs() + withinMs;
  while (!(await condition())) {
    if (systemClock.monotonicMs() > deadline) throw new Error(`${what} did not come within ${withinMs} ms`);
    await systemClock.sleep(5);
  }
}
