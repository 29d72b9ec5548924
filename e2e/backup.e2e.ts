/**
 * Backups by the command line, with restic for real: a container writes to a volume; what is backed up, damaged, restored,
 * kept and removed is looked at from outside.
 */
import { randomBytes } from "node:crypto";
import { open, readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { run } from "../src/host/run.ts";
import { type Backup, backupKind } from "../src/kinds/backup.ts";
import { backupRepositoryKind } from "../src/kinds/backup-repository.ts";
import { backupScheduleKind } from "../src/kinds/backup-schedule.ts";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { volumeKind } from "../src/kinds/volume.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { TestDaemon, until } from "./test-daemon.ts";

const project = "default";
const dataMib = 64;
let before: Snapshot;
let daemon: TestDaemon;
let directory: string;
let keyFile: string;

beforeAll(async () => {
  before = await takeSnapshot();
  daemon = await TestDaemon.create();
  await daemon.start();
  directory = join(daemon.settings.backupDirs[0] ?? "", "school");
  keyFile = join(await daemon.scratch("files"), "nas.key");
  const source = { type: "debian" as const, suite: "bookworm" as const };
  await daemon.client.create(imageKind, { project, name: "debian", spec: { source } });
  const spec = { image: "debian", diskMib: 1024, memoryMib: 256, type: "container" as const };
  await daemon.client.create(instanceKind, { project, name: "box", spec });
  await strata(
    "volume",
    "create",
    "records",
    "--size",
    "4GiB",
    "--instance",
    "box",
    "--path",
    "/srv/records",
  );
  const ready = async () =>
    (await daemon.client.require(instanceKind, { project, name: "box" })).status.state === "running";
  await until("the container runs", ready, 900_000, 200);
  await until("it has the volume", async () => (await state("records")) === "attached", 60_000, 100);
}, 1_200_000);

afterAll(async () => {
  for (const kind of [backupScheduleKind, backupKind, backupRepositoryKind, volumeKind] as const) {
    const named = kind as typeof volumeKind;
    for (const { metadata, spec } of (await daemon?.client.list(named, { project }))?.items ?? []) {
      if (spec.role === "root") continue;
      if (named === volumeKind) await daemon.strata(["volume", "detach", metadata.name, "-p", project]);
      await daemon.client.delete(named, { project, name: metadata.name });
    }
    const gone = async () =>
      (await daemon.client.list(named, { project })).items.every(({ spec }) => spec.role === "root");
    await until(`all ${kind.plural} are gone`, gone, 60_000, 100);
  }
  await daemon?.dispose();
  expect(await findLeaks(before, daemon.marks)).toEqual([]);
}, 300_000);

const state = async (name: string) =>
  (await daemon.client.require(volumeKind, { project, name })).status.state;
const backup = (name: string): Promise<Backup> => daemon.client.require(backupKind, { project, name });

function strata(...args: string[]) {
  return daemon.ok([...args, "-p", project], { timeoutMs: 120_000 });
}

async function refused(...args: string[]): Promise<string> {
  const { status, stderr } = await daemon.strata([...args, "-p", project], { timeoutMs: 120_000 });
  expect(status).not.toBe(0);
  return stderr;
}

async function inside(script: string): Promise<string> {
  return (await strata("exec", "box", "--", "sh", "-ec", script)).stdout.trim();
}

async function sizeOf(path: string): Promise<number> {
  return Number((await run("du", ["-sb", path])).stdout.split("\t")[0]);
}

it("saves a volume that is written to, and then only what changed", async () => {
  await strata("backup-repository", "create", "nas", "--directory", directory, "--new-key", keyFile);
  expect((await stat(keyFile)).mode & 0o777).toBe(0o600);
  await inside(
    `cd /srv/records; head -c ${dataMib}M /dev/urandom > data; echo 1,7 > grades.csv; sha256sum data > sum; sync`,
  );
  await strata("backup", "create", "records", "first");
  const first = (await backup("first")).status;
  expect(first).toMatchObject({ state: "ready", consistency: "frozen", readBytes: 4 * 1024 ** 3 });
  expect(first.addedBytes).toBeGreaterThan(dataMib * 1024 ** 2);
  expect(first.addedBytes).toBeLessThan(dataMib * 1024 ** 2 * 1.5);

  const size = await sizeOf(directory);
  await inside(
    "cd /srv/records; dd if=/dev/urandom of=data bs=1M seek=8 count=4 conv=notrunc 2>/dev/null; sha256sum data > sum; sync",
  );
  await strata("backup", "create", "records", "second");
  const second = (await backup("second")).status;
  // What changed, rounded to restic's pieces of about 1 MiB on both sides, and the file system's own accounts.
  expect(second.addedBytes).toBeLessThan(16 * 1024 ** 2);
  expect((await sizeOf(directory)) - size).toBeLessThan(16 * 1024 ** 2);
  console.log(
    `first ${first.addedBytes} bytes in ${first.tookMs} ms, second ${second.addedBytes} in ${second.tookMs} ms`,
  );
});

it("restores under a new name, and single files", async () => {
  await strata("backup", "restore", "first", "--as", "again");
  expect(await state("again")).toBe("available");
  expect(await state("records")).toBe("attached");
  await strata("volume", "attach", "again", "box", "--path", "/srv/again");
  expect(await inside("cd /srv/again; sha256sum -c sum; cat grades.csv")).toBe("data: OK\n1,7");
  expect(await inside("cmp /srv/again/data /srv/records/data || echo differ")).toMatch(/differ/);
  await strata("volume", "detach", "again");

  expect((await strata("backup", "cat", "second", "/grades.csv")).stdout).toBe("1,7\n");
  const target = join(await daemon.scratch("files"), "sum");
  await strata("backup", "restore-file", "second", "sum", target);
  expect(await readFile(target, "utf8")).toBe(`${await inside("cat /srv/records/sum")}\n`);
  expect(await refused("backup", "cat", "second", "/nothing")).toMatch(/there is no \/nothing in the backup/);
  expect(await refused("backup", "cat", "second", "/../etc/passwd")).toMatch(/no path inside the volume/);
});

it("opens nothing with a wrong key, and lies nowhere but where the operator allows", async () => {
  const wrong = await daemon.writeFile("wrong.key", `${randomBytes(32).toString("base64url")}\n`);
  const key = (await readFile(keyFile, "utf8")).trim();
  await daemon.ok(["project", "create", "other"]);
  const to = (path: string) =>
    daemon.strata(
      ["backup-repository", "create", "x", "--directory", path, "--key-file", wrong, "-p", "other"],
      { timeoutMs: 60_000 },
    );
  const taken = await to(directory);
  expect(taken.stderr).toMatch(/there is a backup repository already/);
  const outside = await to("/etc/strata-test");
  expect(outside.stderr).toMatch(/not one that backups may lie in/);
  await daemon.ok(["backup-repository", "delete", "x", "-p", "other", "--yes"]);

  expect(await refused("backup-repository", "set-key", "nas", "--key-file", wrong)).toMatch(
    /the key does not open the repository/,
  );
  expect(await refused("backup", "create", "records", "never", "--timeout", "5")).not.toContain(key);
  await strata("backup", "delete", "never", "--yes");
  await strata("backup-repository", "set-key", "nas", "--key-file", keyFile);
  const shown = (await strata("backup-repository", "show", "nas", "--json")).stdout;
  expect(shown).toContain("(hidden)");
  for (const text of [shown, await daemon.log()]) expect(text).not.toContain(key);
});

it("goes on with a backup that kill -9 interrupted, and saves it once", async () => {
  await daemon.client.create(backupKind, {
    project,
    name: "third",
    spec: { volume: "records", repository: "nas" },
  });
  await until("it is being saved", async () => (await backup("third")).status.state === "saving", 30_000, 5);
  await daemon.kill();
  await daemon.start();
  await until("it is complete", async () => (await backup("third")).status.state === "ready", 60_000, 100);
  await strata("backup", "verify", "third");
  expect((await backup("third")).status.conditions).toMatchObject([{ type: "Verified", status: "true" }]);
});

it("removes what a schedule does not keep, and nothing that another backup needs", async () => {
  const label = { "strata/backup-schedule": "nightly" };
  for (const name of ["first", "second", "third"]) {
    await daemon.client.patch(backupKind, { project, name }, { labels: label });
  }
  await strata("backup-schedule", "create", "nightly", "records", "--keep-last", "2");
  await until(
    "the oldest is gone",
    async () => (await daemon.client.list(backupKind, { project })).items.length === 2,
    60_000,
    100,
  );
  await strata("backup", "verify", "second");
  expect((await backup("second")).status.conditions).toMatchObject([{ type: "Verified", status: "true" }]);
});

it("finds a flipped bit", async () => {
  const packs: { path: string; size: number }[] = [];
  for (const name of await readdir(join(directory, "data"), { recursive: true })) {
    const path = join(directory, "data", name);
    const found = await stat(path);
    if (found.isFile()) packs.push({ path, size: found.size });
  }
  const [largest] = packs.sort((a, b) => b.size - a.size);
  await using file = await open(largest?.path ?? "", "r+");
  const byte = Buffer.alloc(1);
  await file.read(byte, 0, 1, 100_000);
  await file.write(Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, 100_000);
  expect(await refused("backup", "verify", "third")).toMatch(/is not whole/);
  expect((await backup("third")).status.conditions).toMatchObject([{ type: "Verified", status: "false" }]);
  expect(await refused("backup-repository", "check", "nas")).toMatch(/is damaged/);
});
