import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { StrataError } from "../../core/errors.ts";
import { silentLogger } from "../../core/logger.ts";
import { seededRandom } from "../../core/random.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { holdLimitMs } from "./hold-limit.ts";
import { recoverStill, type StillParts, whileStill } from "./still-guest.ts";

let directory: string;
let commands: string[];
let failing: Set<string>;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "still-"));
  commands = [];
  failing = new Set();
});
afterEach(() => rmSync(directory, { recursive: true }));

const { signal } = new AbortController();
const clock = new VirtualClock();
const parts: StillParts = {
  ...{ clock, random: seededRandom(1), logger: silentLogger },
  locked: (_guest, task) => task(),
};

/** It runs, has no agent, and its monitor does not answer what is in `failing`. */
function guest(): GuestLifecycle {
  const execute = async (command: string) => {
    commands.push(command);
    if (failing.has(command)) throw new StrataError("Timeout", "QEMU does not answer");
  };
  return {
    files: { directory, socket: (name: string) => join(directory, name) },
    look: async () => ({ state: "running" }),
    withMonitor: (use: (monitor: unknown) => Promise<unknown>) => use({ execute }),
  } as unknown as GuestLifecycle;
}

test("a machine that could not be told to go on is told so again, and only until it did", async () => {
  failing.add("cont");
  await expect(whileStill(guest(), parts, async () => 1, signal)).rejects.toMatchObject({ code: "Timeout" });
  await expect(recoverStill(guest(), parts)).rejects.toMatchObject({ code: "Timeout" });
  failing.clear();
  await recoverStill(guest(), parts);
  await recoverStill(guest(), parts);
  expect(commands).toEqual(["stop", "cont", "cont", "cont"]);
});

test("it goes on when what it is kept still for takes too long", async () => {
  let begun = () => {};
  const isStill = new Promise<void>((resolve) => {
    begun = resolve;
  });
  const held = whileStill(
    guest(),
    parts,
    (limited) =>
      new Promise<never>((_resolve, reject) => {
        limited.addEventListener("abort", () => reject(limited.reason), { once: true });
        begun();
      }),
    signal,
  );
  const refused = expect(held).rejects.toMatchObject({ code: "Unavailable" });
  await isStill;
  await clock.advance(holdLimitMs);
  await refused;
  expect(commands).toEqual(["stop", "cont"]);
});
