/**
 * What the container prints, from the Engine's log, and its terminal. A container that runs its image's own init has a
 * terminal; an application has none, so attaching shows what it prints from now on and takes no input.
 */
import { Duplex, type Readable } from "node:stream";
import { fromTimestamp } from "../../core/clock.ts";
import { StrataError } from "../../core/errors.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { Console } from "../driver.ts";
import { outputOf } from "./demultiplex.ts";
import type { DockerAccess } from "./docker-access.ts";
import type { ContainerInfo } from "./engine.ts";
import { runIdOf } from "./run-state.ts";

export function dockerConsole(access: DockerAccess): Console<JsonObject> {
  const taken = new Set<Uid>();
  return {
    async attach(handle, signal) {
      signal.throwIfAborted();
      const uid = access.uidOf(handle);
      const container = await access.runningContainer(handle, signal);
      if (taken.has(uid)) throw new StrataError("Conflict", "somebody else is attached to this console");
      taken.add(uid);
      try {
        const stream = await attach(access, container, signal);
        stream.once("close", () => taken.delete(uid));
        return stream;
      } catch (error) {
        taken.delete(uid);
        throw error;
      }
    },
    log: (handle, options, signal) => readLog(access, access.uidOf(handle), options, signal),
  };
}

async function attach(access: DockerAccess, container: ContainerInfo, signal: AbortSignal): Promise<Duplex> {
  const tty = container.Config.Tty;
  const connection = (await access.engine.ask("attach to a console", (docker) =>
    docker.getContainer(container.Id).attach({
      stream: true,
      stdin: tty,
      stdout: true,
      stderr: true,
      hijack: true,
    }),
  )) as Duplex;
  connection.on("error", () => {});
  const output = outputOf(connection, tty)[Symbol.asyncIterator]();
  const stream = new Duplex({
    read() {
      output.next().then(
        ({ done, value }) => stream.push(done ? null : value),
        () => stream.push(null),
      );
    },
    write(chunk: Uint8Array, _encoding, done) {
      if (!tty) {
        done(
          new StrataError(
            "Unsupported",
            "an application has no terminal to type on; run a command with exec",
          ),
        );
      } else if (connection.write(chunk)) done();
      else connection.once("drain", () => done());
    },
    final(done) {
      if (tty) connection.end();
      done();
    },
    destroy(error, done) {
      connection.destroy();
      done(error);
    },
  });
  const abort = () => stream.destroy();
  signal.addEventListener("abort", abort, { once: true });
  stream.once("close", () => signal.removeEventListener("abort", abort));
  if (signal.aborted) abort();
  return stream;
}

interface LogOptions {
  tailBytes: number;
  follow: boolean;
}

async function* readLog(
  access: DockerAccess,
  uid: Uid,
  { tailBytes, follow }: LogOptions,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  let container = await access.container(uid);
  if (container === undefined) throw new StrataError("NotFound", "the container does not exist");
  const tail = new Tail(tailBytes);
  for await (const bytes of openLog(access, container, {}, signal)) tail.push(bytes);
  if (!follow) {
    yield* tail.chunks;
    return;
  }
  // The Engine counts in lines and tells no positions: what follows is found by counting what was there.
  let skip = tail.skipped;
  let query: Record<string, unknown> = {};
  while (!signal.aborted && container !== undefined) {
    for await (const bytes of openLog(access, container, { ...query, follow: true }, signal)) {
      const rest = bytes.subarray(Math.min(skip, bytes.length));
      skip -= bytes.length - rest.length;
      if (rest.length > 0) yield rest;
    }
    container = await untilNextRun(access, uid, runIdOf(container.State), signal);
    // The gate opens after the run was given its time, so everything it prints is newer.
    query = container === undefined ? {} : { since: secondsOf(container.State.StartedAt) };
    skip = 0;
  }
}

async function* openLog(
  { engine }: DockerAccess,
  container: ContainerInfo,
  query: Record<string, unknown>,
  signal: AbortSignal,
): AsyncGenerator<Uint8Array> {
  const path = `/containers/${container.Id}/logs`;
  let stream: Readable | undefined;
  try {
    stream = await engine.stream("read a log", path, { stdout: true, stderr: true, ...query }, signal);
    if (stream !== undefined) yield* outputOf(stream, container.Config.Tty);
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    stream?.destroy();
  }
}

/** The container once it runs again; undefined when it is gone or nobody wants to know any more. */
async function untilNextRun(
  access: DockerAccess,
  uid: Uid,
  lastRun: string | undefined,
  signal: AbortSignal,
): Promise<ContainerInfo | undefined> {
  const listening = new AbortController();
  const either = AbortSignal.any([signal, listening.signal]);
  try {
    // It begins with a hint for every guest.
    for await (const hint of access.events(either)) {
      if (hint.uid !== uid) continue;
      const found = await access.container(uid);
      const runId = found === undefined ? undefined : runIdOf(found.State);
      if (found === undefined || (runId !== undefined && runId !== lastRun)) return found;
    }
    return undefined;
  } finally {
    listening.abort();
  }
}

/** In the Engine's form, with the nanoseconds. */
function secondsOf(time: string): string {
  const [, whole = "", fraction = ""] = /^(.*?)(?:\.(\d+))?Z$/.exec(time) ?? [];
  const seconds = Math.floor((fromTimestamp(`${whole}Z`) ?? 0) / 1000);
  return fraction === "" ? String(seconds) : `${seconds}.${fraction.padEnd(9, "0")}`;
}

/** The last bytes of what is pushed, and how many went before them. */
class Tail {
  readonly chunks: Uint8Array[] = [];
  skipped = 0;
  readonly #limit: number;
  #length = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  push(bytes: Uint8Array): void {
    this.chunks.push(bytes);
    this.#length += bytes.length;
    while (this.#length > this.#limit) {
      const [first] = this.chunks;
      if (first === undefined) return;
      const excess = Math.min(first.length, this.#length - this.#limit);
      if (excess === first.length) this.chunks.shift();
      else this.chunks[0] = first.subarray(excess);
      this.#length -= excess;
      this.skipped += excess;
    }
  }
}
