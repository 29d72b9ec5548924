/**
 * What happens to our containers, as the Engine tells it. A broken connection (the Engine restarts) is made anew; since
 * anything may have happened meanwhile, the listener is told so.
 */
import type { Clock } from "../../core/clock.ts";
import type { Uid } from "../../core/ids.ts";
import { type Engine, toFilters } from "./engine.ts";
import { messagesOf } from "./engine-messages.ts";
import { labels, ownerOf } from "./labels.ts";

/** Not those of `exec`, of which a health check makes some every few seconds. */
const actions = ["start", "die", "destroy", "oom", "pause", "unpause", "update", "rename", "health_status"];
/** The first wait for an Engine that is not there, doubled by each further one. */
const reconnectMs = 500;
const maxReconnectMs = 16_000;

export interface EventListener {
  /** The stream has just begun: whatever happened before was not told. */
  onBegin(): void;
  onChange(uid: Uid): void;
}

/** Returns when the signal aborts; never fails. */
export async function followEvents(
  engine: Engine,
  namespace: string,
  { listener, clock, signal }: { listener: EventListener; clock: Clock; signal: AbortSignal },
): Promise<void> {
  const filters = toFilters({
    type: ["container"],
    event: actions,
    label: [`${labels.namespace}=${namespace}`],
  });
  let waitMs = reconnectMs;
  while (!signal.aborted) {
    try {
      const stream = await engine.stream("tell what happens", "/events", { filters }, signal);
      waitMs = reconnectMs;
      listener.onBegin();
      if (stream !== undefined) {
        for await (const { Actor } of messagesOf(stream)) {
          const uid = ownerOf(Actor?.Attributes, namespace);
          if (uid !== undefined) listener.onChange(uid);
        }
      }
    } catch {
      // The Engine is not there, or went away.
    }
    if (!signal.aborted) await clock.sleep(waitMs, signal).catch(() => {});
    waitMs = Math.min(waitMs * 2, maxReconnectMs);
  }
}
