import { expect, test } from "vitest";
import type { Uid } from "../../core/ids.ts";
import { VirtualClock } from "../../core/virtual-clock.ts";
import type { GuestDriver, GuestSpec } from "../../drivers/driver.ts";
import { createFakeDriver } from "../../drivers/fake/fake-driver.ts";
import { FakeWorld } from "../../drivers/fake/fake-world.ts";
import { checkByCommand } from "./command-check.ts";

const uid = "0123456789abcdef" as Uid;
const never = new AbortController().signal;

async function bench(started = true) {
  const clock = new VirtualClock();
  const driver: GuestDriver = createFakeDriver(new FakeWorld({ clock }));
  const spec = { uid, hostname: "web", nics: [], config: {}, cpus: 1, memoryMib: 64 } as unknown as GuestSpec;
  const handle = await driver.create(spec, never);
  if (started) await driver.start(handle, never);
  const check = (command: string[], signal = never) =>
    checkByCommand(clock, { driver, handle, command }, 1_000, signal);
  return { clock, driver, handle, check };
}

test("exit status 0 is health; any other is told, with what was printed", async () => {
  const { check } = await bench();
  expect(await check(["true"])).toEqual({ healthy: true });
  expect(await check(["false"])).toEqual({ healthy: false, saw: "false exited with 1" });
  expect(await check(["nothing"])).toEqual({
    healthy: false,
    saw: "nothing exited with 127: nothing: not found",
  });
});

test("what does not end in time is killed", async () => {
  const { clock, check } = await bench();
  const outcome = check(["sleep", "10"]);
  await clock.advance(1_000);
  expect(await outcome).toEqual({ healthy: false, saw: "sleep did not end within 1000 ms" });
});

test("a guest that cannot be reached is not healthy", async () => {
  const { check } = await bench(false);
  expect(await check(["true"])).toMatchObject({ healthy: false, saw: expect.stringMatching(/not running/) });
});

test("a driver that cannot run commands says so", async () => {
  const { clock, driver, handle } = await bench();
  const { exec: _, ...rest } = driver as GuestDriver & { exec: unknown };
  const without = { ...rest, name: "plain" } as unknown as GuestDriver;
  const outcome = await checkByCommand(clock, { driver: without, handle, command: ["true"] }, 1_000, never);
  expect(outcome).toMatchObject({ unsupported: true, saw: expect.stringMatching(/the driver plain cannot/) });
});

test("an abort is no outcome", async () => {
  const { check } = await bench();
  const abort = new AbortController();
  const asking = check(["sleep", "10"], abort.signal);
  abort.abort(new Error("enough"));
  await expect(asking).rejects.toThrow("enough");
});
