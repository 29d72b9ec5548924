import type { Instant } from "../../core/clock.ts";
import { metricRetention } from "../metric-store.ts";
import type { StepRecord } from "../steps.ts";

/**
 * Steps as they lie on disk: many of one series in one row, because a row a step would cost a page of its own for each of
 * thousands of series. Sixteen bytes a step, little-endian: its place within the chunk (uint16), how many samples (uint16),
 * mean, least and most (float32 each).
 */
const recordBytes = 16;
const maxCount = 0xffff;

/** Steps a chunk covers, by level: ten minutes of seconds, an hour of minutes, a day of hours. */
const stepsPerChunk = [600, 60, 24] as const;

export interface Level {
  level: number;
  stepMs: number;
  keptMs: number;
  /** How much time a chunk covers; chunks begin at its multiples. */
  spanMs: number;
}

export const levels: readonly Level[] = metricRetention.map(({ stepMs, keptMs }, level) => ({
  level,
  stepMs,
  keptMs,
  spanMs: stepMs * (stepsPerChunk[level] ?? 1),
}));

export function chunkStart({ spanMs }: Level, at: Instant): Instant {
  return Math.floor(at / spanMs) * spanMs;
}

/** `records` all lie in the chunk that begins at `start`. */
export function encodeChunk({ stepMs }: Level, start: Instant, records: readonly StepRecord[]): Uint8Array {
  const bytes = Buffer.alloc(records.length * recordBytes);
  for (const [index, record] of records.entries()) {
    const offset = index * recordBytes;
    bytes.writeUInt16LE((record.at - start) / stepMs, offset);
    bytes.writeUInt16LE(Math.min(record.count, maxCount), offset + 2);
    bytes.writeFloatLE(record.mean, offset + 4);
    bytes.writeFloatLE(record.min, offset + 8);
    bytes.writeFloatLE(record.max, offset + 12);
  }
  return bytes;
}

export function decodeChunk({ stepMs }: Level, start: Instant, data: Uint8Array): StepRecord[] {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  const records: StepRecord[] = [];
  for (let offset = 0; offset + recordBytes <= data.byteLength; offset += recordBytes) {
    records.push({
      at: start + view.getUint16(offset, true) * stepMs,
      count: view.getUint16(offset + 2, true),
      mean: view.getFloat32(offset + 4, true),
      min: view.getFloat32(offset + 8, true),
      max: view.getFloat32(offset + 12, true),
    });
  }
  return records;
}
