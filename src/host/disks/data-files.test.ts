import { mkdir, mkdtemp, readdir, readFile, readlink, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { copyFile, requireRoom } from "./copy-file.ts";
import { dropDataFile, findDataFile, type PoolPlace, placeDataFile, poolMark } from "./data-files.ts";

const signal = new AbortController().signal;
let top: string;
let volume: string;
let pool: PoolPlace;

beforeEach(async () => {
  top = await mkdtemp(join(tmpdir(), "data-files-"));
  volume = join(top, "volumes", "v1");
  pool = { uid: "p1", name: "fast", path: join(top, "pool") };
  await mkdir(pool.path);
  await mark(pool);
});
afterEach(() => rm(top, { recursive: true }));

const mark = ({ path, uid }: PoolPlace) => writeFile(join(path, poolMark), JSON.stringify({ uid }));
const unavailable = (message: RegExp) => ({ code: "Unavailable", message: expect.stringMatching(message) });

test("without a pool a volume's file is in its own directory", async () => {
  expect(await placeDataFile(volume, undefined)).toBe(join(volume, "data.raw"));
  await expect(findDataFile(volume)).rejects.toMatchObject({ code: "NotFound" });
  await mkdir(volume, { recursive: true });
  await writeFile(join(volume, "data.raw"), "text");
  expect(await findDataFile(volume)).toBe(join(volume, "data.raw"));
  await dropDataFile(volume);
});

test("the way into a pool is there before the file, and goes after it", async () => {
  const path = join(pool.path, "v1.raw");
  expect(await placeDataFile(volume, pool)).toBe(path);
  expect(await readlink(join(volume, "data.raw"))).toBe(path);
  expect(await readdir(pool.path)).toEqual([poolMark]);
  await writeFile(path, "text");
  await writeFile(`${path}.new`, "half");
  expect([await placeDataFile(volume, pool), await placeDataFile(volume, undefined)]).toEqual([path, path]);
  expect(await findDataFile(volume)).toBe(path);
  await dropDataFile(volume);
  await dropDataFile(volume);
  expect(await readdir(pool.path)).toEqual([poolMark]);
});

test("a directory without its mark, or with another's, is no pool", async () => {
  await placeDataFile(volume, pool);
  await rm(join(pool.path, poolMark));
  const absent = unavailable(/has no strata-pool\.json; is its file system mounted\?/);
  for (const attempt of [
    () => placeDataFile(volume, pool),
    () => placeDataFile(join(top, "volumes", "v2"), pool),
    () => findDataFile(volume),
    () => dropDataFile(volume),
  ]) {
    await expect(attempt()).rejects.toMatchObject(absent);
  }
  await mark({ ...pool, uid: "p2" });
  await expect(placeDataFile(volume, pool)).rejects.toMatchObject(unavailable(/is another pool's/));
  expect(await readdir(join(top, "volumes"))).toEqual(["v1"]);
});

test("in a lost pool nothing is touched, also when it is there after all", async () => {
  const path = await placeDataFile(volume, pool);
  await writeFile(path, "text");
  const left: string[] = [];
  const lost = (directory: string) => ({
    has: (other: string) => other === directory,
    left: (file: string) => void left.push(file),
  });
  await dropDataFile(volume, lost(pool.path));
  expect([left, await readFile(path, "utf8")]).toEqual([[path], "text"]);
  await rm(join(pool.path, poolMark));
  await dropDataFile(volume, lost(pool.path));
  await expect(dropDataFile(volume, lost("/srv/other"))).rejects.toMatchObject({ code: "Unavailable" });
  expect(left).toEqual([path, path]);
});

test("a volume does not move from pool to pool", async () => {
  await placeDataFile(volume, pool);
  const other = { uid: "p2", name: "slow", path: join(top, "other") };
  await mkdir(other.path);
  await mark(other);
  await expect(placeDataFile(volume, other)).rejects.toMatchObject({ code: "Conflict" });
});

test("a copy has the same bytes and holes, and one that there is no room for is not begun", async () => {
  const [from, to] = [join(top, "from"), join(top, "to")];
  await writeFile(from, "text");
  await truncate(from, 64 * 1024 ** 2);
  await copyFile(from, to, signal);
  expect((await readFile(to)).equals(await readFile(from))).toBe(true);
  expect((await stat(to)).blocks * 512).toBeLessThan(1024 ** 2);
  await requireRoom(0, top);
  await expect(requireRoom(2 ** 60, top)).rejects.toMatchObject(
    unavailable(/there is no space left for .* more: .* has .* free, of which .* are kept/),
  );
});
