/** The few programs that exist in every fake guest, and its console, which echoes. */
import { Duplex, PassThrough } from "node:stream";
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Console, ExecRequest, ExecSession } from "../driver.ts";
import type { FakeGuest, FakeWorld } from "./fake-world.ts";

const killedStatus = 128 + 9;

/** Runs `echo`, `cat`, `env`, `hostname`, `stty size`, `sleep` (until killed), `true`, `false`, or a shell that echoes. */
export function runFakeCommand(guest: FakeGuest, request: ExecRequest, signal: AbortSignal): ExecSession {
  const stdin = new PassThrough();
  const stdout = new PassThrough();
  const stderr = new PassThrough();
  let size = request.tty ?? { columns: 80, rows: 24 };
  const { promise: exit, resolve } = Promise.withResolvers<number>();
  const finish = (status: number) => {
    resolve(status);
    stdin.destroy();
    stdout.end();
    stderr.end();
  };
  const print = (text: string) => {
    stdout.write(request.tty ? text.replaceAll("\n", "\r\n") : text);
    finish(0);
  };
  signal.addEventListener("abort", () => finish(killedStatus), { once: true });
  const [program = "", ...args] = request.command;
  switch (program.split("/").at(-1)) {
    case "true":
      finish(0);
      break;
    case "false":
      finish(1);
      break;
    case "echo":
      print(`${args.join(" ")}\n`);
      break;
    case "env":
      print(
        Object.entries({ PATH: "/bin", ...request.env })
          .map(([key, value]) => `${key}=${value}\n`)
          .join(""),
      );
      break;
    case "hostname":
      print(`${guest.spec.hostname}\n`);
      break;
    case "stty":
      print(`${size.rows} ${size.columns}\n`);
      break;
    case "sleep":
      break;
    case "cat":
    case "sh":
    case "bash":
      stdin.on("data", (chunk: Buffer) => {
        if (!request.tty) return stdout.write(chunk);
        const typed = chunk.toString().replaceAll("\r", "\r\n");
        if (typed.includes("\u0004")) return finish(0);
        return stdout.write(typed + typed); // the terminal's echo, and the command's
      });
      stdin.on("end", () => finish(0));
      break;
    default:
      stderr.write(`${program}: not found\n`);
      finish(127);
  }
  return {
    stdin,
    stdout,
    stderr,
    exit,
    resize: (columns, rows) => {
      size = { columns, rows };
    },
  };
}

export function fakeConsole(world: FakeWorld, uidOf: (handle: JsonObject) => Uid): Console<JsonObject> {
  return {
    async attach(handle, signal) {
      signal.throwIfAborted();
      const uid = uidOf(handle);
      const guest = world.guests.get(uid);
      if (guest?.state !== "running") {
        throw new StrataError("Unavailable", "the guest is not running, so its console cannot be attached");
      }
      if (guest.consoleTaken) throw new StrataError("Conflict", "somebody else is attached to this console");
      guest.consoleTaken = true;
      return attachTo(world, uid, guest, signal);
    },
    async *log(handle, { tailBytes, follow }, signal) {
      const uid = uidOf(handle);
      const guest = world.guests.get(uid);
      if (guest === undefined) throw new StrataError("NotFound", `the fake guest ${uid} was not created`);
      const chunks: string[] = [tailBytes === 0 ? "" : guest.console.slice(-tailBytes)];
      let wake = () => {};
      const end = world.onConsole(uid, (text) => {
        chunks.push(text);
        wake();
      });
      signal.addEventListener("abort", () => wake(), { once: true });
      try {
        for (;;) {
          for (let text = chunks.shift(); text !== undefined; text = chunks.shift()) {
            if (text !== "") yield Buffer.from(text);
          }
          if (!follow || signal.aborted) return;
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
        }
      } finally {
        end();
      }
    },
  };
}

function attachTo(world: FakeWorld, uid: Uid, guest: FakeGuest, signal: AbortSignal): Duplex {
  const stream = new Duplex({
    read() {},
    write(chunk: Uint8Array, _encoding, done) {
      world.print(uid, Buffer.from(chunk).toString().replaceAll("\r", "\r\n"));
      done();
    },
    destroy(error, done) {
      end();
      guest.consoleTaken = false;
      done(error);
    },
  });
  const end = world.onConsole(uid, (text) => stream.push(text));
  signal.addEventListener("abort", () => stream.destroy(), { once: true });
  return stream;
}
