/** Following resources until something is true of them: a listing, then what changes, resumed after any interruption. */
import type { Client, ListOptions } from "../client/client.ts";
import type { Clock } from "../core/clock.ts";
import { hasCode, isRetryable, StrataError } from "../core/errors.ts";
import type { Kind, Resource } from "../kinds/kind.ts";

const firstRetryMs = 100;
const longestRetryMs = 3_000;

export interface Patience {
  clock: Clock;
  signal: AbortSignal;
  /** On the monotonic clock. */
  deadlineMs: number;
}

export function patience(session: { clock: Clock; signal: AbortSignal; timeoutMs: number }): Patience {
  return {
    clock: session.clock,
    signal: session.signal,
    deadlineMs: session.clock.monotonicMs() + session.timeoutMs,
  };
}

/** Repeats what failed for a reason that passes (the daemon restarts, someone else wrote first), with growing pauses. */
export async function retrying<T>(action: () => Promise<T>, patience: Patience): Promise<T> {
  for (let pause = firstRetryMs; ; pause = Math.min(pause * 2, longestRetryMs)) {
    try {
      return await action();
    } catch (error) {
      patience.signal.throwIfAborted();
      const passing = error instanceof StrataError && isPassing(error);
      if (!passing || patience.clock.monotonicMs() + pause > patience.deadlineMs) throw error;
      await patience.clock.sleep(pause, patience.signal);
    }
  }
}

/** A conflict about a field of what was written, such as a port that somebody has, does not pass by itself. */
function isPassing({ code, fields }: StrataError): boolean {
  return isRetryable(code) && code !== "Internal" && !(code === "Conflict" && fields.length > 0);
}

/**
 * Calls `look` with all resources of the listing (by `PROJECT/NAME`), first as they are and then after each change, until
 * it says that it has seen enough.
 * @throws Timeout with what `waitingFor` says; what `look` throws.
 */
export async function follow<S, T>(
  client: Client,
  kind: Kind<S, T>,
  options: ListOptions,
  limits: Patience,
  look: (resources: ReadonlyMap<string, Resource<S, T>>) => boolean,
  waitingFor: () => string,
): Promise<void> {
  const leftMs = Math.max(0, limits.deadlineMs - limits.clock.monotonicMs());
  const expired = new AbortController();
  const cancel = limits.clock.after(leftMs, () =>
    expired.abort(
      new StrataError(
        "Timeout",
        `${waitingFor()} took longer than ${Math.round(leftMs / 1000)} s; it goes on in the background`,
      ),
    ),
  );
  const signal = AbortSignal.any([limits.signal, expired.signal]);
  // The timer of `after` does not keep the process alive; an open watch does.
  try {
    for (;;) if (await followOnce(client, kind, options, { ...limits, signal }, look)) return;
  } catch (error) {
    throw signal.aborted ? signal.reason : error;
  } finally {
    cancel();
    expired.abort();
  }
}

/** One listing and its watch; false when the watch has to start anew. */
async function followOnce<S, T>(
  client: Client,
  kind: Kind<S, T>,
  options: ListOptions,
  limits: Patience,
  look: (resources: ReadonlyMap<string, Resource<S, T>>) => boolean,
): Promise<boolean> {
  const page = await retrying(() => client.list(kind, options, { signal: limits.signal }), limits);
  const seen = new Map(page.items.map((item) => [keyOf(item.metadata), item]));
  if (look(seen)) return true;
  const ended = new AbortController();
  try {
    const signal = AbortSignal.any([limits.signal, ended.signal]);
    for await (const event of client.watch(kind, { ...options, after: page.revision }, signal)) {
      if (event.type === "bookmark") continue;
      if (event.type === "put") seen.set(keyOf(event.resource.metadata), event.resource);
      else seen.delete(keyOf(event.ref));
      if (look(seen)) return true;
    }
  } catch (error) {
    if (!hasCode(error, "Compacted", "Unavailable", "Timeout")) throw error;
  } finally {
    ended.abort();
  }
  limits.signal.throwIfAborted();
  await limits.clock.sleep(firstRetryMs, limits.signal);
  return false;
}

function keyOf(ref: { project?: string | undefined; name: string }): string {
  return `${ref.project ?? ""}/${ref.name}`;
}
