import { mkdtempDisposable } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, expect, test } from "vitest";
import { VirtualClock } from "../../core/virtual-clock.ts";
import { burstMs, LogIntake, linesPerSecond } from "./log-intake.ts";

const open: { close(): void }[] = [];
afterEach(() => {
  for (const one of open.splice(0)) one.close();
});

/** An intake whose time stands still until it is moved, and HAProxy's end of its socket. */
async function connected() {
  await using directory = await mkdtempDisposable(join(tmpdir(), "strata-log-intake-"));
  const path = join(directory.path, "log.sock");
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
  const haproxy = await new Promise<Socket>((resolve) => {
    const socket = connect(path, () => resolve(socket));
  });
  open.push(intake, { close: () => haproxy.destroy() });
  return { clock, got, haproxy };
}

test("lines of each sort, also when they come in pieces", async () => {
  const { clock, got, haproxy } = await connected();
  haproxy.write('R 1 2 a one.b 200 1 2 3 "GET /é');
  await expect.poll(() => clock.nextAt()).toBe(20);
  await clock.advance(20);
  haproxy.write(' HTTP/1.1"\nL one.b 7\nL one.b -1\nServer targets/one is DOWN\n');
  await expect
    .poll(() => got)
    .toEqual({
      access: 1,
      latencies: [7, -1],
      notices: ["Server targets/one is DOWN"],
    });
});

test("beyond its rate it takes nothing until the time is there, and then goes on", async () => {
  const { clock, got, haproxy } = await connected();
  const sent = linesPerSecond * 20;
  haproxy.write("L one.b 1\n".repeat(sent));
  // What one look at the socket may bring at most.
  const chunk = (64 * 1024) / "L one.b 1\n".length;
  while (got.latencies.length < sent && clock.now() < 60_000) {
    // It looks only while it waits for nothing.
    await expect.poll(() => clock.nextAt() !== undefined || got.latencies.length === sent).toBe(true);
    const allowed = ((clock.now() + burstMs) / 1000) * linesPerSecond + chunk;
    expect(got.latencies.length).toBeLessThanOrEqual(allowed);
    await clock.advance(20);
  }
  expect(got.latencies).toHaveLength(sent);
  expect(clock.now()).toBeGreaterThan((sent * 1000) / linesPerSecond / 2);
});
