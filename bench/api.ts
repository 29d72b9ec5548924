/**
 * What the control plane itself costs: the time until a durable create is acknowledged (instances that stay stopped, so
 * nothing but the API works), and the memory of an idle daemon.
 *
 *   node bench/api.ts [--count 500]
 */
import { readFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { TestDaemon } from "../e2e/test-daemon.ts";
import { tinyImage } from "../e2e/tiny-image.ts";
import { systemClock } from "../src/core/clock.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { median, percentile } from "./statistics.ts";

const { values } = parseArgs({ options: { count: { type: "string", default: "200" } } });
const count = Number(values.count);
const project = "default";

async function residentMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024;
}

const daemon = await TestDaemon.create();
try {
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  const pid = daemon.pid() ?? 0;
  const times: number[] = [];
  for (let index = 0; index < count; index++) {
    const began = systemClock.monotonicMs();
    await daemon.client.create(instanceKind, {
      project,
      name: `bench-${index}`,
      spec: { type: "container", image: "tiny", memoryMib: 16, diskMib: 64, power: "stopped" },
    });
    times.push(systemClock.monotonicMs() - began);
  }
  console.log(`| durable create acknowledged (${count} in a row) | median ms | p99 ms |\n|---|---|---|`);
  console.log(
    `| API over the Unix socket | ${median(times).toFixed(2)} | ${percentile(times, 0.99).toFixed(2)} |\n`,
  );
  const busy = await residentMib(pid);
  for (let index = 0; index < count; index++) {
    await daemon.client.delete(instanceKind, { project, name: `bench-${index}` });
  }
  await daemon.kill();
  await daemon.start();
  await systemClock.sleep(30_000); // idle: start-up is over
  const idle = await residentMib(daemon.pid() ?? 0);
  console.log(`| resident memory of the daemon | MiB |\n|---|---|`);
  console.log(`| idle, 30 s after its start | ${idle.toFixed(0)} |`);
  console.log(`| with ${count} instances, right after creating them | ${busy.toFixed(0)} |`);
} finally {
  await daemon.dispose();
}
