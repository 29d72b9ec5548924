import type { Instant } from "../../core/clock.ts";

/** Samples as they came: 16 bytes each, little-endian: id of the series (uint32), value (float32), time (float64). */
const entryBytes = 16;

/** Samples that wait for the next write; beyond it, the journal forgets the oldest while the disk refuses. */
const maxWaiting = 200_000;

export class JournalBatch {
  #ids: number[] = [];
  #times: Instant[] = [];
  #values: number[] = [];

  get length(): number {
    return this.#ids.length;
  }

  add(id: number, at: Instant, value: number): void {
    if (this.#ids.length >= maxWaiting) this.clear();
    this.#ids.push(id);
    this.#times.push(at);
    this.#values.push(value);
  }

  clear(): void {
    this.#ids = [];
    this.#times = [];
    this.#values = [];
  }

  encode(): Uint8Array {
    const bytes = new DataView(new ArrayBuffer(this.#ids.length * entryBytes));
    for (const [index, id] of this.#ids.entries()) {
      const offset = index * entryBytes;
      bytes.setUint32(offset, id, true);
      bytes.setFloat32(offset + 4, this.#values[index] ?? 0, true);
      bytes.setFloat64(offset + 8, this.#times[index] ?? 0, true);
    }
    return new Uint8Array(bytes.buffer);
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
