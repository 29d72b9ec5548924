/**
 * Many instances at once from one image, and from one snapshot: how long until all run, and what they take on disk beside one
 * alone. Needs root; `node bench/clones.ts [COUNT]`.
 */
import { join } from "node:path";
import { TestDaemon, until } from "../e2e/test-daemon.ts";
import { tinyImage } from "../e2e/tiny-image.ts";
import { systemClock } from "../src/core/clock.ts";
import { run } from "../src/host/run.ts";
import { hostKind } from "../src/kinds/host.ts";
import { instanceKind } from "../src/kinds/instance.ts";

const count = Number(process.argv[2] ?? 50);
const project = "default";
const daemon = await TestDaemon.create();

async function usedKib(): Promise<number> {
  const { stdout } = await run("du", ["-sk", "--one-file-system", join(daemon.settings.stateDir, "volumes")]);
  return Number(stdout.split("\t")[0]);
}

async function allRun(names: readonly string[], limitMs: number): Promise<void> {
  await until(
    `${names.length} run`,
    async () => {
      const instances = (await daemon.instances(project)).filter(({ metadata }) =>
        names.includes(metadata.name),
      );
      const failed = instances.find(({ status }) => status.state === "failed");
      if (failed) throw new Error(`${failed.metadata.name}: ${failed.status.message}`);
      return instances.length === names.length && instances.every(({ status }) => status.state === "running");
    },
    limitMs,
    50,
  );
}

async function measure(title: string, spec: object): Promise<void> {
  const empty = await usedKib();
  const create = (name: string) => daemon.client.create(instanceKind, { project, name, spec: spec as never });
  await create(`${title}-first`);
  await allRun([`${title}-first`], 60_000);
  const one = (await usedKib()) - empty;
  const names = Array.from({ length: count }, (_, index) => `${title}-${index}`);
  const begun = systemClock.monotonicMs();
  await Promise.all(names.map(create));
  await allRun(names, 300_000);
  const seconds = (systemClock.monotonicMs() - begun) / 1000;
  const all = (await usedKib()) - empty - one;
  console.log(
    `${title}: one takes ${one} KiB; ${count} at once ran after ${seconds.toFixed(1)} s, ` +
      `take ${all} KiB, ${Math.round(all / count)} KiB each`,
  );
  for (const name of [...names, `${title}-first`])
    await daemon.client.delete(instanceKind, { project, name });
  await until("they are gone", async () => (await usedKib()) <= empty + 64, 120_000, 100);
}

try {
  await daemon.start();
  // So many of one processor each are more than a small host promises by itself.
  for (const { metadata } of (await daemon.client.list(hostKind, {})).items) {
    await daemon.client.patch(hostKind, { name: metadata.name }, { spec: { cpuOvercommit: 1000 } });
  }
  await daemon.ok(["image", "import", "tiny", await tinyImage(), "-p", project]);
  const spec = { type: "container", image: "tiny", diskMib: 128, memoryMib: 32 };
  await measure("image", spec);
  await daemon.client.create(instanceKind, { project, name: "source", spec: spec as never });
  await allRun(["source"], 60_000);
  await daemon.ok([
    "exec",
    "-p",
    project,
    "source",
    "--",
    "dd",
    "if=/dev/urandom",
    "of=/data",
    "bs=1M",
    "count=20",
  ]);
  await daemon.ok(["snapshot", "create", "source", "filled", "--instance", "-p", project]);
  await measure("snapshot", { ...spec, source: { snapshot: "filled" } });
  await daemon.ok(["snapshot", "delete", "filled", "-p", project, "--yes"]);
} finally {
  await daemon.dispose();
}
