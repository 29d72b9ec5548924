/** As many pieces are joined at once: a string of its own for each of millions of short lines would take much memory. */
const joinedChars = 64 * 1024;

/**
 * The end of a long text that comes in pieces. It is cut only once it is twice as long as what is kept: a cut copies all of that,
 * which for each of a build's lines would take milliseconds of everybody's time.
 */
export class LastText {
  readonly #maxChars: number;
  #text = "";
  #pieces: string[] = [];
  #pieceChars = 0;

  constructor(maxChars: number) {
    this.#maxChars = maxChars;
  }

  add(piece: string): void {
    this.#pieces.push(piece);
    this.#pieceChars += piece.length;
    if (this.#pieceChars >= joinedChars) this.#join();
  }

  /** No more than `maxChars` of it. */
  get text(): string {
    this.#join();
    return this.#text.slice(-this.#maxChars);
  }

  #join(): void {
    this.#text += this.#pieces.join("");
    this.#pieces = [];
    this.#pieceChars = 0;
    if (this.#text.length > 2 * this.#maxChars) this.#text = this.#text.slice(-this.#maxChars);
  }
}
