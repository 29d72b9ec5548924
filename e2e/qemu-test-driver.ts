import { systemClock } from "../src/core/clock.ts";
import { silentLogger } from "../src/core/logger.ts";
import { systemRandom } from "../src/core/random.ts";
import type { GuestDriver } from "../src/drivers/driver.ts";
import { createQemuDriver } from "../src/drivers/qemu/qemu-driver.ts";
import type { HostConfig } from "../src/host/host-config.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";

/** The real driver, with KVM taken as unproven: what the tests assert is the same under both. */
export async function openTestDriver(host: HostConfig): Promise<GuestDriver> {
  const driver = createQemuDriver({
    host,
    cgroups: await openCgroups({ clock: systemClock }),
    clock: systemClock,
    random: systemRandom,
    logger: silentLogger,
    proveKvm: async () => ({ works: false, ms: 0, reason: "not asked by this test" }),
  });
  return driver as unknown as GuestDriver;
}
