/** Makes and starts a guest, as a daemon would, in a process that the test kills on the way. */
import type { GuestSpec } from "../src/drivers/driver.ts";
import type { HostConfig } from "../src/host/host-config.ts";
import { openTestDriver } from "./qemu-test-driver.ts";

const { host, spec } = JSON.parse(process.argv[2] ?? "{}") as { host: HostConfig; spec: GuestSpec };
const driver = await openTestDriver(host);
console.log("begins");
const { signal } = new AbortController();
await driver.start(await driver.create(spec, signal), signal);
console.log("done");
