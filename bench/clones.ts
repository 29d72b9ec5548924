/**
 * Many instances at once from one image, and from one snapshot of an instance that has written 20 MiB: how long until all run
 * and until all answer over the network, and what they take on disk beside one alone. The daemon's directory is on a file
 * system of its own, in a file, so that blocks that are shared count once. Needs root, loop devices, xfsprogs, btrfs-progs.
 *
 *   node bench/clones.ts [--count 50] [--on ext4,xfs,btrfs] [--type container,vm] [--from image,snapshot]
 */
import { chmod, mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { addressOf, allowMany, httpGet, removeAll, TestDaemon, until } from "../e2e/test-daemon.ts";
import { tinyImage } from "../e2e/tiny-image.ts";
import { systemClock } from "../src/core/clock.ts";
import { run } from "../src/host/run.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { snapshotKind } from "../src/kinds/snapshot.ts";

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "50" },
    on: { type: "string", default: "ext4,xfs,btrfs" },
    type: { type: "string", default: "container,vm" },
    from: { type: "string", default: "image,snapshot" },
  },
});
const count = Number(values.count);
const project = "default";
/** Writes once, and says so. */
const userData = `#!/bin/busybox sh
export PATH=/bin:/sbin
[ -e /data ] || { dd if=/dev/urandom of=/data.new bs=1M count=20; sync; mv /data.new /data; sync; }
echo written > /run/www/written
`;

const directory = await mkdtemp("/var/tmp/strata-bench-clones-");
await chmod(directory, 0o711); // containers' users pass through it

async function measureOn(fileSystem: string): Promise<void> {
  const mount = join(directory, fileSystem);
  await mkdir(mount);
  const make = 'truncate -s 16G "$1.img"; mkfs.$2 -q "$1.img"; mount -o loop "$1.img" "$1"; chmod 711 "$1"';
  await run("sh", ["-euc", make, "sh", mount, fileSystem]);
  const daemon = await TestDaemon.create({}, mount);
  try {
    await daemon.start();
    await allowMany(daemon);
    await daemon.ok(["image", "import", "tiny", await tinyImage(), "-p", project]);
    for (const type of values.type.split(",")) await measureType(daemon, mount, fileSystem, type);
  } finally {
    await daemon.dispose();
    await run("umount", [mount]);
  }
}

async function measureType(
  daemon: TestDaemon,
  mount: string,
  fileSystem: string,
  type: string,
): Promise<void> {
  const scene = new Scene(daemon, mount, `${fileSystem}, ${type}`);
  const spec = { type, image: "tiny", diskMib: 128, memoryMib: type === "vm" ? 96 : 32 };
  const from = values.from.split(",");
  if (from.includes("image")) await scene.measure("image", spec);
  if (from.includes("snapshot")) {
    const written = { ...spec, userData };
    await daemon.client.create(instanceKind, { project, name: "source", spec: written });
    await scene.allAnswer(["source"], "written");
    await daemon.ok(["snapshot", "create", "source", "filled", "--instance", "-p", project]);
    await scene.measure("snapshot", { ...written, source: { snapshot: "filled" } });
    await removeAll(daemon, project, [snapshotKind, instanceKind]);
  }
}

class Scene {
  readonly #daemon: TestDaemon;
  readonly #mount: string;
  readonly #title: string;

  constructor(daemon: TestDaemon, mount: string, title: string) {
    this.#daemon = daemon;
    this.#mount = mount;
    this.#title = title;
  }

  async measure(from: string, spec: object): Promise<void> {
    const create = (name: string) =>
      this.#daemon.client.create(instanceKind, { project, name, spec: spec as never });
    const empty = await this.#usedMib();
    const first = systemClock.monotonicMs();
    await create(`${from}-first`);
    await this.allAnswer([`${from}-first`], "index.html");
    const alone = systemClock.monotonicMs() - first;
    const one = await this.#usedMib();
    const names = Array.from({ length: count }, (_, index) => `${from}-${index}`);
    const begun = systemClock.monotonicMs();
    await Promise.all(names.map(create));
    await this.#allRun(names);
    const ran = systemClock.monotonicMs();
    await this.allAnswer(names, "index.html");
    const answered = systemClock.monotonicMs();
    const all = await this.#usedMib();
    const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
    console.log(
      `${this.#title} of ${from}: one takes ${(one - empty).toFixed(1)} MiB, answers after ${seconds(alone)}; ${count} at once ` +
        `ran after ${seconds(ran - begun)}, answered after ${seconds(answered - begun)}, take ${(all - one).toFixed(1)} MiB more`,
    );
    for (const name of [...names, `${from}-first`])
      await this.#daemon.client.delete(instanceKind, { project, name });
    const gone = async () =>
      (await this.#daemon.instances(project)).every(({ metadata }) => metadata.name === "source");
    await until("they are gone", gone, 120_000, 100);
  }

  /** What is taken of the whole file system, everything written. */
  async #usedMib(): Promise<number> {
    await run("sync", ["-f", this.#mount], { timeoutMs: 120_000 });
    const { stdout } = await run("df", ["--output=used", "-k", this.#mount]);
    return Number(stdout.trim().split("\n").at(-1)) / 1024;
  }

  async #allRun(names: readonly string[]): Promise<void> {
    const run = async () => {
      const instances = (await this.#daemon.instances(project)).filter(({ metadata }) =>
        names.includes(metadata.name),
      );
      const failed = instances.find(({ status }) => status.state === "failed");
      if (failed) throw new Error(`${failed.metadata.name}: ${failed.status.message}`);
      return instances.length === names.length && instances.every(({ status }) => status.state === "running");
    };
    await until(`${names.length} run`, run, 420_000, 50);
  }

  async allAnswer(names: readonly string[], path: string): Promise<void> {
    await this.#allRun(names);
    const instances = (await this.#daemon.instances(project)).filter(({ metadata }) =>
      names.includes(metadata.name),
    );
    for (const instance of instances) {
      const answers = async () => {
        const { status } = await httpGet(`http://${addressOf(instance)}/${path}`, 5_000);
        return status === 200;
      };
      await until(`${instance.metadata.name} answers`, answers, 420_000, 50);
    }
  }
}

try {
  for (const fileSystem of values.on.split(",")) await measureOn(fileSystem);
} finally {
  await rm(directory, { recursive: true });
}
