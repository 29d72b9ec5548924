/** Creates and starts one container, or attaches a card, and waits to be killed: see LxcBench.crashWhileStarting. */
import { once } from "node:events";
import { createInterface } from "node:readline";
import { systemClock } from "../src/core/clock.ts";
import { silentLogger } from "../src/core/logger.ts";
import { systemRandom } from "../src/core/random.ts";
import { createLxcDriver } from "../src/drivers/lxc/lxc-driver.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";

const signal = new AbortController().signal;
const [line] = await once(createInterface({ input: process.stdin }), "line");
const { host, spec, handle, nic } = JSON.parse(line);
const driver = createLxcDriver({
  host,
  cgroups: await openCgroups({ clock: systemClock }),
  clock: systemClock,
  random: systemRandom,
  logger: silentLogger,
});
process.stdout.write("ready\n");
if (nic) await driver.cards?.attach(handle, nic, signal);
else await driver.start(await driver.create(spec, signal), signal);
await once(process.stdin, "end");
