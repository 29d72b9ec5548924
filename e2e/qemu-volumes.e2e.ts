/** What only virtual machines promise of their volumes; the rest is in the conformance suite. */
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { isJsonObject } from "../src/core/json.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import type { GuestDriver } from "../src/drivers/driver.ts";
import { QmpClient } from "../src/drivers/qemu/qmp-client.ts";
import { QemuBench } from "./qemu-bench.ts";
import { openTestDriver } from "./qemu-test-driver.ts";

let bench: QemuBench;
let driver: GuestDriver;
const { signal } = new AbortController();

beforeAll(async () => {
  bench = await QemuBench.create();
  driver = await openTestDriver(bench.host);
});
afterAll(async () => {
  for (const guest of await driver.list()) await driver.destroy(guest.handle, signal);
  expect(await bench.leaks()).toEqual([]);
  await bench.dispose();
});

it("holds still while its volumes are copied, and goes on, also when whoever held it was killed", async () => {
  const volume = await bench.volumes.disk();
  const { uid } = await bench.makeGuest({ volumes: [volume] }).then(async (spec) => {
    await driver.start(await driver.create(spec, signal), signal);
    await bench.untilReady(spec.uid, 60_000);
    return spec;
  });
  const handle = { version: driver.handleVersion, uid };
  const state = async () => {
    const path = join(bench.host.runDir, "qemu", uid, "qmp.sock");
    const monitor = await QmpClient.connect(path, { clock: systemClock, connectTimeoutMs: 10_000 });
    try {
      const status = await monitor.execute("query-status");
      return isJsonObject(status) ? status.status : undefined;
    } finally {
      monitor.close();
      await monitor.closed;
    }
  };
  await bench.writeVolume(uid, volume, "kept");
  const { snapshots } = driver;
  if (snapshots?.keptStillBy !== "driver") throw new Error("QEMU keeps its guests still");
  const held = await snapshots.whileStill(handle, state, signal);
  expect(held).toEqual({ result: "paused", guest: "frozen" });
  expect(await state()).toBe("running");
  expect(await bench.readVolume(uid, volume)).toBe("kept");
  await expect(
    snapshots.whileStill(handle, () => Promise.reject(new Error("no space")), signal),
  ).rejects.toThrow("no space");
  expect(await state()).toBe("running");

  // What one that was killed leaves: its mark, and a machine that is stopped.
  await writeFile(join(bench.host.stateDir, "qemu", uid, "still"), "");
  const monitor = await QmpClient.connect(join(bench.host.runDir, "qemu", uid, "qmp.sock"), {
    clock: systemClock,
    connectTimeoutMs: 10_000,
  });
  await monitor.execute("stop");
  monitor.close();
  await monitor.closed;
  await (await openTestDriver(bench.host)).inspect(uid);
  await until(async () => (await state()) === "running", 30_000, "the machine going on");
  await driver.destroy(handle, signal);
  await bench.volumes.drop(volume);
});
