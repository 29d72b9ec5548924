import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { JsonObject } from "../../core/json.ts";
import { silentLogger } from "../../core/logger.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { continueAfterPauses } from "./storage-pause.ts";

let directory: string;
let server: Server;
let socket: Socket | undefined;
let commands: string[];

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), "pause-"));
  commands = [];
  socket = undefined;
});
afterEach(() => {
  socket?.destroy();
  server.close();
  rmSync(directory, { recursive: true });
});

async function serve(status: string): Promise<string> {
  const path = join(directory, "events.sock");
  server = createServer((client) => {
    socket = client;
    client.write('{"QMP": {}}\n');
    client.on("data", (chunk) => {
      for (const line of String(chunk).trim().split("\n")) {
        const { execute, id } = JSON.parse(line) as JsonObject;
        commands.push(String(execute));
        client.write(`${JSON.stringify({ return: { status }, id })}\n`);
      }
    });
  });
  await new Promise<void>((resolve) => server.listen(path, resolve));
  return path;
}

async function untilSent(command: string): Promise<void> {
  while (!commands.includes(command)) await new Promise((resolve) => setImmediate(resolve));
}

const noSpace = { event: "BLOCK_IO_ERROR", data: { action: "stop", nospace: true } };

it("lets a guest go on a while after it was paused, each time", async () => {
  const clock = new VirtualClock();
  const end = continueAfterPauses(await serve("running"), { clock, logger: silentLogger, title: "p/n" });
  await untilSent("query-status");
  for (let round = 0; round < 2; round++) {
    commands = [];
    socket?.write(`${JSON.stringify(noSpace)}\n`);
    // The time limits of the commands are timers as well: only the retry is this far away.
    while (!commands.includes("cont")) {
      await new Promise((resolve) => setImmediate(resolve));
      await clock.advance(1_000);
    }
  }
  end();
});

it("finds a guest that was paused while nobody listened, and leaves one alone that reports errors itself", async () => {
  const clock = new VirtualClock();
  const end = continueAfterPauses(await serve("io-error"), { clock, logger: silentLogger, title: "p/n" });
  await untilSent("query-status");
  while (!commands.includes("cont")) {
    await new Promise((resolve) => setImmediate(resolve));
    await clock.advance(1_000);
  }
  commands = [];
  socket?.write(`${JSON.stringify({ ...noSpace, data: { action: "report" } })}\n`);
  await new Promise((resolve) => setImmediate(resolve));
  await clock.advance(60_000);
  expect(commands).toEqual([]);
  end();
});
