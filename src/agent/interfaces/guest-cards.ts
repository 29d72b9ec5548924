/**
 * What this process knows of the further cards of guests, by uid of the instance. Lost with the process: what is then
 * not known is found out by doing it again.
 */
export class GuestCards {
  /** Cards that a guest surely has. */
  readonly #cards = new Map<string, Set<string>>();
  readonly #starting = new Set<string>();
  readonly #devices = new Map<string, Map<string, number>>();

  /** A start begins, with these cards. Until it ends, nobody may rely on what the guest has. */
  beginStart(instance: string, cards: readonly string[]): void {
    this.#starting.add(instance);
    this.#cards.set(instance, new Set(cards));
  }

  /** It has succeeded, or nothing of it goes on. */
  endStart(instance: string): void {
    this.#starting.delete(instance);
  }

  isStarting(instance: string): boolean {
    return this.#starting.has(instance);
  }

  has(instance: string, card: string): boolean {
    return this.#cards.get(instance)?.has(card) ?? false;
  }

  plugged(instance: string, card: string): void {
    const cards = this.#cards.get(instance);
    if (cards) cards.add(card);
    else this.#cards.set(instance, new Set([card]));
  }

  unplugged(instance: string, card: string): void {
    this.#cards.get(instance)?.delete(card);
    this.#devices.get(instance)?.delete(card);
  }

  /** The lowest device number that is neither among `taken` nor given out here to another card. */
  claimDevice(instance: string, card: string, taken: ReadonlySet<number>): number {
    const claims = this.#devices.get(instance) ?? new Map<string, number>();
    this.#devices.set(instance, claims);
    const others = new Set([...claims].filter(([uid]) => uid !== card).map(([, device]) => device));
    let device = 1;
    while (taken.has(device) || others.has(device)) device++;
    claims.set(card, device);
    return device;
  }

  /** The instance is gone. */
  forget(instance: string): void {
    this.#cards.delete(instance);
    this.#starting.delete(instance);
    this.#devices.delete(instance);
  }
}
