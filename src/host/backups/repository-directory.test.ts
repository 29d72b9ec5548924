import { mkdir, mkdtempDisposable, stat, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, test } from "vitest";
import { repositoryDirectory } from "./repository-directory.ts";

test("below a root, made for its owner alone; not made where it is not to be", async () => {
  await using top = await mkdtempDisposable(join(tmpdir(), "strata-roots-"));
  const path = join(top.path, "school/records");
  expect(await repositoryDirectory(path, [top.path], false)).toBeUndefined();
  expect(await repositoryDirectory(path, [top.path], true)).toBe(path);
  expect((await stat(path)).mode & 0o777).toBe(0o700);
  expect(await repositoryDirectory(path, [top.path], false)).toBe(path);
});

test("nowhere else, whatever the path or a link says", async () => {
  await using top = await mkdtempDisposable(join(tmpdir(), "strata-roots-"));
  const root = join(top.path, "root");
  const elsewhere = join(top.path, "elsewhere");
  for (const directory of [root, elsewhere]) await mkdir(directory);
  await symlink(elsewhere, join(root, "link"));
  const refused = { code: "Forbidden" };
  for (const path of [
    root,
    elsewhere,
    `${root}/../elsewhere`,
    `${root}-more/x`,
    "/",
    `${root}/link`,
    `${root}/link/x`,
  ]) {
    await expect(repositoryDirectory(path, [root], true)).rejects.toMatchObject(refused);
  }
  await expect(repositoryDirectory(`${root}/x`, [], true)).rejects.toMatchObject(refused);
  await expect(stat(join(elsewhere, "x"))).rejects.toMatchObject({ code: "ENOENT" });
});

test("a root that is not mounted is not made", async () => {
  await using top = await mkdtempDisposable(join(tmpdir(), "strata-roots-"));
  const root = join(top.path, "nas");
  await expect(repositoryDirectory(join(root, "x"), [root], true)).rejects.toMatchObject({
    code: "Unavailable",
  });
});
