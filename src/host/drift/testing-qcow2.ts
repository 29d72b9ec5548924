/** Small qcow2 files. For tests. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { deflateRawSync } from "node:zlib";

export const clusterBytes = 4096;
export const clusters = 64;

type Cluster = { plain: Buffer } | { packed: Buffer } | "zeros";

/** A qcow2 of 64 small clusters: header, one table of tables, one table, then the content. */
export async function qcow2In(
  directory: string,
  name: string,
  content: Record<number, Cluster>,
  change: (header: Buffer, l1: Buffer) => void = () => {},
): Promise<string> {
  const header = Buffer.alloc(clusterBytes);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(3, 4);
  header.writeUInt32BE(12, 20);
  header.writeBigUInt64BE(BigInt(clusters * clusterBytes), 24);
  header.writeUInt32BE(1, 36);
  header.writeBigUInt64BE(BigInt(clusterBytes), 40);
  header.writeUInt32BE(104, 100);
  const l1 = Buffer.alloc(clusterBytes);
  l1.writeBigUInt64BE(BigInt(2 * clusterBytes) | (1n << 63n), 0);
  const l2 = Buffer.alloc(clusterBytes);
  const data: Buffer[] = [];
  let at = 3 * clusterBytes;
  for (const [index, cluster] of Object.entries(content)) {
    const entry = Number(index) * 8;
    if (cluster === "zeros") {
      l2.writeBigUInt64BE(1n, entry);
      continue;
    }
    const packed = "packed" in cluster ? deflateRawSync(cluster.packed) : undefined;
    const bytes = Buffer.alloc(clusterBytes);
    if (packed) packed.copy(bytes);
    else if ("plain" in cluster) cluster.plain.copy(bytes);
    const sectors = packed ? Math.ceil(packed.length / 512) - 1 : 0;
    l2.writeBigUInt64BE(
      packed ? (1n << 62n) | (BigInt(sectors) << 58n) | BigInt(at) : BigInt(at) | (1n << 63n),
      entry,
    );
    data.push(bytes);
    at += clusterBytes;
  }
  change(header, l1);
  const path = join(directory, name);
  await writeFile(path, Buffer.concat([header, l1, l2, ...data]));
  return path;
}
