/** Joins a Channel (exec, console, log) with this terminal. */
import type { Channel } from "../client/client.ts";
import { StrataError } from "../core/errors.ts";
import type { Session } from "./command.ts";

const stdinChannel = 0;
const stderrChannel = 2;
/** Ctrl-] */
const escapeByte = 0x1d;

export interface JoinOptions {
  /** Keys go to the other end as they are typed; Ctrl-C too. */
  raw: boolean;
  /** Standard input is sent. */
  input: boolean;
  /** Ctrl-] ends the session. */
  escape?: boolean;
  /** Told of each new size of the terminal. */
  resizes?: boolean;
}

type RawInput = NodeJS.ReadStream & { setRawMode?(raw: boolean): void };

/**
 * Resolves with the exit status that the other end tells, or 0 when it just ends.
 * @throws what the other end says went wrong; the reason of the session's signal.
 */
export async function joinTerminal(
  session: Session,
  channel: Channel,
  options: JoinOptions,
): Promise<number> {
  const { stdout, stderr } = session.streams;
  const stdin = session.streams.stdin as RawInput;
  const raw = options.raw && stdin.isTTY === true;
  let status = 0;
  const over = Promise.withResolvers<void>();
  const onAbort = () => channel.close();
  const onResize = () => channel.sendControl({ type: "resize", ...terminalSize(session) });
  channel.onData = (number, data) => (number === stderrChannel ? stderr : stdout).write(data);
  channel.onControl = (message) => {
    if (message.type === "exit" && typeof message.status === "number") status = message.status;
  };
  channel.onClose = (error) => (error ? over.reject(error) : over.resolve());
  session.signal.addEventListener("abort", onAbort, { once: true });
  if (raw) stdin.setRawMode?.(true);
  if (options.resizes) stdout.on("resize", onResize);
  const endInput = options.input ? sendInput(stdin, channel, options.escape === true) : () => {};
  try {
    await over.promise;
    session.signal.throwIfAborted();
    return status;
  } finally {
    session.signal.removeEventListener("abort", onAbort);
    stdout.off("resize", onResize);
    endInput();
    if (raw) stdin.setRawMode?.(false);
  }
}

/** One chunk at a time, so that a slow other end slows the reading down. Returns what ends it. */
function sendInput(stdin: RawInput, channel: Channel, escapable: boolean): () => void {
  const onData = (chunk: Buffer | string) => {
    const data = typeof chunk === "string" ? Buffer.from(chunk) : chunk;
    const end = escapable ? data.indexOf(escapeByte) : -1;
    stdin.pause();
    channel.send(stdinChannel, end < 0 ? data : data.subarray(0, end)).then(
      () => (end < 0 ? stdin.resume() : channel.close()),
      () => {}, // the channel's end says why
    );
  };
  const onEnd = () => channel.sendControl({ type: "stdin-end" });
  stdin.on("data", onData);
  stdin.on("end", onEnd);
  return () => {
    stdin.off("data", onData);
    stdin.off("end", onEnd);
    // An input that stays open would keep the process alive.
    stdin.pause();
    stdin.unref?.();
  };
}

/** Some terminals say 0 for what they do not know. */
export function terminalSize(session: Session): { columns: number; rows: number } {
  const { columns, rows } = session.streams.stdout as { columns?: number; rows?: number };
  return { columns: columns || 80, rows: rows || 24 };
}

/** @throws Invalid where nobody sits at a terminal. */
export function requireTerminal(session: Session, command: string): void {
  if (session.streams.stdin.isTTY && session.streams.stdout.isTTY) return;
  throw new StrataError(
    "Invalid",
    `\`strata ${command}\` needs a terminal; \`strata exec\` works without one`,
  );
}
