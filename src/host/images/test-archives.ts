/** Archives for tests, made with tar-stream: another implementation than the one under test. */
import { type Header, pack } from "tar-stream";

export type TestEntry = Partial<Header> & { name: string } & { content?: string | Buffer };

export async function tarOf(entries: readonly TestEntry[]): Promise<Buffer> {
  const archive = pack();
  for (const { content, ...header } of entries) {
    const file = (header.type ?? "file") === "file";
    if (file) archive.entry(header, content ?? "");
    else archive.entry(header);
  }
  archive.finalize();
  const chunks: Buffer[] = [];
  for await (const chunk of archive) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks);
}

/** In pieces of `chunkBytes`, so that every boundary is met. */
export async function* inChunks(
  data: Uint8Array,
  chunkBytes = data.length || 1,
): AsyncGenerator<Uint8Array, void, void> {
  for (let at = 0; at < data.length; at += chunkBytes) yield data.subarray(at, at + chunkBytes);
}

export async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Uint8Array[] = [];
  for await (const chunk of chunks) parts.push(Uint8Array.from(chunk));
  return Buffer.concat(parts);
}
