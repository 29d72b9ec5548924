/** VirtualBox's VDI, version 1.1. Format: src/VBox/Storage/VDICore.h of VirtualBox; block/vdi.c of QEMU. */
import type { ReadAt } from "../partition-table.ts";
import { type DiskHeader, readExactly, refuseDisk, safeNumber } from "./disk-header.ts";

const types = { dynamic: 1, static: 2 } as const;

/** @throws Invalid for differencing and undo disks, other versions, and what is damaged. */
export async function readVdiHeader(read: ReadAt): Promise<DiskHeader> {
  const header = await readExactly(read, 0, 512, "vdi");
  const version = header.readUInt32LE(68);
  if (version !== 0x00010001) {
    throw refuseDisk(`is VDI of version ${version >>> 16}.${version & 0xffff}; 1.1 is read`);
  }
  const type = header.readUInt32LE(76);
  const parent = header.subarray(0x1a8, 0x1b8);
  if ((type !== types.dynamic && type !== types.static) || parent.some((byte) => byte !== 0)) {
    throw refuseDisk(
      "is only the difference to another VDI; clone it to a complete one with VBoxManage clonemedium",
    );
  }
  return { virtualBytes: safeNumber(header.readBigUInt64LE(0x170), "vdi") };
}
