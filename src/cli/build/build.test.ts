import { chmod, mkdir, mkdtemp, rm, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, describe, expect, it, test } from "vitest";
import { readTar } from "../../host/images/tar-reader.ts";
import { run } from "../../host/run.ts";
import { parseIgnoreRules } from "./ignore-rules.ts";
import { packContext } from "./pack-context.ts";

// Most of moby/patternmatcher's own cases.
test.each<[rules: string, path: string, ignored: boolean]>([
  ["**", "file", true],
  ["**/", "dir/file", true],
  ["**/file", "file", true],
  ["**/file", "a/b/file", true],
  ["**/dir/**", "x/dir/file", true],
  ["dir/**", "dir/a/b", true],
  ["dir/**", "dir2/file", false],
  ["**/*.txt", "a/b.txt", true],
  ["a**/*.txt", "a/b/c.txt", true],
  ["abc*", "abcd/e", true],
  ["a?c", "abc", true],
  ["a?c", "a/c", false],
  ["[a-c]x", "bx", true],
  ["[^a]x", "ax", false],
  ["a\\*b", "a*b", true],
  ["a\\*b", "acb", false],
  ["a.b", "axb", false],
  ["/top", "top", true],
  ["./top/", "top/below", true],
  ["a/../b", "b", true],
  ["top", "below/top", false],
  ["*\n!keep", "keep", false],
  ["*\n!keep\nkeep/secret", "keep/secret", true],
  ["*\n!keep/this", "keep/this/file", false],
  ["# comment\n\n  spaces  ", "spaces", true],
  ["# comment", "# comment", false],
  ["*.md\n!README*.md\nREADME-secret.md", "README-secret.md", true],
  ["*.md\n!README*.md\nREADME-secret.md", "README-x.md", false],
  ["(a+b)", "(a+b)", true],
  [".", "anything", true],
])("rules %j: %s", (rules, path, ignored) => {
  expect(parseIgnoreRules(rules).ignores(path)).toBe(ignored);
});

describe("a directory as a context", () => {
  let directory: string;
  beforeEach(async () => {
    directory = await mkdtemp(join(tmpdir(), "context-"));
  });
  afterEach(() => rm(directory, { recursive: true, force: true }));

  const write = async (path: string, text = path) => {
    await mkdir(dirname(join(directory, path)), { recursive: true });
    await writeFile(join(directory, path), text);
  };
  const pack = async (file = "Dockerfile") => {
    const chunks: Buffer[] = [];
    for await (const chunk of packContext({ directory, file })) chunks.push(chunk);
    return Buffer.concat(chunks);
  };
  const list = async (file?: string) => {
    const found: string[] = [];
    for await (const { path, type, target } of readTar(Readable.from([await pack(file)]))) {
      found.push(type === "symlink" ? `${path} -> ${target}` : type === "directory" ? `${path}/` : path);
    }
    return found;
  };

  it("is sent in order, links as links, and the same bytes whenever it is packed", async () => {
    await write("b/2");
    await write("b/1");
    await write("Dockerfile", "FROM scratch");
    await symlink("/etc/passwd", join(directory, "a-link"));
    await chmod(join(directory, "b/1"), 0o755);
    expect(await list()).toEqual(["Dockerfile", "a-link -> /etc/passwd", "b/", "b/1", "b/2"]);
    const once = await pack();
    await utimes(join(directory, "b/1"), 1, 1);
    expect((await pack()).equals(once)).toBe(true);
  });

  it("leaves out what .dockerignore names, but neither itself nor the Dockerfile", async () => {
    for (const path of ["Dockerfile", "secret/key", "src/main.c", "src/x/keep.txt", "src/x/y.o"])
      await write(path);
    await write(".dockerignore", "*\n!src\nsrc/**/*.o\n");
    expect(await list()).toEqual([
      ".dockerignore",
      "Dockerfile",
      "src/",
      "src/main.c",
      "src/x/",
      "src/x/keep.txt",
    ]);
    await write(".dockerignore", "**\n!src/x/keep.txt\n");
    await write("build/my.Dockerfile");
    expect(await list("build/my.Dockerfile")).toEqual([
      ...[".dockerignore", "build/", "build/my.Dockerfile", "src/x/keep.txt"],
    ]);
  });

  it("refuses what is no file", async () => {
    await run("mkfifo", [join(directory, "pipe")]);
    await expect(pack()).rejects.toThrow(/pipe is neither a file nor a directory nor a link/);
  });
});
