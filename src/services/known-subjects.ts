import { refOfKey } from "../kinds/keys.ts";
import type { Kind } from "../kinds/kind.ts";
import type { World } from "./hooks.ts";

/** Agents report the same subjects every few seconds: the store is asked about each only once in a while. */
const maxKnown = 50_000;

/** Which resources there are, as of the last few minutes. */
export class KnownSubjects {
  readonly #world: World;
  readonly #uids = new Map<string, string>();

  constructor(world: World) {
    this.#world = world;
  }

  /** Is there a resource of that key and uid? One that has just gone may still count. */
  async has(kind: Kind, subject: string, uid: string): Promise<boolean> {
    if (this.#uids.get(subject) === uid) return true;
    const resource = await this.#world.find(kind, refOfKey(kind, subject));
    if (resource?.metadata.uid !== uid) return false;
    if (this.#uids.size >= maxKnown) this.clear();
    this.#uids.set(subject, uid);
    return true;
  }

  /** Every few minutes. */
  clear(): void {
    this.#uids.clear();
  }
}
