/** Repositories in S3, with a real service behind them: OpenStack Swift, on loopback. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import type { Backups, RepositoryAccess } from "../src/host/backups/backups.ts";
import { createBackups } from "../src/host/backups/restic-backups.ts";
import { parseNetwork } from "../src/host/egress/allowed-addresses.ts";
import { findLeaks, type Snapshot, takeSnapshot } from "./leaks.ts";
import { S3Service } from "./s3-service.ts";

const { signal } = new AbortController();
const mib = 1024 ** 2;
const diskBytes = 32 * mib;
let before: Snapshot;
let top: string;
let disk: string;
let service: S3Service;
let backups: Backups;
let repository: RepositoryAccess;
let id: string;
let snapshot: string;

type S3Place = Extract<RepositoryAccess["place"], { type: "s3" }>;

function at(change: Partial<S3Place>): RepositoryAccess {
  const { endpoint, accessKeyId, secretAccessKey, region } = service;
  const place = { type: "s3", endpoint, accessKeyId, secretAccessKey, region, bucket: "school" } as const;
  return { uid: "r", key: "a-key-of-the-tests-own", place: { ...place, prefix: "strata", ...change } };
}

function open(networks: readonly string[]): Backups {
  return createBackups({
    directory: join(top, "state"),
    roots: [],
    s3Authorities: service.authorities,
    s3Networks: networks.flatMap((network) => parseNetwork(network) ?? []),
    cgroups: { ensure: async () => {}, procsFiles: () => [] },
    group: "none",
  });
}

/** What went wrong, and how long that took. */
async function failure(
  attempt: Promise<unknown>,
): Promise<{ code: string; message: string; tookMs: number }> {
  const begun = systemClock.monotonicMs();
  const error = await attempt.then(
    () => ({ code: "none", message: "it succeeded" }),
    (thrown) => thrown,
  );
  const tookMs = Math.round(systemClock.monotonicMs() - begun);
  console.log(`${error.code} after ${tookMs} ms: ${error.message} ${error.detail ?? ""}`);
  expect(JSON.stringify([error, String(error.detail)])).not.toContain(service.secretAccessKey);
  return { code: error.code, message: error.message, tookMs };
}

beforeAll(async () => {
  before = await takeSnapshot();
  top = await mkdtemp(join(tmpdir(), "strata-s3-backups-"));
  disk = join(top, "disk");
  await writeFile(disk, randomBytes(8 * mib));
  await truncate(disk, diskBytes);
  service = await S3Service.start();
  backups = open(["127.0.0.1"]);
  repository = at({});
}, 120_000);

afterAll(async () => {
  await service?.dispose();
  await rm(top, { recursive: true, force: true });
  expect(await findLeaks(before, [top])).toEqual([]);
}, 60_000);

it("makes the bucket and the repository, and finds both again", async () => {
  id = await backups.open(repository, undefined, signal);
  expect(await backups.open(repository, id, signal)).toBe(id);
}, 120_000);

it("saves, moves nothing twice, gives back every byte, and is intact when all of it is read", async () => {
  const first = await backups.save(repository, disk, "backup-a", { signal });
  expect(first.addedBytes).toBeGreaterThan(8 * mib);
  const second = await backups.save(repository, disk, "backup-b", { signal });
  expect(second.addedBytes).toBeLessThan(mib);
  snapshot = second.snapshot;
  await backups.forget(repository, ["backup-a"], signal);
  expect(await backups.examine(repository, signal)).toEqual({ intact: true, mended: true, message: "" });
  await backups.withScratch("test", async (path) => {
    await backups.restore(repository, snapshot, { path, sizeBytes: diskBytes }, { signal });
    expect((await readFile(path)).equals(await readFile(disk))).toBe(true);
  });
}, 240_000);

it.each([
  ["secret", () => at({ secretAccessKey: "another-secret" })],
  ["access key", () => at({ accessKeyId: "school:nobody" })],
])(
  "a wrong %s is said at once, and opens nothing",
  async (_what, access) => {
    for (const attempt of [
      () => backups.open(access(), id, signal),
      () => backups.save(access(), disk, "backup-w", { signal }),
      () => backups.examine(access(), signal),
    ]) {
      const { code, message, tookMs } = await failure(attempt());
      expect({ code, message }).toEqual({
        code: "Forbidden",
        message: expect.stringContaining("the S3 service refuses the access key"),
      });
      expect(tookMs).toBeLessThan(30_000);
    }
  },
  300_000,
);

it("a bucket or a prefix that is gone is not made anew once it was known", async () => {
  for (const gone of [at({ bucket: "gone" }), at({ prefix: "gone" })]) {
    const found = await failure(backups.open(gone, id, signal));
    expect(found).toMatchObject({
      code: "Unavailable",
      message: expect.stringMatching(/there is no repository/),
    });
  }
  const key = { ...repository, key: "not-the-key-that-opens-it" };
  expect(await failure(backups.open(key, id, signal))).toMatchObject({ code: "Forbidden" });
}, 240_000);

it("a service inside is out of reach unless the operator has named its network", async () => {
  const { code, message } = await failure(open([]).open(repository, id, signal));
  expect(code).toBe("Forbidden");
  expect(message).toContain("127.0.0.1 is an internal address");
});

it("follows nobody who says that the service is elsewhere", async () => {
  const asked: string[] = [];
  const elsewhere = createServer((request, answer) => {
    asked.push(String(request.url));
    answer.end();
  });
  await once(elsewhere.listen(0, "127.0.0.1"), "listening");
  const { port } = elsewhere.address() as AddressInfo;
  const sender = createServer((_request, answer) => {
    answer.writeHead(307, { location: `http://127.0.0.1:${port}/secret` }).end();
  });
  await once(sender.listen(0, "127.0.0.1"), "listening");
  const endpoint = `http://127.0.0.1:${(sender.address() as AddressInfo).port}`;
  const stop = AbortSignal.timeout(5_000);
  await failure(backups.open(at({ endpoint }), id, stop));
  for (const server of [sender, elsewhere]) {
    server.closeAllConnections();
    server.close();
  }
  expect(asked).toEqual([]);
}, 60_000);

it("a service that is gone is said to be", async () => {
  await service.stop();
  const message = expect.stringContaining("the S3 service does not answer");
  expect(await failure(backups.open(repository, id, signal))).toMatchObject({ code: "Unavailable", message });
}, 700_000);
