import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { attachmentOf } from "./loop-devices.ts";

test("a loop device tells by a number that it got its file anew", async () => {
  const directory = await mkdtemp(join(tmpdir(), "strata-loops-"));
  try {
    await mkdir(join(directory, "loop7"));
    await writeFile(join(directory, "loop7/diskseq"), "41\n");
    expect(await attachmentOf("/dev/loop7", directory)).toBe("41");
    await writeFile(join(directory, "loop7/diskseq"), "42\n");
    expect(await attachmentOf("/dev/loop7", directory)).toBe("42");
    expect(await attachmentOf("/dev/loop8", directory)).toBeUndefined();
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
});
