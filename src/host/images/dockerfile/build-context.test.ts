import { createReadStream } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { type TarHeader, tarEnd, tarPadding, writeTarHeader } from "../../../core/tar-writer.ts";
import { contextWith, dockerfileName } from "../../../drivers/docker/build-context-stream.ts";
import { readTar } from "../tar-reader.ts";
import { contextLimits, writeContext } from "./build-context.ts";

const { signal } = new AbortController();

type Member = Partial<TarHeader> & { path: string; text?: string };

function tarOf(...members: Member[]): AsyncIterable<Uint8Array> {
  const blocks = members.flatMap(({ text = "", ...rest }) => {
    const plain = { mode: 0o644, uid: 7, gid: 8, mtimeSeconds: 9, target: "", attributes: new Map() };
    const header = { type: "file" as const, ...plain, ...rest, sizeBytes: Buffer.byteLength(text) };
    return [writeTarHeader(header), Buffer.from(text), tarPadding(header.sizeBytes)];
  });
  return (async function* () {
    yield Buffer.concat([...blocks, tarEnd]);
  })();
}

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "context-"));
});
afterEach(() => rm(directory, { recursive: true, force: true }));

let count = 0;
const write = (source: AsyncIterable<Uint8Array>, file = "Dockerfile") =>
  writeContext(source, file, join(directory, `context-${++count}.tar`), signal);
const dockerfile = { path: "Dockerfile", text: "FROM scratch\n" };

describe("a build's context", () => {
  it("is the same whoever packed it when", async () => {
    const one = await write(tarOf(dockerfile, { path: "etc/fstab", text: "LABEL=x / ext4" }));
    const other = await write(
      tarOf(
        { ...dockerfile, path: "./Dockerfile", uid: 0, mtimeSeconds: 1 },
        { path: "etc/fstab", text: "LABEL=x / ext4" },
      ),
    );
    expect(other.sha256).toBe(one.sha256);
    expect(one.dockerfile).toBe("FROM scratch\n");
  });

  it("keeps all that it holds, also what no root tree would", async () => {
    const members = [
      dockerfile,
      { path: "dev/app", text: "x" },
      { path: "link", type: "symlink" as const, target: "/etc/shadow" },
    ];
    const { path } = await write(tarOf(...members));
    const found: string[] = [];
    for await (const entry of readTar(createReadStream(path))) found.push(`${entry.path} ${entry.uid}`);
    expect(found).toEqual(["Dockerfile 0", "dev 0", "dev/app 0", "link 0"]);
  });

  it.each<[string, Member, RegExp]>([
    ["a path that climbs", { path: "../x" }, /"\.\.\/x"/],
    ["an absolute path", { path: "/x" }, /"\/x"/],
    [
      "a link that climbs",
      { path: "a/b", type: "symlink", target: "../../x" },
      /"a\/b" is a link to "..\/..\/x", which leads out/,
    ],
    ["a link to what is above", { path: "a", type: "symlink", target: ".." }, /leads out of the context/],
    ["a device", { path: "x", type: "character" }, /device node/],
    ["a pipe", { path: "x", type: "fifo" }, /"x" is a pipe/],
    ["a hard link to what is not there", { path: "x", type: "hardlink", target: "../y" }, /"x"|"..\/y"/],
  ])("is refused for %s", async (_what, member, message) => {
    await expect(write(tarOf(dockerfile, member))).rejects.toMatchObject({
      code: "Invalid",
      message: expect.stringMatching(message),
    });
  });

  it("is refused below a link", async () => {
    const members = [
      { path: "a", type: "symlink" as const, target: "/etc" },
      { path: "a/b", text: "x" },
    ];
    await expect(write(tarOf(...members, dockerfile))).rejects.toThrow(/below the symbolic link/);
  });

  it("needs the Dockerfile that was named", async () => {
    await expect(write(tarOf({ path: "x" }))).rejects.toThrow(
      /has no file "Dockerfile"; name the Dockerfile/,
    );
    expect((await write(tarOf({ ...dockerfile, path: "b/D" }), "./b/D")).dockerfile).toBe("FROM scratch\n");
    const large = { path: "Dockerfile", text: "#".repeat(contextLimits.maxDockerfileBytes + 1) };
    await expect(write(tarOf(large))).rejects.toThrow(/larger than 1 MiB/);
  });
});

describe("what the Engine gets", () => {
  const read = async (...members: Member[]) => {
    const found: Record<string, string> = {};
    for await (const entry of readTar(contextWith({ dockerfile: "FROM own" }, tarOf(...members)))) {
      const chunks: Uint8Array[] = [];
      for await (const chunk of entry.content) chunks.push(Uint8Array.from(chunk));
      found[entry.path] = Buffer.concat(chunks).toString();
    }
    return found;
  };

  it("has the Dockerfile beside the context's own, and a rule that keeps it out of images", async () => {
    expect(await read(dockerfile, { path: ".dockerignore", text: "*.o" })).toEqual({
      ...{ Dockerfile: "FROM scratch\n", [dockerfileName]: "FROM own" },
      ".dockerignore": `*.o\n${dockerfileName}\n`,
    });
    expect((await read(dockerfile))[".dockerignore"]).toBe(`.dockerignore\n${dockerfileName}\n`);
  });
});
