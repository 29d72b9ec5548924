/** A host without substance, for `npm run dev`: everything works and nothing is there. */
import { FakeBalancers } from "../../sim/fake-balancers.ts";
import { FakeHost } from "../../sim/fake-host.ts";
import { createFakeMeasurements } from "../../sim/fake-measurements.ts";
import { systemClock } from "../core/clock.ts";
import { createFakeDriver } from "../drivers/fake/fake-driver.ts";
import type { HostParts } from "./host-parts.ts";

/** Long enough to see its progress. */
const imageMs = 2_000;

const machine = { cpus: 64, memoryMib: 256 * 1024 };

export function fakeHostParts(name: string): HostParts {
  const host = new FakeHost(name, systemClock);
  host.makeMs = imageMs;
  for (const path of ["/srv/fast", "/srv/archive"]) {
    host.directories.set(path, { fileSystem: "xfs", reflink: true });
  }
  const balancers = new FakeBalancers();
  return {
    drivers: [createFakeDriver(host.world)],
    images: host.images,
    disks: host.disks,
    pools: host.pools,
    networks: host.networks,
    balancers,
    connect: async () => true,
    checks: host.checks,
    measurements: createFakeMeasurements(systemClock, machine),
    machine: { ...machine, facts: { os: "pretended" } },
    close: () => balancers.close(),
  };
}
