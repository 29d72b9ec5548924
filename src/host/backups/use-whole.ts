import type { Readable } from "node:stream";
import { StrataError } from "../../core/errors.ts";

/**
 * Calls `use` with the bytes of a stream that must be `sizeBytes` long: they end only when all of them have come. What `use`
 * leaves is read as well. @throws Internal when there are fewer or more; what `use` throws.
 */
export async function useWhole<Result>(
  stream: Readable,
  sizeBytes: number,
  use: (bytes: AsyncIterable<Uint8Array>) => Promise<Result>,
  onRead: (bytes: number) => void,
): Promise<Result> {
  const chunks = stream[Symbol.asyncIterator]() as AsyncIterator<Uint8Array>;
  let count = 0;
  const next = async (): Promise<Uint8Array | undefined> => {
    const { value, done } = await chunks.next();
    if (!done) {
      count += value.length;
      onRead(count);
      return value;
    }
    if (count === sizeBytes) return undefined;
    throw new StrataError("Internal", `the backup has ${count} bytes, not the ${sizeBytes} of its archive`);
  };
  async function* whole() {
    for (let chunk = await next(); chunk !== undefined; chunk = await next()) yield chunk;
  }
  const result = await use(whole());
  while ((await next()) !== undefined);
  return result;
}
