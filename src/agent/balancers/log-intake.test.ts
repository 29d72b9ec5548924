import { constants } from "node:fs";
import { mkdtempDisposable, open as openFile, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { ensureLogPipe } from "../../host/balancers/log-pipe.ts";
import { burstMs, LogIntake, linesPerSecond } from "./log-intake.ts";

const open: { close(): Promise<void> }[] = [];
afterEach(async () => {
  for (const one of open.splice(0)) await one.close();
});

const noWait = constants.O_RDWR | constants.O_NONBLOCK;

/** An intake whose time stands still until it is moved, and HAProxy's end of the pipe: it has it open for both. */
async function connected(before = "") {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-log-intake-"));
  const path = join(directory.path, "log.pipe");
  await ensureLogPipe(path);
  const haproxy = await openFile(path, noWait);
  await haproxy.write(before);
  const clock = new VirtualClock(0);
  const got = { access: 0, latencies: [] as number[], notices: [] as string[] };
  const intake = new LogIntake(
    {
      onAccess: () => got.access++,
      onLatency: ({ totalMs }) => got.latencies.push(totalMs),
      onNotice: (line) => got.notices.push(line),
    },
    clock,
  );
  await intake.listen(path);
  open.push({
    close: async () => {
      intake.close();
      await haproxy.close();
    },
  });
  return { clock, got, haproxy };
}

test("lines of each sort, also when they come in pieces", async () => {
  const { clock, got, haproxy } = await connected();
  await haproxy.write('R 1 2 a one.b 200 1 2 3 "GET /é');
  await expect.poll(() => clock.nextAt()).toBe(20);
  await clock.advance(20);
  await haproxy.write(' HTTP/1.1"\nL one.b 7\nL one.b -1\nServer targets/one is DOWN\n');
  await expect
    .poll(() => got)
    .toEqual({
      access: 1,
      latencies: [7, -1],
      notices: ["Server targets/one is DOWN"],
    });
});

test("what was written while nobody read comes first", async () => {
  const { clock, got, haproxy } = await connected("L one.b 1\n");
  await expect.poll(() => got.latencies).toEqual([1]);
  await clock.advance(20);
  await haproxy.write("L one.b 2\n");
  await expect.poll(() => got.latencies).toEqual([1, 2]);
});

test("beyond its rate it takes nothing until the time is there; the pipe is full meanwhile, and then it goes on", async () => {
  const { clock, got, haproxy } = await connected();
  const wanted = linesPerSecond * 20;
  const line = "L one.b 1\n";
  /** As HAProxy does: a line that does not fit is dropped. */
  const fill = async () => {
    let written = 0;
    for (; await isWritten(haproxy.write(line.repeat(100))); written += 100);
    return written;
  };
  let sent = await fill();
  // What one look at the pipe may bring at most.
  const chunk = (64 * 1024) / line.length;
  while (got.latencies.length < wanted && clock.now() < 60_000) {
    // It looks only while it waits for nothing.
    await expect.poll(() => clock.nextAt() !== undefined).toBe(true);
    const allowed = ((clock.now() + burstMs) / 1000) * linesPerSecond + chunk;
    expect(got.latencies.length).toBeLessThanOrEqual(allowed);
    sent += await fill();
    await clock.advance(20);
  }
  expect(got.latencies.length).toBeGreaterThanOrEqual(wanted);
  expect(got.latencies.length).toBeLessThanOrEqual(sent);
  expect(got.notices).toEqual([]);
  expect(clock.now()).toBeGreaterThan((wanted * 1000) / linesPerSecond / 2);
});

test("other users cannot open the pipe; whatever else is at its place is replaced", async () => {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-log-intake-"));
  const path = join(directory.path, "log.pipe");
  await writeFile(path, "");
  await Promise.all([ensureLogPipe(path), ensureLogPipe(path)]);
  const found = await stat(path);
  expect([found.isFIFO(), found.mode & 0o777]).toEqual([true, 0o600]);
});

function isWritten(write: Promise<unknown>): Promise<boolean> {
  return write.then(
    () => true,
    (error: NodeJS.ErrnoException) => {
      if (error.code !== "EAGAIN") throw error;
      return false;
    },
  );
}
