/** How many requests were answered, by the class of their status. */
export class RequestCounts {
  readonly #counts = new Map(["1xx", "2xx", "3xx", "4xx", "5xx"].map((name) => [name, 0]));

  count(status: number): void {
    const name = `${Math.floor(status / 100)}xx`;
    this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
  }

  entries(): Iterable<[string, number]> {
    return this.#counts.entries();
  }
}
