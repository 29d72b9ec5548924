const maxMarkBytes = 256;

/**
 * A stream of bytes with marks in it: lines that begin with a token nobody else knows. Bytes are passed on as soon as
 * they cannot be the beginning of a mark; a token with too much behind it is none.
 */
export class MarkedStream {
  readonly #token: Buffer;
  readonly #onData: (data: Uint8Array) => void;
  readonly #onMark: (text: string) => void;
  #held: Buffer = Buffer.alloc(0);

  /** `onMark` is told what followed the token on its line. */
  constructor(token: string, onData: (data: Uint8Array) => void, onMark: (text: string) => void) {
    this.#token = Buffer.from(token);
    this.#onData = onData;
    this.#onMark = onMark;
  }

  push(chunk: Uint8Array): void {
    let bytes = this.#held.length === 0 ? Buffer.from(chunk) : Buffer.concat([this.#held, chunk]);
    for (;;) {
      const at = bytes.indexOf(this.#token);
      const end = at < 0 ? -1 : bytes.indexOf(0x0a, at);
      if (end < 0) {
        const isMark = at >= 0 && bytes.length - at <= this.#token.length + maxMarkBytes;
        const keepFrom = isMark ? at : bytes.length - this.#partialLength(bytes);
        if (keepFrom > 0) this.#onData(bytes.subarray(0, keepFrom));
        this.#held = bytes.subarray(keepFrom);
        return;
      }
      if (at > 0) this.#onData(bytes.subarray(0, at));
      this.#onMark(
        bytes
          .subarray(at + this.#token.length, end)
          .toString()
          .trim(),
      );
      bytes = bytes.subarray(end + 1);
    }
  }

  /** How many bytes at the end may be the token's beginning. */
  #partialLength(bytes: Buffer): number {
    for (let length = Math.min(this.#token.length - 1, bytes.length); length > 0; length--) {
      if (bytes.subarray(bytes.length - length).equals(this.#token.subarray(0, length))) return length;
    }
    return 0;
  }
}
