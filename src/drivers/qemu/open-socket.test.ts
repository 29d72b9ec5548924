import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { systemClock } from "../../core/clock.ts";
import { openSocket } from "./open-socket.ts";

const options = { clock: systemClock, timeoutMs: 1_000 };

it("connects, and says when nobody listens", async () => {
  const directory = mkdtempSync(join(tmpdir(), "socket-"));
  try {
    const path = join(directory, "x.sock");
    await expect(openSocket(path, options)).rejects.toMatchObject({ code: "Unavailable" });
    const server = createServer((socket) => socket.end("hello"));
    await new Promise<void>((resolve) => server.listen(path, resolve));
    const socket = await openSocket(path, options);
    const words: string[] = [];
    for await (const chunk of socket) words.push(String(chunk));
    expect(words).toEqual(["hello"]);
    server.close();
    const reason = new Error("enough");
    await expect(openSocket(path, options, AbortSignal.abort(reason))).rejects.toBe(reason);
  } finally {
    rmSync(directory, { recursive: true });
  }
});
