import type { Clock, Instant } from "../../core/clock.ts";
import type { Host } from "../../kinds/host.ts";
import type { Cache } from "../../reconcile/cache.ts";

/**
 * Since when hosts give no sign of life, as far as this process saw: after its restart it waits anew, for hosts may have
 * been silent only because nobody listened.
 */
export class LostHosts {
  readonly #since = new Map<string, Instant>();

  /** `onChange`: this host was lost, or is back. */
  constructor(hosts: Cache<Host>, clock: Clock, onChange: (host: string) => void) {
    hosts.onChange((_key, next, previous) => {
      const { name } = (next ?? previous)?.metadata ?? {};
      if (name === undefined) return;
      const lost = next === undefined || next.status.state === "not-ready";
      if (lost === this.#since.has(name)) return;
      if (lost) this.#since.set(name, clock.now());
      else this.#since.delete(name);
      onChange(name);
    });
  }

  /** Undefined: it is well, or nothing is known of it. */
  since(host: string | undefined): Instant | undefined {
    return host === undefined ? undefined : this.#since.get(host);
  }
}
