/** Calls a docker driver and waits to be killed: see DockerBench.crash. */
import { once } from "node:events";
import { createInterface } from "node:readline";
import { systemClock } from "../src/core/clock.ts";
import { silentLogger } from "../src/core/logger.ts";
import { systemRandom } from "../src/core/random.ts";
import { createDockerDriver } from "../src/drivers/docker/docker-driver.ts";

const signal = new AbortController().signal;
const [line] = await once(createInterface({ input: process.stdin }), "line");
const { host, spec, handle, nic } = JSON.parse(line);
const driver = createDockerDriver({
  host,
  socketPath: host.socketPath,
  clock: systemClock,
  random: systemRandom,
  logger: silentLogger,
});
await driver.list(); // what is loaded with the first use is loaded
process.stdout.write("ready\n");
if (nic === undefined) await driver.start(await driver.create(spec, signal), signal);
else await driver.cards?.attach(handle, nic, signal);
await once(process.stdin, "end");
