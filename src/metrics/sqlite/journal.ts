import type { Instant } from "../../core/clock.ts";

/** Samples as they came: 16 bytes each, little-endian: id of the series (uint32), value (float32), time (float64). */
const entryBytes = 16;

/** Samples that wait for the next write; beyond it, the journal forgets the oldest while the disk refuses. */
const maxWaiting = 200_000;

export class JournalBatch {
  #bytes = new DataView(new ArrayBuffer(256 * entryBytes));
  #length = 0;

  get length(): number {
    return this.#length;
  }

  add(id: number, at: Instant, value: number): void {
    if (this.#length >= maxWaiting) this.clear();
    if (this.#length * entryBytes === this.#bytes.byteLength) this.#grow();
    const offset = this.#length++ * entryBytes;
    this.#bytes.setUint32(offset, id, true);
    this.#bytes.setFloat32(offset + 4, value, true);
    this.#bytes.setFloat64(offset + 8, at, true);
  }

  clear(): void {
    this.#length = 0;
  }

  /** Of use until the next `add`. */
  encode(): Uint8Array {
    return new Uint8Array(this.#bytes.buffer, 0, this.#length * entryBytes);
  }

  #grow(): void {
    const bytes = new Uint8Array(2 * this.#bytes.byteLength);
    bytes.set(new Uint8Array(this.#bytes.buffer));
    this.#bytes = new DataView(bytes.buffer);
  }
}

export function* decodeJournal(data: Uint8Array): Iterable<{ id: number; at: Instant; value: number }> {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let offset = 0; offset + entryBytes <= data.byteLength; offset += entryBytes) {
    yield {
      id: view.getUint32(offset, true),
      value: view.getFloat32(offset + 4, true),
      at: view.getFloat64(offset + 8, true),
    };
  }
}
