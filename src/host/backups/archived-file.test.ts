import { expect, test } from "vitest";
import { type TarHeader, tarEnd, tarPadding, writeTarHeader } from "../../core/tar-writer.ts";
import { readArchivedFile } from "./archived-file.ts";

const common = { mode: 0o644, uid: 0, gid: 0, mtimeSeconds: 0, attributes: new Map() };
const entry = (path: string, type: TarHeader["type"], text = ""): Buffer => {
  const content = Buffer.from(type === "file" ? text : "");
  const header = { ...common, path, type, target: type === "file" ? "" : text, sizeBytes: content.length };
  return Buffer.concat([writeTarHeader(header), content, tarPadding(content.length)]);
};

async function* archive() {
  yield entry("./", "directory");
  yield entry("./etc/", "directory");
  yield entry("./etc/hosts", "file", "127.0.0.1 localhost");
  yield entry("./etc/same", "hardlink", "./etc/hosts");
  yield entry("./bin", "symlink", "usr/bin");
  yield entry("./home/Üben.txt", "file", "1,7");
  yield tarEnd;
}

async function read(path: string): Promise<string> {
  let text = "";
  await readArchivedFile(archive(), path, async (bytes) => {
    for await (const chunk of bytes) text += Buffer.from(chunk).toString();
  });
  return text;
}

test("a file is found however its path is written", async () => {
  expect(await read("/etc/hosts")).toBe("127.0.0.1 localhost");
  expect(await read("etc//./hosts")).toBe("127.0.0.1 localhost");
  expect(await read("/home/Üben.txt")).toBe("1,7");
});

test.each([
  ["/etc/host", "NotFound", /there is no \/etc\/host in the backup/],
  ["/etc", "Invalid", /a directory/],
  ["/etc/same", "Invalid", /hard link to .*etc\/hosts; name that instead/],
  ["/bin/sh", "Invalid", /\/bin is a symbolic link to usr\/bin; name that instead/],
  ["/etc/../etc/hosts", "Invalid", /no path of a file/],
  ["/", "Invalid", /no path of a file/],
])("%s is refused: %s", async (path, code, message) => {
  await expect(read(path)).rejects.toMatchObject({ code, message: expect.stringMatching(message) });
});
