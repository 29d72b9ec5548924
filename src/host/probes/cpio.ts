/**
 * Archives in the `newc` form of cpio: the only one the kernel unpacks as an initramfs.
 * @see https://www.kernel.org/doc/html/latest/driver-api/early-userspace/buffer-format.html
 */
import { assert } from "../../core/errors.ts";

export type CpioEntry =
  | { type: "directory"; path: string; mode: number }
  | { type: "file"; path: string; mode: number; content: Uint8Array }
  | { type: "character-device"; path: string; mode: number; major: number; minor: number };

const fileTypes = { directory: 0o040000, file: 0o100000, "character-device": 0o020000 } as const;
const trailer = "TRAILER!!!";

/** Entries in the given order, so a directory must come before what is in it. Owned by root, time stamps 0. */
export function cpioArchive(entries: readonly CpioEntry[]): Uint8Array {
  const parts = entries.map((entry, index) => {
    assert(!entry.path.startsWith("/") && entry.path !== trailer, `cpio path is relative: ${entry.path}`);
    return member({
      inode: index + 1,
      mode: fileTypes[entry.type] | entry.mode,
      links: entry.type === "directory" ? 2 : 1,
      device: entry.type === "character-device" ? [entry.major, entry.minor] : [0, 0],
      path: entry.path,
      content: entry.type === "file" ? entry.content : new Uint8Array(),
    });
  });
  parts.push(
    member({ inode: 0, mode: 0, links: 1, device: [0, 0], path: trailer, content: new Uint8Array() }),
  );
  return Buffer.concat(parts);
}

interface Member {
  inode: number;
  mode: number;
  links: number;
  device: readonly [number, number];
  path: string;
  content: Uint8Array;
}

function member({ inode, mode, links, device, path, content }: Member): Uint8Array {
  const name = Buffer.from(`${path}\0`);
  // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, links, 0, content.length, 0, 0, ...device, name.length, 0];
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, "0")).join("")}`;
  return Buffer.concat([padded(Buffer.concat([Buffer.from(header), name])), padded(content)]);
}

function padded(bytes: Uint8Array): Uint8Array {
  return Buffer.concat([bytes, new Uint8Array(-bytes.length & 3)]);
}
