import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, it } from "vitest";
import { listenAt } from "./listening-sockets.ts";

let directory: string;
let child: ChildProcess | undefined;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "listen-"));
});
afterEach(() => {
  child?.kill("SIGKILL");
  rmSync(directory, { recursive: true });
});

it("goes on in the child that inherited it, after it was closed here", async () => {
  const path = join(directory, "x.sock");
  const socket = await listenAt(path);
  const program = `
    const { createServer } = require("node:net");
    createServer((client) => client.end("from the child")).listen({ fd: 3 });
  `;
  child = spawn(process.execPath, ["-e", program], { stdio: ["ignore", "ignore", "inherit", socket.fd] });
  socket.close();
  // The client comes before the child's server is up.
  const early = connect({ path });
  expect(await text(early)).toBe("from the child");
  expect(existsSync(path)).toBe(true);
  expect(await text(connect({ path }))).toBe("from the child");
});

it("disconnects who waits when the last holder ends", async () => {
  const path = join(directory, "x.sock");
  const socket = await listenAt(path);
  child = spawn("sleep", ["1000"], { stdio: ["ignore", "ignore", "inherit", socket.fd] });
  socket.close();
  const waiting = connect({ path });
  await once(waiting, "connect");
  child.kill("SIGKILL");
  waiting.resume();
  waiting.on("error", () => {}); // reset, because nobody had accepted it
  await new Promise((resolve) => waiting.once("close", resolve));
});

it("takes over a path that somebody else had", async () => {
  const path = join(directory, "x.sock");
  const first = await listenAt(path);
  first.close();
  const second = await listenAt(path);
  const client = connect({ path });
  await once(client, "connect");
  client.destroy();
  second.close();
});

it("says so when the path does not fit", async () => {
  await expect(listenAt(join(directory, "x".repeat(120)))).rejects.toMatchObject({ code: "Invalid" });
});
