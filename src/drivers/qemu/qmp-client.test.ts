import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { systemClock } from "../../core/clock.ts";
import type { JsonObject } from "../../core/json.ts";
import { QmpClient, type QmpEvent } from "./qmp-client.ts";

const greeting = {
  QMP: { version: { qemu: { major: 7, minor: 2, micro: 22 }, package: "" }, capabilities: [] },
};

type Answer = (request: JsonObject, send: (message: unknown) => void, socket: Socket) => void;

let directory: string;
let server: Server | undefined;
const sockets = new Set<Socket>();

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "qmp-"));
});
afterEach(() => {
  for (const socket of sockets) socket.destroy();
  sockets.clear();
  server?.close();
  server = undefined;
  rmSync(directory, { recursive: true });
});

/** A QMP server that greets, accepts the capabilities, and answers the rest as told. */
async function serve(answer: Answer, greet: unknown = greeting): Promise<string> {
  const path = join(directory, "qmp.sock");
  server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    const send = (message: unknown) =>
      socket.write(typeof message === "string" ? message : `${JSON.stringify(message)}\r\n`);
    if (greet !== undefined) send(greet);
    let text = "";
    socket.on("data", (chunk) => {
      const lines = (text + chunk).split("\n");
      text = lines.pop() ?? "";
      for (const line of lines) {
        const request = JSON.parse(line) as JsonObject;
        if (request.execute === "qmp_capabilities") send({ return: {}, id: request.id });
        else answer(request, send, socket);
      }
    });
  });
  await new Promise<void>((resolve) => server?.listen(path, resolve));
  return path;
}

function open(
  path: string,
  onEvent?: (event: QmpEvent) => void,
  connectTimeoutMs = 5_000,
): Promise<QmpClient> {
  return QmpClient.connect(path, {
    clock: systemClock,
    connectTimeoutMs,
    ...(onEvent === undefined ? {} : { onEvent }),
  });
}

describe("QMP", () => {
  it("negotiates and tells the version", async () => {
    const client = await open(await serve(() => {}));
    expect(client.version).toBe("7.2.22");
    client.close();
    await client.closed;
  });

  it("matches answers to commands by id, whatever their order", async () => {
    const held: JsonObject[] = [];
    const path = await serve((request, send) => {
      held.push(request);
      if (held.length < 3) return;
      for (const each of held.reverse()) send({ return: { echo: each.arguments }, id: each.id });
    });
    const client = await open(path);
    const answers = await Promise.all([1, 2, 3].map((n) => client.execute("echo", { n })));
    expect(answers).toEqual([1, 2, 3].map((n) => ({ echo: { n } })));
    client.close();
  });

  it("passes on events, also those that come before the first answer", async () => {
    const events: QmpEvent[] = [];
    const path = await serve((request, send) => {
      send({ event: "RESET", data: { guest: true }, timestamp: {} });
      send({ return: {}, id: request.id });
      send({ event: "STOP" });
      send({ return: {}, id: 999 });
    });
    const client = await open(path, (event) => events.push(event));
    await client.execute("cont");
    await client.execute("cont");
    expect(events.slice(0, 2)).toEqual([
      { event: "RESET", data: { guest: true } },
      { event: "STOP", data: {} },
    ]);
    client.close();
  });

  it("tells an unknown command from a failed one and keeps QEMU's words for the log", async () => {
    const path = await serve((request, send) =>
      send({
        id: request.id,
        error: { class: request.execute === "nope" ? "CommandNotFound" : "GenericError", desc: "its words" },
      }),
    );
    const client = await open(path);
    await expect(client.execute("nope")).rejects.toMatchObject({ code: "Unsupported" });
    await expect(client.execute("cont")).rejects.toMatchObject({ code: "Internal", detail: "its words" });
    client.close();
  });

  it("survives lines cut anywhere", async () => {
    const path = await serve((request, _send, socket) => {
      const bytes = Buffer.from(`${JSON.stringify({ return: "ü".repeat(100), id: request.id })}\n`);
      for (let at = 0; at < bytes.length; at += 7) socket.write(bytes.subarray(at, at + 7));
    });
    const client = await open(path);
    expect(await client.execute("x")).toBe("ü".repeat(100));
    client.close();
  });

  it("fails what is outstanding when QEMU goes away, and everything after", async () => {
    const client = await open(await serve((_request, _send, socket) => socket.destroy()));
    await expect(client.execute("quit")).rejects.toMatchObject({ code: "Unavailable" });
    await client.closed;
    await expect(client.execute("quit")).rejects.toMatchObject({ code: "Unavailable" });
  });

  it("gives up on a command after its time and ignores the late answer", async () => {
    let late: (() => void) | undefined;
    const path = await serve((request, send) => {
      if (request.execute === "slow") late = () => send({ return: "late", id: request.id });
      else {
        late?.();
        send({ return: "on time", id: request.id });
      }
    });
    const client = await open(path);
    await expect(client.execute("slow", {}, { timeoutMs: 20 })).rejects.toMatchObject({ code: "Timeout" });
    expect(await client.execute("fast")).toBe("on time");
    client.close();
  });

  it.each([
    ["no JSON", "hello\n"],
    ["no object", "[1]\n"],
    ["an endless line", "x".repeat(5 * 1024 * 1024)],
  ])("ends the connection on %s", async (_name, text) => {
    const client = await open(await serve((_request, send) => send(text)));
    await expect(client.execute("x")).rejects.toMatchObject({ code: "Unavailable" });
    await client.closed;
  });

  it("bounds the commands that wait for an answer", async () => {
    const client = await open(await serve(() => {}));
    const waiting = Array.from({ length: 64 }, () => client.execute("x").catch((error) => error.code));
    await expect(client.execute("one too many")).rejects.toMatchObject({ code: "Unavailable" });
    client.close();
    expect(new Set(await Promise.all(waiting))).toEqual(new Set(["Unavailable"]));
  });

  it("says so when nobody listens, nobody greets, or the caller gives up", async () => {
    await expect(open(join(directory, "absent.sock"))).rejects.toMatchObject({ code: "Unavailable" });
    const path = await serve(() => {}, null);
    await expect(open(path, undefined, 30)).rejects.toMatchObject({ code: "Unavailable" });
  });

  it("gives up when no greeting comes, and at once when aborted", async () => {
    const path = await serve(() => {}, "");
    await expect(open(path, undefined, 30)).rejects.toMatchObject({ code: "Timeout" });
    const abort = new AbortController();
    const options = { clock: systemClock, connectTimeoutMs: 5_000 };
    const opening = QmpClient.connect(path, options, abort.signal);
    abort.abort(new Error("enough"));
    await expect(opening).rejects.toThrow("enough");
  });
});
