/**
 * How much a network carries, guest to guest and guest to host, side by side with Docker's bridge and with LXC's (made by
 * hand, as lxc-net does it). iperf3 runs in the guests' network namespaces, one TCP stream; rounds are interleaved, the first
 * is warm-up. iperf3 has real-time priority, so that other work of the machine counts little. Needs root, docker.io and iperf3 besides Strata's own packages.
 *
 *   node bench/throughput.ts [--rounds 20] [--seconds 2]
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { guestPid } from "../e2e/guest-pid.ts";
import { addressOf, TestDaemon, until } from "../e2e/test-daemon.ts";
import { tinyImage } from "../e2e/tiny-image.ts";
import { systemClock } from "../src/core/clock.ts";
import { seededRandom } from "../src/core/random.ts";
import { run } from "../src/host/run.ts";
import { instanceKind } from "../src/kinds/instance.ts";
import { networkKind } from "../src/kinds/network.ts";
import { Background } from "./peers/background.ts";
import { keepFirewall } from "./peers/host-firewall.ts";
import { median, speedUp } from "./statistics.ts";

const { values } = parseArgs({
  options: { rounds: { type: "string", default: "20" }, seconds: { type: "string", default: "2" } },
});
const rounds = Number(values.rounds);
const hostNetns = `/proc/${process.pid}/ns/net`;
const port = "15201";
const soon = ["chrt", "--rr", "5"];

/** Each is in it before it has made anything, so that all of it is taken away again. */
const contenders: Contender[] = [];

/** Two guests on one network, and the host's address as they see it. */
interface Contender {
  name: string;
  guests: readonly [Place, Place];
  host: Place;
  dispose(): Promise<void>;
}

interface Place {
  netns: string;
  address: string;
}

async function strata(): Promise<Contender> {
  const daemon = await TestDaemon.create();
  await daemon.start();
  await daemon.ok(["image", "import", "tiny", await tinyImage()]);
  for (const name of ["a", "b"]) {
    const spec = { type: "container" as const, image: "tiny", memoryMib: 128, diskMib: 128 };
    await daemon.client.create(instanceKind, { project: "default", name, spec });
  }
  const running = async () => (await daemon.instances()).every((one) => one.status.state === "running");
  await until("both guests run", running, 60_000);
  const [a, b] = await daemon.instances();
  if (!a || !b) throw new Error("two guests were asked for");
  const places = [];
  for (const one of [a, b]) {
    places.push({ netns: `/proc/${await guestPid(one)}/ns/net`, address: addressOf(one) });
  }
  const { status } = await daemon.client.require(networkKind, { project: "default", name: "default" });
  const host = { netns: hostNetns, address: Object.values(status.hostAddresses)[0] ?? "" };
  return {
    name: "Strata",
    guests: places as unknown as [Place, Place],
    host,
    dispose: () => daemon.dispose(),
  };
}

async function docker(directory: string): Promise<void> {
  const socket = `${directory}/docker.sock`;
  const call = async (...args: string[]) =>
    (await run("/usr/bin/docker", ["-H", `unix://${socket}`, ...args])).stdout;
  const daemon = new Background(
    "/usr/sbin/dockerd",
    [
      ...["-H", `unix://${socket}`, "--data-root", `${directory}/data`, "--exec-root", `${directory}/exec`],
      ...["--pidfile", `${directory}/dockerd.pid`, "--bip", "10.214.2.1/24"],
    ],
    `${directory}/dockerd.log`,
    { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
  );
  const places: Place[] = [];
  const contender = {
    name: "Docker's bridge",
    guests: places as unknown as [Place, Place],
    host: { netns: hostNetns, address: "10.214.2.1" },
    async dispose() {
      await call("rm", "-f", "guest-a", "guest-b").catch(() => {});
      await daemon.stop();
      await run("ip", ["link", "del", "docker0"]).catch(() => {});
    },
  };
  contenders.push(contender);
  await daemon.ready(() => call("version"), 30_000);
  await call("import", await tinyImage(), "bench");
  for (const name of ["guest-a", "guest-b"]) {
    await call("run", "-d", "--name", name, "bench", "/bin/busybox", "sleep", "100000");
    const format = "{{.State.Pid}} {{.NetworkSettings.IPAddress}}";
    const [pid, address = ""] = (await call("inspect", "-f", format, name)).trim().split(" ");
    places.push({ netns: `/proc/${pid}/ns/net`, address });
  }
}

async function lxcBridge(): Promise<Contender> {
  const ip = (...args: string[]) => run("ip", args);
  await ip("link", "add", "benchbr", "type", "bridge");
  await ip("addr", "add", "10.214.5.1/24", "dev", "benchbr");
  await ip("link", "set", "benchbr", "up");
  // Beside Docker's, bridged packets need it: the kernel may have them pass the host's firewall.
  const acceptance = (direction: string) => ["FORWARD", direction, "benchbr", "-j", "ACCEPT"];
  await run("iptables", ["-I", ...acceptance("-i")]);
  await run("iptables", ["-I", ...acceptance("-o")]);
  const places: Place[] = [];
  for (const [index, name] of ["bencha", "benchb"].entries()) {
    await ip("netns", "add", name);
    await ip(
      "link",
      "add",
      `${name}0`,
      "master",
      "benchbr",
      "type",
      "veth",
      "peer",
      "name",
      "eth0",
      "netns",
      name,
    );
    await ip("link", "set", `${name}0`, "up");
    const address = `10.214.5.${index + 2}`;
    await ip("-n", name, "addr", "add", `${address}/24`, "dev", "eth0");
    await ip("-n", name, "link", "set", "eth0", "up");
    places.push({ netns: `/run/netns/${name}`, address });
  }
  return {
    name: "LXC's bridge",
    guests: places as unknown as [Place, Place],
    host: { netns: hostNetns, address: "10.214.5.1" },
    async dispose() {
      for (const name of ["bencha", "benchb"]) await ip("netns", "del", name);
      await ip("link", "del", "benchbr");
    },
  };
}

/** Gbit/s of one TCP stream. */
async function carry(from: Place, to: Place): Promise<number> {
  const server = spawn(
    "nsenter",
    [`--net=${to.netns}`, ...soon, "iperf3", "--forceflush", "-s", "-1", "-B", to.address, "-p", port],
    {
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  await listening(server);
  const args = ["-c", to.address, "-p", port, "-t", values.seconds, "-J"];
  const client = [`--net=${from.netns}`, ...soon, "iperf3", ...args];
  const { stdout } = await run("nsenter", client, { timeoutMs: 60_000 }).catch((cause) => {
    server.kill();
    throw cause;
  });
  await (server.exitCode === null ? once(server, "close") : undefined);
  return (JSON.parse(stdout) as Result).end.sum_received.bits_per_second / 1e9;
}

interface Result {
  end: { sum_received: { bits_per_second: number } };
}

/** Goes on reading afterwards: iperf3 ends when nobody does. */
function listening(server: ChildProcess): Promise<void> {
  return new Promise((resolve) => {
    let text = "";
    server.stdout?.on("data", (chunk) => {
      text += String(chunk);
      if (text.includes("Server listening")) resolve();
    });
  });
}

async function compare(
  title: string,
  contenders: readonly Contender[],
  path: (one: Contender) => [Place, Place],
) {
  const figures = new Map(contenders.map((one) => [one, [] as number[]]));
  for (let round = 0; round <= rounds; round++) {
    for (const one of contenders) {
      const gbits = await carry(...path(one));
      if (round > 0) figures.get(one)?.push(gbits);
    }
  }
  const [first] = contenders;
  const ours = (first && figures.get(first)) ?? [];
  console.log(`\n### ${title}\n`);
  console.log(
    `${rounds} interleaved rounds of ${values.seconds} s; load average ${loadavg()[0]?.toFixed(2)} at the end.\n`,
  );
  console.log("| | median Gbit/s | Strata carries (95 % interval) |\n|---|---|---|");
  for (const one of contenders) {
    const theirs = figures.get(one) ?? [];
    // The speed-up is of times; bits per second compare the other way round.
    const { ratio, low, high } = speedUp(theirs, ours, seededRandom(1));
    const factor =
      one === first ? "" : `${ratio.toFixed(2)} times as much (${low.toFixed(2)} to ${high.toFixed(2)})`;
    console.log(`| ${one.name} | ${median(theirs).toFixed(2)} | ${factor} |`);
  }
}

const directory = await mkdtemp("/var/tmp/strata-bench-");
const restoreFirewall = await keepFirewall();
try {
  contenders.push(await strata());
  contenders.push(await lxcBridge());
  await docker(directory);
  await systemClock.sleep(1_000); // neighbours are resolved, guests are idle
  await compare("Guest to guest", contenders, ({ guests }) => [guests[0], guests[1]]);
  await compare("Guest to host", contenders, ({ guests, host }) => [guests[0], host]);
} finally {
  for (const one of contenders) await one.dispose().catch(console.error);
  await restoreFirewall();
  await rm(directory, { recursive: true, force: true });
}
