import type { Readable } from "node:stream";
import type { Clock } from "../../core/clock.ts";
import { StrataError, toStrataError } from "../../core/errors.ts";
import type { JsonObject } from "../../core/json.ts";
import type { GuestDriver } from "../../drivers/driver.ts";
import type { Outcome } from "./network-checks.ts";

/** Of what the command printed, for the message. */
const shownCharacters = 200;
/** For the output after the exit. */
const lastWordsMs = 200;

export interface CommandCheck {
  driver: GuestDriver;
  handle: JsonObject;
  command: readonly string[];
}

/** Does the command exit with 0 inside? It is killed when the time is over. Rejects only when aborted. */
export async function checkByCommand(
  clock: Clock,
  { driver, handle, command }: CommandCheck,
  timeoutMs: number,
  signal: AbortSignal,
): Promise<Outcome> {
  if (!driver.exec) {
    const saw = `it runs a command, which the driver ${driver.name} cannot do in its guests; use a check of type tcp or http`;
    return { healthy: false, saw, unsupported: true };
  }
  const ended = new AbortController();
  const cancelTimer = clock.after(timeoutMs, () => ended.abort(tooLate));
  const both = AbortSignal.any([signal, ended.signal]);
  try {
    const session = await driver.exec.run(handle, { command, env: {} }, both);
    session.stdin.on("error", () => {});
    session.stdin.end();
    const printed = [tailOf(session.stderr), tailOf(session.stdout)];
    const status = await untilAborted(session.exit, both);
    if (status === 0) return { healthy: true };
    // What it printed may come after its status, or never end: a program that it left behind may hold on to it.
    await Promise.race([Promise.all(printed.map(({ ended }) => ended)), clock.sleep(lastWordsMs, both)]);
    const text = printed.map(({ text }) => text()).find((one) => one !== "");
    const exited = `${command[0]} exited with ${status}`;
    return { healthy: false, saw: text === undefined ? exited : `${exited}: ${text}` };
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    if (ended.signal.aborted)
      return { healthy: false, saw: `${command[0]} did not end within ${timeoutMs} ms` };
    return { healthy: false, saw: toStrataError(error, `running ${command[0]}`).message };
  } finally {
    cancelTimer();
    // Whatever still runs is killed.
    ended.abort(tooLate);
  }
}

const tooLate = new StrataError("Timeout", "the time of the check is over");

/** Reads all, so that nothing stops for want of a reader, and keeps the end. */
function tailOf(stream: Readable): { text(): string; ended: Promise<void> } {
  let text = "";
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  stream.on("error", () => resolve());
  stream.on("end", () => resolve());
  stream.on("data", (chunk: Buffer) => {
    text = `${text}${chunk.toString()}`.slice(-shownCharacters);
  });
  return { text: () => text.replace(/\s+/g, " ").trim(), ended };
}

function untilAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = () => reject(signal.reason);
    if (signal.aborted) return onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", onAbort));
  });
}
