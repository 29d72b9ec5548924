import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { text } from "node:stream/consumers";
import { afterEach, beforeEach, expect, it } from "vitest";
import { PortSession } from "./exec-session.ts";

let directory: string;
let server: Server;
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), "exec-"));
});
afterEach(() => {
  server.close();
  rmSync(directory, { recursive: true });
});

type Name = "in" | "out" | "err";

/** A session, and the guest's ends of its sockets. */
async function open(
  onResize: (terminal: string, columns: number, rows: number) => Promise<void> = async () => {},
): Promise<{ session: PortSession; guest: Record<Name, Socket> }> {
  const path = join(directory, "ports.sock");
  const accepted: Socket[] = [];
  server = createServer({ allowHalfOpen: true }, (socket) => accepted.push(socket));
  await new Promise<void>((resolve) => server.listen(path, resolve));
  const sockets = {} as Record<Name, Socket>;
  for (const [index, name] of (["in", "out", "err"] as const).entries()) {
    const socket = connect({ path });
    sockets[name] = socket;
    await new Promise((resolve) => socket.once("connect", resolve));
    while (accepted.length <= index) await new Promise((resolve) => setImmediate(resolve));
  }
  const [input, out, err] = accepted;
  if (!input || !out || !err) throw new Error("not connected");
  return { session: new PortSession(sockets, "TOKEN", onResize), guest: { in: input, out, err } };
}

it("tells the beginning, the output, the errors and the end", async () => {
  const { session, guest } = await open();
  const output = text(session.stdout);
  const errors = text(session.stderr);
  guest.out.write("TOKEN begin 123\nhello\n");
  expect(await session.began).toBe(123);
  guest.err.write("oops\nTOKEN end\n");
  guest.out.write("more\nTOKEN end 7\n");
  expect(await session.exit).toBe(7);
  expect(await output).toBe("hello\nmore\n");
  expect(await errors).toBe("oops\n");
});

it("passes input on, and its end, while output still comes", async () => {
  const { session, guest } = await open();
  const input = text(guest.in);
  guest.out.write("TOKEN begin 1\n");
  session.stdin.end("typed\n");
  expect(await input).toBe("typed\n");
  guest.out.write("answer\n");
  guest.err.write("TOKEN end\n");
  guest.out.write("TOKEN end 0\n");
  expect(await text(session.stdout)).toBe("answer\n");
  expect(await session.exit).toBe(0);
});

it("holds the guest back while nobody reads", async () => {
  const { session, guest } = await open();
  guest.out.write("TOKEN begin 1\n");
  const total = 8 * 1024 * 1024;
  guest.out.write(Buffer.alloc(total, "x"));
  guest.out.write("TOKEN end 0\n");
  guest.err.write("TOKEN end\n");
  await session.began;
  for (let turn = 0; turn < 100; turn++) await new Promise((resolve) => setImmediate(resolve));
  expect(session.stdout.readableLength).toBeLessThan(1024 * 1024);
  expect((await text(session.stdout)).length).toBe(total);
  expect(await session.exit).toBe(0);
});

it("is Unavailable when the guest ends first", async () => {
  const { session, guest } = await open();
  guest.out.write("TOKEN begin 1\n");
  await session.began;
  for (const socket of Object.values(guest)) socket.destroy();
  await expect(session.exit).rejects.toMatchObject({ code: "Unavailable" });
  expect(await text(session.stdout)).toBe("");
});

it("tells a terminal its last size, one at a time, and keeps the first status", async () => {
  const sizes: string[] = [];
  const held: (() => void)[] = [];
  const { session, guest } = await open((terminal, columns, rows) => {
    sizes.push(`${terminal} ${columns}x${rows}`);
    return new Promise((resolve) => held.push(resolve));
  });
  guest.out.write("TOKEN begin 9 /dev/pts/3\r\n");
  expect(await session.began).toBe(9);
  for (const columns of [80, 90, 100]) session.resize(columns, 40);
  held[0]?.();
  while (sizes.length < 2) await new Promise((resolve) => setImmediate(resolve));
  expect(sizes).toEqual(["/dev/pts/3 80x40", "/dev/pts/3 100x40"]);
  guest.out.write("TOKEN end 4\r\nTOKEN end 0\n");
  guest.err.write("TOKEN end\n");
  expect(await session.exit).toBe(4);
});

it("is Unavailable at once when the guest cannot begin the command", async () => {
  const { session, guest } = await open();
  guest.err.write("script: not found\nTOKEN end\n");
  guest.out.write("TOKEN end 127\n");
  await expect(session.began).rejects.toMatchObject({ code: "Unavailable" });
});
