/**
 * Which network has a published port or an address. There is one of each name on a host: a network gets it only once no
 * other has it in force any more, so that what moves is never in two places, whatever order the host is told in.
 */
export class PublicationClaims {
  /** By name, the key of the network that has it, or is about to. */
  readonly #holders = new Map<string, string>();
  /** By name, who wants it next. */
  readonly #waiting = new Map<string, Set<string>>();

  /** Takes those of the names that nobody else has, and waits for the others. Returns those that it has then. */
  claim(key: string, names: Iterable<string>): ReadonlySet<string> {
    const granted = new Set<string>();
    for (const name of names) {
      const holder = this.#holders.get(name) ?? key;
      if (holder === key) {
        this.#holders.set(name, key);
        granted.add(name);
      } else this.#wait(name, key);
    }
    return granted;
  }

  /** The network has no others than these any more. Returns the keys of those that waited for what it had. */
  keep(key: string, names: ReadonlySet<string>): ReadonlySet<string> {
    const next = new Set<string>();
    for (const [name, holder] of this.#holders) {
      if (holder !== key || names.has(name)) continue;
      this.#holders.delete(name);
      for (const waiting of this.#waiting.get(name) ?? []) next.add(waiting);
      this.#waiting.delete(name);
    }
    next.delete(key);
    return next;
  }

  #wait(name: string, key: string): void {
    const waiting = this.#waiting.get(name) ?? new Set();
    this.#waiting.set(name, waiting.add(key));
  }
}
