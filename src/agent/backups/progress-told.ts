/** Tells progress, one at a time and always the newest; what cannot be told is left out. */
export class ProgressTold {
  readonly #send: (bytes: number) => Promise<unknown>;
  #telling: Promise<unknown> | undefined;

  constructor(send: (bytes: number) => Promise<unknown>) {
    this.#send = send;
  }

  readonly tell = (bytes: number): void => {
    if (this.#telling) return;
    this.#telling = this.#send(bytes)
      .catch(() => {})
      .finally(() => {
        this.#telling = undefined;
      });
  };

  /** Nothing more is on its way: what is told next is the last. */
  async ended(): Promise<void> {
    await this.#telling;
  }
}
