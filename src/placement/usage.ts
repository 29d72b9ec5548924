import type { Instance } from "../kinds/instance.ts";
import type { Use } from "./placement.ts";

const nothing: Use = { cpus: 0, memoryMib: 0, instances: 0 };

/**
 * What is promised on each host, kept by adding and taking away single instances. An instance counts from its
 * placement until it is gone, whether it runs or not: what was promised can always be started.
 */
export class Usage {
  readonly #byHost = new Map<string, Use>();

  of(host: string): Use {
    return this.#byHost.get(host) ?? nothing;
  }

  /** One instance was `previous` and is `next`; undefined: absent. */
  change(next: Instance | undefined, previous: Instance | undefined): void {
    if (previous) this.#add(previous, -1);
    if (next) this.#add(next, 1);
  }

  #add({ spec, status }: Instance, sign: 1 | -1): void {
    if (status.host === undefined) return;
    const use = this.of(status.host);
    const next = {
      cpus: use.cpus + sign * spec.cpus,
      memoryMib: use.memoryMib + sign * spec.memoryMib,
      instances: use.instances + sign,
    };
    if (next.instances === 0) this.#byHost.delete(status.host);
    else this.#byHost.set(status.host, next);
  }
}
