/** Repositories by restic itself: what is saved comes back, what is damaged or killed is told, and a wrong key opens nothing. */
import { hash, randomBytes } from "node:crypto";
import { mkdir, mkdtemp, open, readdir, readFile, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { StrataError } from "../src/core/errors.ts";
import type { Backups, RepositoryAccess } from "../src/host/backups/backups.ts";
import { createBackups } from "../src/host/backups/restic-backups.ts";
import { checkRestored, readRestoredFile } from "../src/host/backups/restored-disk.ts";
import { run } from "../src/host/run.ts";

const { signal } = new AbortController();
const mib = 1024 ** 2;
const diskBytes = 48 * mib;
let top: string;
let disk: string;
let backups: Backups;
let repository: RepositoryAccess;
let id: string;

beforeAll(async () => {
  top = await mkdtemp(join(tmpdir(), "strata-restic-"));
  disk = join(top, "disk");
  await writeFile(disk, "");
  await truncate(disk, diskBytes);
  await run("mke2fs", ["-q", "-F", "-t", "ext4", disk]);
  await writeFile(join(top, "data"), randomBytes(8 * mib));
  await writeFile(join(top, "note"), "hello\n");
  for (const name of ["data", "note"]) {
    await run("debugfs", ["-w", "-R", `write ${join(top, name)} ${name}`, disk]);
  }
  await mkdir(join(top, "root"));
  backups = createBackups({
    directory: join(top, "state"),
    roots: [join(top, "root")],
    s3Networks: [],
    // Its own group is the daemon's business.
    cgroups: { ensure: async () => {}, procsFiles: () => [] },
    group: "none",
  });
  const key = randomBytes(32).toString("base64url");
  repository = { uid: "r", key, place: { type: "directory", path: join(top, "root/school") } };
  id = await backups.open(repository, undefined, signal);
}, 300_000);

afterAll(() => rm(top, { recursive: true, force: true }));

const save = (tag: string, stop = signal) => backups.save(repository, disk, tag, { signal: stop });

it("is the same repository each time, and no other", async () => {
  expect(await backups.open(repository, id, signal)).toBe(id);
  await expect(backups.open(repository, "another", signal)).rejects.toMatchObject({ code: "Conflict" });
  const gone: RepositoryAccess = {
    ...repository,
    place: { type: "directory", path: join(top, "root/none") },
  };
  await expect(backups.open(gone, id, signal)).rejects.toMatchObject({ code: "Unavailable" });
  expect(await readdir(join(top, "root"))).toEqual(["school"]);
}, 300_000);

it("opens nothing with a wrong key, and tells no key", async () => {
  const wrong = { ...repository, key: "not-the-key-that-opens-it" };
  for (const attempt of [
    () => backups.open(wrong, id, signal),
    () => backups.save(wrong, disk, "backup-w", { signal }),
    () => backups.forget(wrong, ["backup-w"], signal),
    () => backups.examine(wrong, signal),
  ]) {
    const error = await attempt().catch((thrown: unknown) => thrown);
    expect(error).toMatchObject({ code: "Forbidden", message: expect.stringMatching(/key does not open/) });
    expect(JSON.stringify([error, String((error as { detail?: string }).detail)])).not.toContain(wrong.key);
  }
}, 300_000);

it("saves once a tag, moves nothing twice, and gives back every byte, sparse", async () => {
  const first = await save("backup-a");
  expect(first.readBytes).toBe(diskBytes);
  expect(first.addedBytes).toBeGreaterThan(8 * mib);
  const again = await save("backup-a");
  expect(again.addedBytes).toBeLessThan(mib);
  const path = join(top, "out");
  const file = { path, sizeBytes: diskBytes };
  await expect(backups.restore(repository, first.snapshot, file, { signal })).rejects.toThrow();
  await rm(path);
  await backups.restore(repository, again.snapshot, file, { signal });
  expect((await readFile(path)).equals(await readFile(disk))).toBe(true);
  expect((await stat(path)).blocks).toBeLessThanOrEqual((await stat(disk)).blocks);

  expect(await checkRestored(path, "ext4", signal)).toBeUndefined();
  let text = "";
  const use = async (bytes: AsyncIterable<Uint8Array>) => {
    for await (const chunk of bytes) text += Buffer.from(chunk).toString();
  };
  await readRestoredFile({ path, fileSystem: "ext4" }, "/note", use, signal);
  expect(text).toBe("hello\n");
  const inside = (wanted: string) => readRestoredFile({ path, fileSystem: "ext4" }, wanted, use, signal);
  await expect(inside("/nothing")).rejects.toMatchObject({ code: "NotFound" });
  await expect(inside("/../note")).rejects.toMatchObject({ code: "Invalid" });
  await expect(inside("/")).rejects.toThrow(/a directory, with .*note/);
}, 600_000);

it("takes out one and keeps all that another needs; a killed one is saved anew", async () => {
  const other = await save("backup-b");
  await backups.forget(repository, ["backup-a"], signal);
  const killed = new AbortController();
  const saving = save("backup-c", killed.signal);
  const cancel = systemClock.after(1_000, () => killed.abort(new Error("stopped")));
  await saving.catch(() => {});
  cancel();
  await save("backup-c");
  await backups.forget(repository, ["backup-c"], signal);
  expect(await backups.examine(repository, signal)).toEqual({ intact: true, mended: true, message: "" });
  await backups.withScratch("test", async (path) => {
    await backups.restore(repository, other.snapshot, { path, sizeBytes: diskBytes }, { signal });
    expect((await readFile(path)).equals(await readFile(disk))).toBe(true);
  });
  expect(await readdir(join(top, "state/scratch"))).toEqual([]);
}, 600_000);

it("saves an archive as it comes, all of it or nothing that counts, and gives it back in the same way", async () => {
  const [first, second] = [randomBytes(3 * mib), randomBytes(mib)];
  async function* bytes(broken = false) {
    yield first;
    if (broken) throw new StrataError("NotFound", "the root went away");
    yield second;
  }
  const saveArchive = (from: AsyncIterable<Uint8Array>) =>
    backups.saveArchive(repository, from, "backup-root", { signal });
  await expect(saveArchive(bytes(true))).rejects.toThrow("the root went away");
  const options = { env: { RESTIC_PASSWORD: repository.key, PATH: process.env.PATH ?? "" } };
  const listing = [
    "-r",
    join(top, "root/school"),
    "--no-cache",
    "--no-lock",
    "snapshots",
    "--tag",
    "backup-root",
  ];
  expect(JSON.parse((await run("restic", [...listing, "--json"], options)).stdout) ?? []).toEqual([]);
  const { snapshot, readBytes: sizeBytes } = await saveArchive(bytes());
  expect(sizeBytes).toBe(4 * mib);
  const read = <Result>(use: (all: AsyncIterable<Uint8Array>) => Promise<Result>, size = sizeBytes) =>
    backups.readArchive(repository, { snapshot, sizeBytes: size }, use, { signal });
  const found = await read(async (all) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of all) chunks.push(chunk);
    return Buffer.concat(chunks);
  });
  expect(found.equals(Buffer.concat([first, second]))).toBe(true);
  // What is not read by its user is read all the same.
  expect(await read(async () => "no need")).toBe("no need");
  const refuses = async (all: AsyncIterable<Uint8Array>) => {
    for await (const _chunk of all) throw new StrataError("Invalid", "no archive");
  };
  await expect(read(refuses)).rejects.toThrow("no archive");
  await expect(read(async () => {}, sizeBytes + 1)).rejects.toMatchObject({ code: "Internal" });
  await backups.forget(repository, ["backup-root"], signal);
  await expect(read(async () => {})).rejects.toMatchObject({ code: "Internal" });
}, 300_000);

it("finds a flipped bit, and saves anew what was lost with it", async () => {
  const data = join(top, "root/school/data");
  const packs: { path: string; size: number }[] = [];
  for (const name of await readdir(data, { recursive: true })) {
    const found = await stat(join(data, name));
    if (found.isFile()) packs.push({ path: join(data, name), size: found.size });
  }
  const [largest] = packs.sort((a, b) => b.size - a.size);
  await using file = await open(largest?.path ?? "", "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, 100_000);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, 100_000);
  const { intact, mended, message } = await backups.examine(repository, signal);
  expect({ intact, mended }).toEqual({ intact: false, mended: true });
  expect(message).not.toBe("");
  // Deleting goes on meanwhile, and the next save stores anew what was lost.
  await backups.forget(repository, ["backup-none"], signal);
  const anew = await save("backup-d");
  expect(anew.addedBytes).toBeGreaterThan(100_000);
  await backups.withScratch("anew", async (path) => {
    await backups.restore(repository, anew.snapshot, { path, sizeBytes: diskBytes }, { signal });
    expect((await readFile(path)).equals(await readFile(disk))).toBe(true);
  });
  expect(await backups.examine(repository, signal)).toMatchObject({ intact: true });
}, 300_000);

it("reads single files of an xfs, and follows no link out of it", async () => {
  const path = join(top, "xfs");
  await writeFile(path, "");
  await truncate(path, 320 * mib);
  await run("mkfs.xfs", ["-q", path]);
  // Its last changes are in its journal only, as in every snapshot.
  const fill = `mount -o loop,nouuid "$1" "$2"; cd "$2"
    mkdir in; head -c 9000000 /dev/urandom > in/data; ln -s /etc/passwd link; ln -s /etc out; mkfifo pipe
    sync; sha256sum in/data; echo late > late; sync late; xfs_io -x -c shutdown .; cd /; umount "$2"`;
  const inOwnMounts = [
    "--mount",
    "--propagation",
    "private",
    "sh",
    "-euc",
    fill,
    "sh",
    path,
    join(top, "root"),
  ];
  const { stdout } = await run("unshare", inOwnMounts);
  const read = async (wanted: string) => {
    const pieces: Uint8Array[] = [];
    const use = async (bytes: AsyncIterable<Uint8Array>) => {
      for await (const piece of bytes) pieces.push(piece);
    };
    await readRestoredFile({ path, fileSystem: "xfs" }, wanted, use, signal);
    return Buffer.concat(pieces);
  };
  expect(hash("sha256", await read("/in/data"))).toBe(stdout.split(" ")[0]);
  expect(String(await read("late"))).toBe("late\n");
  await expect(read("/none")).rejects.toMatchObject({ code: "NotFound" });
  for (const wanted of ["/link", "/out/passwd", "/pipe", "/in", "/", "/in/../in/data"]) {
    await expect(read(wanted), wanted).rejects.toMatchObject({ code: "Invalid" });
  }
  expect((await run("losetup", ["--associated", path])).stdout).toBe("");
});
