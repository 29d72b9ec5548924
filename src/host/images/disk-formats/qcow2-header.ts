/** qcow2, versions 2 and 3. Format: https://www.qemu.org/docs/master/interop/qcow2.html */
import type { ReadAt } from "../partition-table.ts";
import { type DiskHeader, damagedDisk, readExactly, refuseDisk, safeNumber } from "./disk-header.ts";

const incompatible = { dirty: 1n, corrupt: 2n, externalData: 4n, compression: 8n, extendedL2: 16n } as const;
const known = Object.values(incompatible).reduce((all, bit) => all | bit, 0n);
const externalDataName = 0x44415441;
const maxExtensions = 64;

/** @throws Invalid for what refers to another file, is encrypted, marked as corrupt or damaged. */
export async function readQcow2Header(read: ReadAt): Promise<DiskHeader> {
  const header = await readExactly(read, 0, 104, "qcow2");
  const version = header.readUInt32BE(4);
  if (version !== 2 && version !== 3) throw refuseDisk(`is qcow2 of version ${version}; 2 and 3 are read`);
  if (header.readBigUInt64BE(8) !== 0n) {
    throw refuseDisk(
      "is only the difference to a backing file; convert it to a complete one with qemu-img convert",
    );
  }
  const clusterBits = header.readUInt32BE(20);
  if (clusterBits < 9 || clusterBits > 21)
    throw damagedDisk("qcow2", `has clusters of 2^${clusterBits} bytes`);
  if (header.readUInt32BE(32) !== 0) throw refuseDisk("is encrypted");
  if (version === 3) await checkVersion3(read, header, 2 ** clusterBits);
  return { virtualBytes: safeNumber(header.readBigUInt64BE(24), "qcow2") };
}

async function checkVersion3(read: ReadAt, header: Buffer, clusterBytes: number): Promise<void> {
  const features = header.readBigUInt64BE(72);
  if (features & incompatible.externalData) throw externalData();
  if (features & incompatible.corrupt)
    throw refuseDisk("is marked as corrupt; repair it with qemu-img check -r all");
  if (features & ~known)
    throw refuseDisk(`uses qcow2 features that are not known here (0x${features.toString(16)})`);
  const headerBytes = header.readUInt32BE(100);
  if (headerBytes < 104 || headerBytes > clusterBytes || headerBytes % 8 !== 0)
    throw damagedDisk("qcow2", `has a header of ${headerBytes} bytes`);
  const area = await read(headerBytes, Math.min(clusterBytes, 65_536) - headerBytes);
  for (let at = 0, count = 0; at + 8 <= area.length && count < maxExtensions; count++) {
    const type = area.readUInt32BE(at);
    if (type === 0) return;
    if (type === externalDataName) throw externalData();
    at += 8 + Math.ceil(area.readUInt32BE(at + 4) / 8) * 8;
  }
}

function externalData() {
  return refuseDisk("keeps its data in another file; convert it with qemu-img convert");
}
