/**
 * VMware's VMDK in one file: `monolithicSparse` and `streamOptimized`. A text descriptor, which names extents by path,
 * is read for its one flat extent only where the caller has that file itself (an appliance's own member).
 * Format: "Virtual Disk Format 1.1" of VMware; block/vmdk.c of QEMU.
 */
import type { ReadAt } from "../partition-table.ts";
import {
  type DiskHeader,
  damagedDisk,
  readExactly,
  refuseDisk,
  safeNumber,
  sectorBytes,
} from "./disk-header.ts";

const selfContained = new Set(["monolithicSparse", "streamOptimized"]);
const maxDescriptorBytes = 64 * 1024;
const noParent = "ffffffff";

export interface VmdkDescriptor {
  createType: string;
  extents: { access: string; sectors: number; type: string; file: string; offset: number }[];
}

/** @throws Invalid for what has a parent or keeps data in another file, and for what is damaged. */
export async function readVmdkHeader(read: ReadAt): Promise<DiskHeader> {
  const header = await readExactly(read, 0, sectorBytes, "vmdk");
  if (header.toString("latin1", 0, 4) !== "KDMV") {
    throw refuseDisk(
      "is a VMDK that keeps its data in other files; make one file of it with qemu-img convert -O vmdk -o subformat=streamOptimized, or an OVA",
    );
  }
  const version = header.readUInt32LE(4);
  if (version < 1 || version > 3) throw refuseDisk(`is VMDK of version ${version}; 1 to 3 are read`);
  const sectors = safeNumber(header.readBigUInt64LE(12), "vmdk");
  // QEMU takes a sparse file without capacity for a mere carrier of a descriptor, and follows what that names.
  if (sectors === 0) throw damagedDisk("vmdk", "has no size");
  const at = safeNumber(header.readBigUInt64LE(28), "vmdk") * sectorBytes;
  const length = safeNumber(header.readBigUInt64LE(36), "vmdk") * sectorBytes;
  if (at === 0 || length === 0) throw damagedDisk("vmdk", "has no descriptor");
  if (length > maxDescriptorBytes) throw damagedDisk("vmdk", `has a descriptor of ${length} bytes`);
  const text = await readExactly(read, at, length, "vmdk");
  checkSelfContained(parseVmdkDescriptor(text));
  return { virtualBytes: sectors * sectorBytes };
}

function checkSelfContained({ createType, extents }: VmdkDescriptor): void {
  if (!selfContained.has(createType)) {
    throw refuseDisk(
      `is a VMDK of the type ${show(createType)}; ${[...selfContained].join(" and ")} are read`,
    );
  }
  const [extent] = extents;
  if (extents.length !== 1 || extent?.type !== "SPARSE") {
    throw refuseDisk("is a VMDK that keeps its data in other files; a VMDK of one sparse extent is read");
  }
}

/** @throws Invalid when it has a parent or is no descriptor. */
export function parseVmdkDescriptor(bytes: Buffer): VmdkDescriptor {
  const end = bytes.indexOf(0);
  const text = bytes.toString("utf8", 0, end < 0 ? bytes.length : end);
  if (!text.startsWith("# Disk DescriptorFile")) throw damagedDisk("vmdk", "has no descriptor");
  const values = new Map<string, string>();
  const extents: VmdkDescriptor["extents"] = [];
  for (const line of text.split(/\r?\n/).map((raw) => raw.trim())) {
    const extent = /^(RW|RDONLY|NOACCESS)\s+(\d{1,15})\s+([A-Z]+)(?:\s+"([^"]*)"(?:\s+(\d{1,15}))?)?$/.exec(
      line,
    );
    if (extent) {
      const [, access = "", sectors, type = "", file = "", offset = "0"] = extent;
      extents.push({ access, sectors: Number(sectors), type, file, offset: Number(offset) });
      continue;
    }
    if (/^(RW|RDONLY|NOACCESS)\b/.test(line)) throw damagedDisk("vmdk", "has an extent that cannot be read");
    const [, key, value = ""] = /^([A-Za-z][\w.]*)\s*=\s*"?([^"]*)"?$/.exec(line) ?? [];
    if (key !== undefined) values.set(key.toLowerCase(), value);
  }
  const parent = values.get("parentcid") ?? noParent;
  if (parent.toLowerCase() !== noParent || values.has("parentfilenamehint")) {
    throw refuseDisk("is only the difference to another VMDK; consolidate it into a complete one first");
  }
  return { createType: values.get("createtype") ?? "", extents };
}

function show(text: string): string {
  return JSON.stringify(text.slice(0, 60));
}
