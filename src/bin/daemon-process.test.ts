import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { daemonCommand, findDaemon, startTimeOf, stopDaemon, unitText } from "./daemon-process.ts";
import { readSettings, type Settings } from "./settings.ts";

let directory: string;
let settings: Settings;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "strata-process-"));
  settings = readSettings({ STRATA_DIR: directory });
  mkdirSync(dirname(settings.pidFile), { recursive: true });
});
afterEach(() => rmSync(directory, { recursive: true }));

test("a pid alone is not believed: another process may have it by now", () => {
  expect(findDaemon(settings)).toBeUndefined();
  writeFileSync(settings.pidFile, `${process.pid} 1\n`);
  expect(findDaemon(settings)).toBeUndefined();
  writeFileSync(settings.pidFile, `${process.pid} ${startTimeOf(process.pid)} 7443\n`);
  expect(findDaemon(settings)).toEqual({ pid: process.pid, httpsPort: 7443 });
});

test("stopping waits until the process is gone", async () => {
  expect(await stopDaemon(settings, systemClock)).toBe(false);
  const child = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000); console.log('up')"], {
    stdio: ["ignore", "pipe", "ignore"],
  });
  await new Promise((resolve) => child.stdout.once("data", resolve));
  const pid = child.pid ?? 0;
  writeFileSync(settings.pidFile, `${pid} ${startTimeOf(pid)}\n`);
  const ended = new Promise((resolve) => child.once("exit", resolve));
  expect(await stopDaemon(settings, systemClock)).toBe(true);
  await ended;
  expect(findDaemon(settings)).toBeUndefined();
});

test("the unit brings what keeps the daemon small, which Node.js knows", () => {
  const text = unitText(settings);
  expect(text).toContain('Environment="MALLOC_ARENA_MAX=1"');
  expect(text).toContain('Environment="MALLOC_TRIM_THRESHOLD_=1048576"');
  expect(text).toMatch(/^ExecStart=.*"--heap-growing-percent=20" "--memory-saver-mode"/m);
  const { command, args } = daemonCommand();
  const limit = "console.log(require('node:v8').getHeapStatistics().heap_size_limit / 2 ** 20)";
  const mib = Number(execFileSync(command, [...args.slice(0, -1), "--eval", limit], { encoding: "utf8" }));
  expect(mib).toBeGreaterThanOrEqual(512);
  expect(mib).toBeLessThan(600);
});

test("the unit leaves guests alone when the daemon stops, and takes odd paths literally", () => {
  const text = unitText({ ...settings, stateDir: '/srv/100% "mine" $HOME' });
  expect(text).toContain("KillMode=process\nDelegate=yes\nRestart=always");
  expect(text).toContain('Environment="STRATA_STATE_DIR=/srv/100%% \\"mine\\" $HOME"');
  expect(text).toMatch(/^ExecStart="\/.*node" .*"\/.*daemon\.ts"$/m);
});
