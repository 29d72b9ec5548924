import { createHash } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Readable } from "node:stream";
import { afterEach, beforeEach, expect, test } from "vitest";
import { systemClock } from "../core/clock.ts";
import { seededRandom, systemRandom } from "../core/random.ts";
import { settle, VirtualClock } from "../core/virtual-clock.ts";
import { type Image, imageKind } from "../kinds/image.ts";
import { systemPrincipal as system } from "./principal.ts";
import { testServices } from "./testing.ts";
import { Uploads, uploadLimits } from "./uploads.ts";

let dir = "";

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), "uploads-"));
});

afterEach(async () => {
  await rm(dir, { recursive: true, force: true });
});

const open = (clock = systemClock) => Uploads.open({ dir, clock, random: systemRandom });

async function* noImages(): AsyncGenerator<Image> {}

test("an upload is whole on the disk, with its checksum, under a name nobody can guess", async () => {
  const uploads = await open();
  const bytes = Buffer.alloc(300_000, "strata");
  const upload = await uploads.receive(
    Readable.from([bytes.subarray(0, 1000), bytes.subarray(1000)]),
    300_000,
  );
  expect(upload.sha256).toBe(createHash("sha256").update(bytes).digest("hex"));
  expect(upload.sizeBytes).toBe(300_000);
  expect(await uploads.has(upload.upload)).toBe(true);
  const { data } = await uploads.read(upload.upload);
  expect(Buffer.concat(await data.toArray())).toEqual(bytes);
  await uploads.remove(upload.upload);
  await uploads.remove(upload.upload);
  expect(await uploads.has(upload.upload)).toBe(false);
});

test("what breaks off, stalls or is too large leaves nothing", async () => {
  const clock = new VirtualClock();
  const uploads = await open(clock);
  const broken = Readable.from(
    (async function* () {
      yield Buffer.from("half");
      throw Object.assign(new Error("aborted"), { code: "ECONNRESET" });
    })(),
  );
  await expect(uploads.receive(broken, undefined)).rejects.toMatchObject({ code: "Invalid" });
  const stalled = new Readable({ read() {} });
  stalled.push("half");
  const receiving = expect(uploads.receive(stalled, undefined)).rejects.toMatchObject({ code: "Timeout" });
  while (clock.nextAt() === undefined) await settle();
  await clock.advance(uploadLimits.stalledMs);
  while (clock.nextAt() !== undefined) await clock.advance(uploadLimits.stalledMs);
  await receiving;
  expect(stalled.destroyed, "the answer can still be sent").toBe(false);
  await expect(uploads.receive(Readable.from([]), uploadLimits.maxBytes + 1)).rejects.toMatchObject({
    code: "Invalid",
    message: expect.stringContaining("64 GiB"),
  });
  expect(await readdir(dir)).toEqual([]);
});

test("only so many are received at once, and a place is free again afterwards", async () => {
  const uploads = await open();
  const streams = Array.from({ length: uploadLimits.parallel }, () => new Readable({ read() {} }));
  const receiving = streams.map((stream) => uploads.receive(stream, undefined));
  await expect(uploads.receive(Readable.from([]), undefined)).rejects.toMatchObject({ code: "Unavailable" });
  for (const stream of streams) stream.push(null);
  await Promise.all(receiving);
  await uploads.receive(Readable.from([]), undefined);
});

test("an earlier process's halves are removed at the start, its whole uploads kept", async () => {
  const first = await open();
  const { upload } = await first.receive(Readable.from([Buffer.from("x")]), undefined);
  await writeFile(join(dir, `${upload}0.partial`), "half");
  const second = await open();
  expect(await readdir(dir)).toEqual([upload]);
  expect(await second.has(upload)).toBe(true);
});

test("names that could lead elsewhere are no uploads", async () => {
  const uploads = await open();
  await writeFile(join(dir, "secret"), "x");
  for (const name of ["secret", "../secret", "", ".", "upload-", `upload-${"0".repeat(31)}/`]) {
    expect(await uploads.has(name)).toBe(false);
    await expect(uploads.read(name)).rejects.toMatchObject({ code: "NotFound" });
    await uploads.remove(name);
  }
  expect(await readdir(dir)).toEqual(["secret"]);
});

test("an upload goes when its image is ready, stays while one waits for it, and lapses unused", async () => {
  const clock = new VirtualClock(Date.parse("2031-01-01T00:00:00Z"));
  const uploads = await Uploads.open({ dir, clock, random: seededRandom(3) });
  const { services } = await testServices({ clock, uploads });
  const send = () => uploads.receive(Readable.from([Buffer.from("x")]), undefined);
  const [waited, used] = [await send(), await send()];
  const create = (name: string, upload: string) =>
    services.resources.create(system, imageKind, {
      project: "default",
      name,
      spec: { source: { type: "upload", upload, format: "tar" } },
    });
  await expect(create("none", "upload-nope")).rejects.toMatchObject({
    fields: [{ path: "spec.source.upload" }],
  });
  await create("waits", waited.upload);
  const built = await send();
  await services.resources.create(system, imageKind, {
    ...{ project: "default", name: "builds" },
    spec: { source: { type: "dockerfile", upload: built.upload } },
  });
  const image = await create("made", used.upload);
  const ref = { project: "default", name: "made" };
  await services.resources.patchStatus(system, imageKind, ref, image.metadata.uid, { state: "ready" });
  await services.prune();
  expect(await uploads.has(used.upload)).toBe(false);
  // The file's time is the real one, which is long before this clock's: it is old at once.
  expect(await uploads.has(waited.upload)).toBe(true);
  expect(await uploads.has(built.upload), "the context of a build").toBe(true);
  await uploads.prune(noImages);
  expect(await uploads.has(waited.upload)).toBe(false);
});
