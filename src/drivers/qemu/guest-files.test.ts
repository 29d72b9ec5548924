import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { GuestFiles, guestsDirectory, listGuests, type RunRecord } from "./guest-files.ts";

const uid = "0123456789abcdef" as Uid;
let host: { stateDir: string; runDir: string };
beforeEach(() => {
  const directory = mkdtempSync(join(tmpdir(), "guest-files-"));
  host = { stateDir: join(directory, "state"), runDir: join(directory, "run") };
});
afterEach(() => rmSync(join(host.stateDir, ".."), { recursive: true }));

it("has no guests before any was made, and one from the first directory on", async () => {
  expect(await listGuests(host)).toEqual([]);
  const files = new GuestFiles(host, uid);
  await files.make();
  expect(await listGuests(host)).toEqual([uid]);
  expect(await files.readGuest()).toBeUndefined();
  expect(await files.readRun()).toBeUndefined();
  expect(await files.readStatus()).toBeUndefined();
});

it("keeps records through an interrupted write, and says when one is damaged", async () => {
  const files = new GuestFiles(host, uid);
  await files.make();
  const run: RunRecord = { runId: "r", bootId: "b", stopRequested: false };
  await files.writeRun(run);
  writeFileSync(join(files.directory, "run.json.new"), '{"runId":');
  expect(await files.readRun()).toEqual(run);
  writeFileSync(join(files.directory, "run.json"), "{");
  await expect(files.readRun()).rejects.toMatchObject({ code: "Internal" });
});

it("takes only a complete status for one", async () => {
  const files = new GuestFiles(host, uid);
  await files.make();
  for (const [text, expected] of [
    ["", undefined],
    ["13", undefined],
    ["137\n", 137],
  ] as const) {
    writeFileSync(files.status, text);
    expect(await files.readStatus()).toBe(expected);
  }
});

it("removes a guest all at once, and completes a removal that was interrupted", async () => {
  const files = new GuestFiles(host, uid);
  await files.make();
  await files.makeRuntime();
  mkdirSync(join(guestsDirectory(host), ".fedcba9876543210.removed"));
  writeFileSync(join(guestsDirectory(host), ".fedcba9876543210.removed", "seed.iso"), "");
  expect(await listGuests(host)).toEqual([uid]);
  await files.remove();
  await files.remove();
  expect(readdirSync(guestsDirectory(host))).toEqual([]);
  expect(readdirSync(join(host.runDir, "qemu"))).toEqual([]);
});
