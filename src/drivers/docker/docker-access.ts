import type { Clock } from "../../core/clock.ts";
import type { Uid } from "../../core/ids.ts";
import type { JsonObject } from "../../core/json.ts";
import type { ContainerInfo, Engine } from "./engine.ts";

/** How the sessions (exec, console) reach a guest of the driver. */
export interface DockerAccess {
  engine: Engine;
  clock: Clock;
  uidOf(handle: JsonObject): Uid;
  /** The guest's container, if it is ours. */
  container(uid: Uid, signal?: AbortSignal): Promise<ContainerInfo | undefined>;
  /** @throws Unavailable when the guest does not run. */
  runningContainer(handle: JsonObject, signal: AbortSignal): Promise<ContainerInfo>;
  /** Hints that a guest changed, the latest first; see GuestDriver.events. */
  events(signal: AbortSignal): AsyncIterable<{ uid: Uid }>;
}
