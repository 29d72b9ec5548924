import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../core/clock.ts";
import type { JsonObject } from "../../core/json.ts";
import { seededRandom } from "../../core/random.ts";
import { GuestAgent } from "./guest-agent.ts";

let directory: string;
let server: Server | undefined;
const sockets = new Set<Socket>();

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "agent-"));
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  server?.close();
  rmSync(directory, { recursive: true });
});

interface Script {
  /** Sent before the answer to the synchronization. */
  stale?: string;
  answer(request: JsonObject): unknown;
}

/** An agent as the guest's: forgets what came before a delimiter, synchronizes, answers as told. */
async function serve({ stale = "", answer }: Script): Promise<string> {
  const path = join(directory, "agent.sock");
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      const bytes = Buffer.from(chunk);
      const text = bytes.subarray(bytes.lastIndexOf(0xff) + 1).toString();
      const request = JSON.parse(text) as JsonObject;
      if (request.execute === "guest-sync-delimited") {
        socket.write(stale);
        socket.write(Buffer.from([0xff]));
        socket.write(`${JSON.stringify({ return: (request.arguments as JsonObject).id })}\n`);
      } else socket.write(`${JSON.stringify(answer(request))}\n`);
    });
  });
  await new Promise<void>((resolve) => server?.listen(path, resolve));
  return path;
}

function open(path: string, signal = new AbortController().signal): Promise<GuestAgent> {
  return GuestAgent.connect(path, { clock: systemClock, random: seededRandom(1), timeoutMs: 200 }, signal);
}

describe("the guest agent", () => {
  it("answers commands one after the other", async () => {
    const agent = await open(await serve({ answer: (request) => ({ return: { did: request.execute } }) }));
    expect(await agent.execute("guest-ping")).toEqual({ did: "guest-ping" });
    expect(await agent.execute("guest-info")).toEqual({ did: "guest-info" });
    agent.close();
    await agent.closed;
  });

  it.each([
    ["an answer to somebody else", '{"return": 7}\n'],
    ["half an answer", '{"return": {"x'],
    ["the end of one", 'y"}}\n{"return": 8}\n'],
  ])("finds its place after %s", async (_name, stale) => {
    const agent = await open(await serve({ stale, answer: () => ({ return: "fresh" }) }));
    expect(await agent.execute("guest-ping")).toBe("fresh");
    agent.close();
  });

  it("tells what is forbidden from what failed", async () => {
    const path = await serve({
      answer: (request) => ({
        error: { class: request.execute === "guest-exec" ? "CommandNotFound" : "GenericError", desc: "no" },
      }),
    });
    const agent = await open(path);
    await expect(agent.execute("guest-exec")).rejects.toMatchObject({ code: "Unsupported" });
    await expect(agent.execute("guest-file-open")).rejects.toMatchObject({ code: "Internal" });
    agent.close();
  });

  it("is Unavailable when it is silent, gone, or was never there", async () => {
    const silent = createServer((socket) => sockets.add(socket));
    const path = join(directory, "silent.sock");
    await new Promise<void>((resolve) => silent.listen(path, resolve));
    await expect(open(path)).rejects.toMatchObject({ code: "Unavailable", message: /qemu-guest-agent/ });
    const abort = new AbortController();
    const opening = open(path, abort.signal);
    abort.abort(new Error("enough"));
    await expect(opening).rejects.toThrow("enough");
    silent.close();
    await expect(open(join(directory, "none.sock"))).rejects.toMatchObject({ code: "Unavailable" });
  });
});
