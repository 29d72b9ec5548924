/**
 * From the request for a start to the first reply over the network, side by side with other tools, on the same root tree
 * with the same kernel and limits. Rounds are interleaved; the first two are warm-up. Needs root, docker.io,
 * libvirt-daemon-system and libvirt-clients besides Strata's own packages.
 *
 *   node bench/start.ts [--pairs 20] [--only containers|vms]
 */
import { chmod, mkdtemp, rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { addressOf, TestDaemon, until } from "../e2e/test-daemon.ts";
import { tinyImage } from "../e2e/tiny-image.ts";
import { systemClock } from "../src/core/clock.ts";
import { seededRandom } from "../src/core/random.ts";
import { hostKind } from "../src/kinds/host.ts";
import { imageKind } from "../src/kinds/image.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { dockerPeer } from "./peers/docker.ts";
import { libvirtPeer } from "./peers/libvirt.ts";
import { lxcPeer } from "./peers/lxc.ts";
import { firstReply, type Peer, type Workload } from "./peers/peer.ts";
import { median, percentile, speedUp } from "./statistics.ts";

const { values } = parseArgs({
  options: { pairs: { type: "string", default: "20" }, only: { type: "string" } },
});
const pairs = Number(values.pairs);
const warmUpRounds = 2;
const project = "default";

/** Ours: `POST` of an instance to the durable API; everything from there to the reply is timed. */
function strataPeer(daemon: TestDaemon, type: "vm" | "container", workload: Workload): Peer {
  const name = `bench-${type}`;
  return {
    name: `Strata, ${type}`,
    prepare: async () => {},
    async start() {
      const instance = await daemon.client.create(instanceKind, {
        project,
        name,
        spec: { type, image: "tiny", cpus: workload.cpus, memoryMib: workload.memoryMib, diskMib: 256 },
      });
      return { address: addressOf(instance) };
    },
    async stop() {
      await daemon.client.delete(instanceKind, { project, name });
      const gone = async () => (await daemon.client.get(instanceKind, { project, name })) === undefined;
      await until(`${name} is gone`, gone, 60_000);
    },
    dispose: async () => {},
  };
}

async function compare(title: string, peers: readonly Peer[], limitMs: number): Promise<void> {
  const times = new Map(peers.map((peer) => [peer, [] as number[]]));
  try {
    for (const peer of peers) await peer.prepare();
    for (let round = 0; round < pairs + warmUpRounds; round++) {
      for (const peer of peers) {
        const began = systemClock.monotonicMs();
        const { address } = await peer.start();
        await firstReply(address, limitMs);
        const took = systemClock.monotonicMs() - began;
        if (round >= warmUpRounds) times.get(peer)?.push(took);
        await peer.stop();
      }
      if (round % 5 === 4) console.error(`${title}: round ${round + 1} of ${pairs + warmUpRounds}`);
    }
  } finally {
    for (const peer of peers) await peer.dispose();
  }
  report(title, peers, times);
}

function report(title: string, peers: readonly Peer[], times: ReadonlyMap<Peer, number[]>): void {
  const [first] = peers;
  const ours = (first && times.get(first)) ?? [];
  console.log(`\n### ${title}\n`);
  console.log(`${pairs} interleaved rounds; load average ${loadavg()[0]?.toFixed(2)} at the end.\n`);
  console.log(
    "| | median ms | p95 ms | min ms | Strata is faster by (95 % interval) |\n|---|---|---|---|---|",
  );
  for (const peer of peers) {
    const values = times.get(peer) ?? [];
    const { ratio, low, high } = speedUp(ours, values, seededRandom(1));
    const factor = peer === first ? "" : `${ratio.toFixed(2)} (${low.toFixed(2)} to ${high.toFixed(2)})`;
    const figures = [median(values), percentile(values, 0.95), Math.min(...values)];
    console.log(`| ${peer.name} | ${figures.map((value) => value.toFixed(0)).join(" | ")} | ${factor} |`);
  }
}

const daemon = await TestDaemon.create();
const directory = await mkdtemp("/var/tmp/strata-bench-");
await chmod(directory, 0o711); // lxc-start's shifted root passes through
try {
  const tiny = await tinyImage();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", tiny]);
  const image = await daemon.client.require(imageKind, { project, name: "tiny" });
  const files = `${daemon.settings.imageDir}/${image.status.digest?.slice(7)}`;
  const workload: Workload = {
    tar: tiny,
    kernel: `${files}/vmlinuz`,
    initrd: `${files}/initrd`,
    commandLine: "root=/dev/vda rw console=ttyS0 quiet no_timer_check",
    cpus: 1,
    memoryMib: 128,
  };
  if (values.only !== "vms") {
    const rivals = [
      dockerPeer(`${directory}/docker`, workload),
      lxcPeer(`${directory}/lxc`, workload, daemon.settings.idBase),
    ];
    await compare("Containers", [strataPeer(daemon, "container", workload), ...rivals], 30_000);
  }
  if (values.only !== "containers") {
    const [host] = (await daemon.client.list(hostKind, {})).items;
    const kvm = host?.status.drivers.qemu?.facts.accelerator === "kvm";
    const rival = libvirtPeer(`${directory}/libvirt`, workload, `${files}/disk.qcow2`, kvm);
    await compare(
      `Virtual machines (${kvm ? "KVM" : "software emulation, TCG"})`,
      [strataPeer(daemon, "vm", workload), rival],
      120_000,
    );
  }
} finally {
  await daemon.dispose();
  await rm(directory, { recursive: true, force: true });
}
