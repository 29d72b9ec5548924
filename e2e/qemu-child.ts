/** Makes and starts a guest, or attaches a card, as a daemon would, in a process that the test kills on the way. */
import type { JsonObject } from "../src/core/json.ts";
import type { GuestNic, GuestSpec } from "../src/drivers/driver.ts";
import type { HostConfig } from "../src/host/host-config.ts";
import { openTestDriver } from "./qemu-test-driver.ts";

interface Task {
  host: HostConfig;
  spec: GuestSpec;
  /** Instead of a start, a card to attach. */
  handle?: JsonObject;
  nic?: GuestNic;
}
const { host, spec, handle, nic } = JSON.parse(process.argv[2] ?? "{}") as Task;
const driver = await openTestDriver(host);
console.log("begins");
const { signal } = new AbortController();
if (handle && nic) await driver.cards?.attach(handle, nic, signal);
else await driver.start(await driver.create(spec, signal), signal);
console.log("done");
