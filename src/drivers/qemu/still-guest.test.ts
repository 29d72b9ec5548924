import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { type Clock, systemClock } from "../../core/clock.ts";
import type { JsonObject } from "../../core/json.ts";
import { KeyedLock } from "../../core/keyed-lock.ts";
import { silentLogger } from "../../core/logger.ts";
import { seededRandom } from "../../core/random.ts";
import type { GuestLifecycle } from "./guest-lifecycle.ts";
import { recoverStill, type StillParts, whileStill } from "./still-guest.ts";

/** So much faster than the clock on the wall. */
const haste = 10;
const clock: Clock = {
  ...systemClock,
  monotonicMs: () => systemClock.monotonicMs() * haste,
  sleep: (ms, signal) => systemClock.sleep(ms / haste, signal),
  after: (ms, callback) => systemClock.after(ms / haste, callback),
};
const signal = new AbortController().signal;
let directory: string;
let server: Server | undefined;
let asked: string[];
let told: string[];
let state: string;
const sockets = new Set<Socket>();

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "still-"));
  [asked, told, state] = [[], [], "running"];
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  server?.close();
  server = undefined;
  rmSync(directory, { recursive: true });
});

const guest = {
  files: {
    uid: "box",
    get directory() {
      return directory;
    },
    socket: (name: string) => join(directory, name),
  },
  look: async () => ({ state }),
  withMonitor: async (use: (monitor: unknown) => unknown) =>
    use({ execute: async (command: string) => told.push(command) }),
} as unknown as GuestLifecycle;

const lock = new KeyedLock();
const parts: StillParts = {
  ...{ clock, random: seededRandom(1), logger: silentLogger },
  locked: (of, task) => lock.run(of.files.directory, task),
};
const still = (use: () => Promise<unknown> = async () => {}) =>
  parts.locked(guest, async () => {
    kept = (await whileStill(guest, parts, use, signal)).guest;
  });
let kept: string;
const marked = () => existsSync(join(directory, "still"));

/** An agent that says nothing where it has no answer. */
async function serve(answer: (command: string) => JsonObject | undefined): Promise<void> {
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      const bytes = Buffer.from(chunk);
      const { execute, arguments: args } = JSON.parse(
        bytes.subarray(bytes.lastIndexOf(0xff) + 1).toString(),
      ) as { execute: string; arguments: JsonObject };
      const synchronizes = execute === "guest-sync-delimited";
      if (!synchronizes) asked.push(execute.replace("guest-fsfreeze-", ""));
      const said = synchronizes ? { return: args.id } : answer(execute);
      if (said) socket.write(Buffer.concat([Buffer.from([0xff]), Buffer.from(`${JSON.stringify(said)}\n`)]));
    });
  });
  await new Promise<void>((resolve) => server?.listen(join(directory, "agent"), resolve));
}

it("freezes, stops, goes on and thaws", async () => {
  await serve((command) => ({ return: command.endsWith("status") ? "thawed" : 1 }));
  await still(async () => {
    expect([asked, told, marked()]).toEqual([["freeze"], ["stop"], true]);
  });
  expect(kept).toBe("frozen");
  expect(told).toEqual(["stop", "cont"]);
  expect(asked).toEqual(["freeze", "thaw", "status"]);
  expect(marked()).toBe(false);
});

it("asks again until a freeze that came late is undone", async () => {
  let silent = true;
  await serve((command) => {
    if (silent) return undefined;
    return { return: command.endsWith("status") ? "thawed" : 1 };
  });
  await still();
  expect(kept).toBe("paused");
  expect(told).toEqual(["stop", "cont"]);
  expect(marked()).toBe(true);
  silent = false;
  await vi.waitUntil(() => !marked(), { timeout: 5_000 });
  expect(asked.slice(-2)).toEqual(["thaw", "status"]);
});

it("does not take a thaw that did nothing for the end of it", async () => {
  let statuses = 0;
  await serve((command) => {
    if (command.endsWith("status")) return { return: ++statuses < 3 ? "frozen" : "thawed" };
    return command.endsWith("thaw") ? { error: { class: "GenericError", desc: "busy" } } : { return: 1 };
  });
  await still();
  await vi.waitUntil(() => !marked(), { timeout: 5_000 });
  expect(asked).toEqual(["freeze", "thaw", "status", "thaw", "status", "thaw", "status"]);
});

it("thaws at once what is frozen anew while its agent is asked for an earlier one", async () => {
  let silent = true;
  await serve((command) => {
    if (silent) return undefined;
    return { return: command.endsWith("status") ? "thawed" : 1 };
  });
  await still();
  [silent, asked] = [false, []];
  await still();
  expect(kept).toBe("frozen");
  expect(asked.slice(-3)).toEqual(["freeze", "thaw", "status"]);
  expect(marked()).toBe(false);
});

it("leaves nothing behind where there never was an agent, or the guest has ended", async () => {
  await still();
  expect([kept, told, marked()]).toEqual(["paused", ["stop", "cont"], false]);
  await serve(() => undefined);
  await still();
  expect(marked()).toBe(true);
  state = "stopped";
  await vi.waitUntil(() => !marked(), { timeout: 5_000 });
});

it("thaws what a predecessor had frozen that was killed", async () => {
  await serve((command) => ({ return: command.endsWith("status") ? "thawed" : 1 }));
  await recoverStill(guest, parts);
  expect([asked, told]).toEqual([[], []]);
  writeFileSync(join(directory, "still"), "");
  await recoverStill(guest, parts);
  expect(told).toEqual(["cont"]);
  expect(asked).toEqual(["thaw", "status"]);
  expect(marked()).toBe(false);
});
