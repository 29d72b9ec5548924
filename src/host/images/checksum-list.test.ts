import { expect, it } from "vitest";
import { checksumOf } from "./checksum-list.ts";

const [a, b] = ["a".repeat(64), "B".repeat(128)];

it.each<[string, string, string | undefined]>([
  ["coreutils, text", `${a}  disk.qcow2\n`, a],
  ["coreutils, binary", `${a} *disk.qcow2\r\n`, a],
  ["with a directory in front", `${a}  ./disk.qcow2`, a],
  [
    "BSD within a signed text",
    `Hash: SHA256\n\n# disk.qcow2: 1 bytes\nSHA512 (disk.qcow2) = ${b}\n-----`,
    b.toLowerCase(),
  ],
  ["of another file only", `${a}  disk.qcow2.manifest\n${a}  x/disk.qcow2`, undefined],
  ["twice the same", `${a}  disk.qcow2\n${a}  disk.qcow2`, a],
  ["two that differ", `${a}  disk.qcow2\n${"c".repeat(64)}  disk.qcow2`, undefined],
  ["too short", `${"a".repeat(40)}  disk.qcow2`, undefined],
  ["nothing", "", undefined],
])("a list %s", (_what, list, digits) => {
  const found = checksumOf(list, "disk.qcow2");
  expect(found?.digits).toBe(digits);
  if (found) expect(found.algorithm).toBe(digits?.length === 64 ? "sha256" : "sha512");
});
