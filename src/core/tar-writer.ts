/** Writes tar headers (POSIX.1-2017 pax); the caller writes content, padding and end. */

export type TarType = "file" | "hardlink" | "symlink" | "directory" | "character" | "block" | "fifo";

export interface TarHeader {
  path: string;
  type: TarType;
  mode: number;
  uid: number;
  gid: number;
  /** Bytes of content; 0 for all types but `file`. */
  sizeBytes: number;
  mtimeSeconds: number;
  /** Target of hard and symbolic links, else "". */
  target: string;
  /** Extended attributes by name, such as `security.capability`. */
  attributes: ReadonlyMap<string, Uint8Array>;
}

const flags: Record<TarType, string> = {
  file: "0",
  hardlink: "1",
  symlink: "2",
  character: "3",
  block: "4",
  directory: "5",
  fifo: "6",
};

/** Two blocks of zeros. */
export const tarEnd = Buffer.alloc(1024);

const maxOctalSize = 0o77777777777;

/** What fills the last block of that much content. */
export function tarPadding(sizeBytes: number): Buffer {
  return Buffer.alloc((512 - (sizeBytes % 512)) % 512);
}

/** Header of a plain file that says nothing of when and by whom it was made. */
export function plainFileHeader(path: string, sizeBytes: number): Buffer {
  const attributes = new Map<string, Uint8Array>();
  const common = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, target: "", attributes };
  return writeTarHeader({ ...common, path, type: "file", sizeBytes });
}

/** One entry's header, with an extended header in front where the plain one cannot hold it. */
export function writeTarHeader(entry: TarHeader): Buffer {
  const path = Buffer.from(entry.path);
  const target = Buffer.from(entry.target);
  const records: Buffer[] = [];
  if (path.length > 100) records.push(paxRecord("path", path));
  if (target.length > 100) records.push(paxRecord("linkpath", target));
  if (entry.sizeBytes > maxOctalSize) records.push(paxRecord("size", Buffer.from(`${entry.sizeBytes}`)));
  for (const [name, value] of entry.attributes) records.push(paxRecord(`SCHILY.xattr.${name}`, value));
  const own = ustar(entry, path, target, flags[entry.type], Math.min(entry.sizeBytes, maxOctalSize));
  if (records.length === 0) return own;
  const data = Buffer.concat(records);
  const name = Buffer.from("PaxHeaders/entry");
  const extended = ustar({ ...entry, mode: 0o644 }, name, Buffer.alloc(0), "x", data.length);
  return Buffer.concat([extended, data, Buffer.alloc((512 - (data.length % 512)) % 512), own]);
}

function ustar(entry: TarHeader, path: Buffer, target: Buffer, flag: string, sizeBytes: number): Buffer {
  const header = Buffer.alloc(512);
  path.copy(header, 0, 0, 100);
  octal(header, entry.mode & 0o7777, 100, 8);
  octal(header, entry.uid, 108, 8);
  octal(header, entry.gid, 116, 8);
  octal(header, sizeBytes, 124, 12);
  octal(header, Math.min(entry.mtimeSeconds, maxOctalSize), 136, 12);
  header.fill(" ", 148, 156);
  header.write(flag, 156, "latin1");
  target.copy(header, 157, 0, 100);
  header.write("ustar\0" + "00", 257, "latin1");
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148, "latin1");
  return header;
}

function octal(header: Buffer, value: number, offset: number, length: number): void {
  header.write(`${value.toString(8).padStart(length - 1, "0")}\0`, offset, "latin1");
}

/** `LENGTH KEY=VALUE\n`, where LENGTH counts its own digits too. */
function paxRecord(key: string, value: Uint8Array): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  let length = rest.length + 1;
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
  return Buffer.concat([Buffer.from(`${length}`), rest]);
}
