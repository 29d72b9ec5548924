/**
 * Without a terminal, the Engine sends both outputs on one connection, in frames: one byte for the stream (0 and 1:
 * standard output, 2: standard error), three zeros, four for the length, the bytes. Docker Engine API, "Attach to a
 * container", "Stream format".
 */
export interface Frame {
  stream: "stdout" | "stderr";
  bytes: Buffer;
}

const headerBytes = 8;

/** Frames as they come, in pieces where they come in pieces. A frame that is cut short at the end is given as it is. */
export async function* demultiplex(source: AsyncIterable<Uint8Array>): AsyncGenerator<Frame> {
  let header = Buffer.alloc(0);
  let left = 0;
  let stream: Frame["stream"] = "stdout";
  for await (const chunk of source) {
    let rest = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.byteLength);
    while (rest.length > 0) {
      if (left === 0) {
        const missing = headerBytes - header.length;
        header = Buffer.concat([header, rest.subarray(0, missing)]);
        rest = rest.subarray(missing);
        if (header.length < headerBytes) break;
        stream = header[0] === 2 ? "stderr" : "stdout";
        left = header.readUInt32BE(4);
        header = Buffer.alloc(0);
        continue;
      }
      const bytes = rest.subarray(0, left);
      left -= bytes.length;
      rest = rest.subarray(bytes.length);
      yield { stream, bytes };
    }
  }
}

/** The bytes of both outputs in their order; `tty`: there are no frames. */
export async function* outputOf(source: AsyncIterable<Uint8Array>, tty: boolean): AsyncGenerator<Uint8Array> {
  if (tty) {
    yield* source;
    return;
  }
  for await (const { bytes } of demultiplex(source)) yield bytes;
}
