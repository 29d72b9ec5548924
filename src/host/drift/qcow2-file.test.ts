import type { FileHandle } from "node:fs/promises";
import { expect, test } from "vitest";
import { Qcow2File } from "./qcow2-file.ts";

const clusterBits = 21;
const clusterBytes = 2 ** clusterBits;
const tables = 12;
const covered = clusterBytes * (clusterBytes / 8);

/** The largest clusters, and so the largest tables: each as empty as the next. `asked`: where tables were read. */
function hugeTables() {
  const asked: number[] = [];
  const header = Buffer.alloc(104);
  header.writeUInt32BE(0x514649fb, 0);
  header.writeUInt32BE(2, 4);
  header.writeUInt32BE(clusterBits, 20);
  header.writeBigUInt64BE(BigInt(tables * covered), 24);
  header.writeUInt32BE(tables, 36);
  header.writeBigUInt64BE(BigInt(clusterBytes), 40);
  const l1 = Buffer.alloc(tables * 8);
  for (let index = 0; index < tables; index++) {
    l1.writeBigUInt64BE(BigInt((2 + index) * clusterBytes), index * 8);
  }
  const read = async (into: Buffer, at: number, length: number, position: number) => {
    into.fill(0, at, at + length);
    if (position === 0) header.copy(into, at);
    else if (position === clusterBytes) l1.copy(into, at);
    else asked.push(position / clusterBytes - 2);
    return { bytesRead: length, buffer: into };
  };
  return { file: { read } as unknown as Pick<FileHandle, "read">, asked };
}

test("no more than 16 MiB of tables are kept, however large they are", async () => {
  const { file, asked } = hugeTables();
  const disk = await Qcow2File.open(file);
  const look = (table: number) => disk.has((table * covered) / clusterBytes);
  for (const table of [0, 1, 2, 3, 4, 5, 6, 7, 0, 7]) await look(table);
  expect(asked).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  await look(8);
  for (const table of [1, 7, 8]) await look(table);
  expect(asked.slice(8)).toEqual([8]);
  await look(0);
  expect(asked.slice(8)).toEqual([8, 0]);
});
