/** A host of its own for tests of the lxc driver: state directory, network namespace with a bridge, tiny root trees. */
import { spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import {
  chmod,
  copyFile,
  lchown,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rm,
  symlink,
  writeFile,
} from "node:fs/promises";
import { dirname, join } from "node:path";
import { systemClock } from "../src/core/clock.ts";
import { newUid, type Uid } from "../src/core/ids.ts";
import type { JsonObject } from "../src/core/json.ts";
import { silentLogger } from "../src/core/logger.ts";
import { systemRandom } from "../src/core/random.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import type { GuestDriver, GuestNic, GuestSpec, GuestVolume } from "../src/drivers/driver.ts";
import { createLxcDriver } from "../src/drivers/lxc/lxc-driver.ts";
import type { Cgroups } from "../src/host/cgroups.ts";
import type { HostConfig } from "../src/host/host-config.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { run } from "../src/host/run.ts";
import { TestVolumes } from "./test-volumes.ts";

export const idBase = 1_000_000;
const idCount = 65_536;
const subnet = "10.213.77";
/** Of the other network, whose guests are elsewhere. */
const farSubnet = "10.213.78";
const busybox = "/bin/busybox";
const applets =
  "sh sleep cat echo env false true stty poweroff reboot kill ls id ip ping mount umount dd rm mkdir touch stat hostname seq yes head tty printf nproc ps wc tr grep";

/** Files of the guest's tree beside busybox. */
export type TreeFiles = Record<string, string>;

const tinyInit = `#!/bin/sh
trap 'poweroff -f' PWR
echo "guest is up"
(while :; do setsid sh -c 'exec sh -i < /dev/tty1 > /dev/tty1 2>&1'; sleep 1; done) &
: > /dev/ready
while :; do sleep 3600 & wait $!; done
`;

/** Hears the request to shut down and does nothing. */
export const stubbornInit = tinyInit.replace("'poweroff -f'", "':'");

export class LxcBench {
  readonly dir: string;
  readonly host: HostConfig;
  readonly cgroups: Cgroups;
  readonly netns: string;
  readonly farNetns: string;
  readonly volumes: TestVolumes;
  #guests = 0;

  private constructor(dir: string, namespace: string, cgroups: Cgroups) {
    this.dir = dir;
    this.cgroups = cgroups;
    this.volumes = new TestVolumes(dir);
    this.netns = namespace;
    this.farNetns = `${namespace}-far`;
    this.host = {
      namespace,
      stateDir: join(dir, "state"),
      runDir: join(dir, "run"),
      imageDir: join(dir, "images"),
      networkPool: "10.213.0.0/16",
      idBase,
    };
  }

  static async open(namespace: string): Promise<LxcBench> {
    const dir = await mkdtemp(`/var/tmp/${namespace}-`);
    await chmod(dir, 0o711);
    const bench = new LxcBench(dir, namespace, await openCgroups({ clock: systemClock }));
    await mkdir(bench.host.stateDir, { mode: 0o700 });
    await makeNetwork(bench.netns, subnet);
    await makeNetwork(bench.farNetns, farSubnet);
    return bench;
  }

  driver(): GuestDriver {
    return createLxcDriver({
      host: this.host,
      cgroups: this.cgroups,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
  }

  /** A spec with a new uid and a root tree of its own. */
  async makeGuest(overrides: Partial<GuestSpec> = {}, files: TreeFiles = {}): Promise<GuestSpec> {
    const uid = newUid(systemRandom);
    const path = join(this.host.stateDir, "roots", uid, "tree");
    await makeTree(path, { "sbin/init": tinyInit, ...files });
    return this.specFor(uid, path, overrides);
  }

  specFor(uid: Uid, path: string, overrides: Partial<GuestSpec> = {}): GuestSpec {
    return {
      uid,
      title: `e2e/${uid}`,
      hostname: "tiny",
      type: "container",
      cpus: 1,
      memoryMib: 64,
      maxProcesses: 64,
      root: { type: "tree", path, idBase, idCount },
      nics: [this.nic()],
      seed: { metaData: "instance-id: e2e\n", userData: "#cloud-config\n", networkConfig: "version: 2\n" },
      config: {},
      ...overrides,
    };
  }

  nic(): GuestNic {
    return { ...this.card("same"), name: "eth0" };
  }

  /** A further card, in the guests' network or in the other one. */
  card(network: "same" | "another"): GuestNic {
    this.#guests = (this.#guests + 1) % 200;
    const number = this.#guests + 10;
    const [range, netns] = network === "same" ? [subnet, this.netns] : [farSubnet, this.farNetns];
    return {
      name: `eth${number}`,
      macAddress: `02:00:00:00:00:${number.toString(16).padStart(2, "0")}`,
      ipAddress: `${range}.${number}`,
      prefixLength: 24,
      gateway: `${range}.1`,
      ipv6: { address: ipv6Of(range, number), prefixLength: 64, gateway: ipv6Of(range, 1) },
      mtu: 1450,
      netns: `/run/netns/${netns}`,
      bridge: "br0",
      port: `p${number}`,
    };
  }

  async writeVolume(uid: Uid, volume: GuestVolume, text: string): Promise<void> {
    if (volume.type !== "mount") throw new Error("a container takes mounts");
    await this.exec(uid, "sh", "-c", `echo ${text} > ${volume.target}/mark`);
  }

  /** Nothing where nothing is mounted: what lies in the directory below would be the root's. */
  async readVolume(uid: Uid, volume: GuestVolume): Promise<string | undefined> {
    if (volume.type !== "mount") throw new Error("a container takes mounts");
    const script = `grep -q " ${volume.target} " /proc/self/mountinfo && cat ${volume.target}/mark; true`;
    return (await this.exec(uid, "sh", "-c", script)).trim() || undefined;
  }

  async observeCards(uid: Uid): Promise<string[]> {
    const script = "for card in /sys/class/net/eth*; do cat $card/address; done";
    return (await this.exec(uid, "sh", "-c", script)).trim().split("\n");
  }

  /** Do both its addresses answer at once, to the gateway and to somebody beyond it? */
  async reachesCard(nic: GuestNic): Promise<boolean> {
    // As every network of Strata's does: the gateway asks nobody who has an address.
    const addresses = [nic.ipAddress, ...(nic.ipv6 === undefined ? [] : [nic.ipv6.address])];
    const known = addresses.map(
      (address) => `neigh replace ${address} lladdr ${nic.macAddress} dev ${nic.bridge} nud permanent\n`,
    );
    const inNetwork = (command: string[], input = "") =>
      run("nsenter", [`--net=${nic.netns}`, ...command], { input, expected: [0, 1] });
    await inNetwork(["ip", "-batch", "-"], known.join(""));
    const pings = addresses.flatMap((address) => {
      const [family, beyond] = address.includes(":") ? ["-6", "2001:db8::1"] : ["-4", "192.0.2.1"];
      return [[], ["-I", beyond]].map((from) => ["busybox", "ping", family, "-c1", "-W1", ...from, address]);
    });
    for (const ping of pings) {
      const { status } = await inNetwork(ping);
      if (status !== 0) return false;
    }
    return true;
  }

  /** The limits as a guest finds them: cgroups of its own, which it sees as the top. */
  async observeSize(uid: Uid): Promise<{ cpus: number; memoryMib: number }> {
    const pid = await this.pidOf(uid);
    const read = (hierarchy: string, file: string) =>
      readFile(join("/sys/fs/cgroup", hierarchy, this.host.namespace, uid, "payload", file), "utf8");
    await readFile(`/proc/${pid}/cgroup`, "utf8");
    if (this.cgroups.layout === "v2") {
      const [quota, period] = (await read("", "cpu.max")).split(" ").map(Number);
      return {
        cpus: (quota ?? 0) / (period ?? 1),
        memoryMib: Number(await read("", "memory.max")) / 1024 ** 2,
      };
    }
    const [quota, period, bytes] = await Promise.all([
      read("cpu", "cpu.cfs_quota_us"),
      read("cpu", "cpu.cfs_period_us"),
      read("memory", "memory.limit_in_bytes"),
    ]);
    return { cpus: Number(quota) / Number(period), memoryMib: Number(bytes) / 1024 ** 2 };
  }

  async pidOf(uid: Uid): Promise<number> {
    const pid = (await this.driver().inspect(uid))?.pid;
    if (pid === undefined) throw new Error(`guest ${uid} does not run`);
    return pid;
  }

  async untilReady(uid: Uid): Promise<void> {
    await until(
      async () => existsSync(`/proc/${await this.pidOf(uid)}/root/dev/ready`),
      10_000,
      `guest ${uid} being up`,
    );
  }

  /** A command's output in the guest; fails on another status than 0. */
  async exec(uid: Uid, ...command: string[]): Promise<string> {
    const { stdout, stderr, status } = await this.tryExec(uid, ...command);
    if (status !== 0) throw new Error(`${command.join(" ")} ended with ${status}: ${stdout}${stderr}`);
    return stdout;
  }

  async tryExec(uid: Uid, ...command: string[]): Promise<{ stdout: string; stderr: string; status: number }> {
    const driver = this.driver();
    const handle = { version: driver.handleVersion, uid };
    const session = await driver.exec?.run(handle, { command, env: {} }, AbortSignal.timeout(60_000));
    if (!session) throw new Error("no exec");
    session.stdin.end();
    const text = async (stream: AsyncIterable<Buffer>) => {
      const chunks: Buffer[] = [];
      for await (const chunk of stream) chunks.push(chunk);
      return Buffer.concat(chunks).toString();
    };
    const [stdout, stderr, status] = await Promise.all([
      text(session.stdout),
      text(session.stderr),
      session.exit,
    ]);
    return { stdout, stderr, status };
  }

  async observeSpec(uid: Uid): Promise<{ memoryMib: number; hostname: string }> {
    const pid = await this.pidOf(uid);
    const hostname = await run("nsenter", [`--uts=/proc/${pid}/ns/uts`, "hostname"]);
    const group = join(
      "/sys/fs/cgroup",
      this.cgroups.layout === "v2" ? "" : "memory",
      this.host.namespace,
      uid,
    );
    const file = this.cgroups.layout === "v2" ? "memory.max" : "memory.limit_in_bytes";
    const bytes = Number(await readFile(join(group, file), "utf8"));
    return { memoryMib: bytes / 1024 ** 2, hostname: hostname.stdout.trim() };
  }

  /** Create and start in another process, which is killed `delayMs` after it began. */
  crashWhileStarting(spec: GuestSpec, delayMs: number): Promise<void> {
    return this.#crash({ host: this.host, spec }, delayMs);
  }

  /** The same with `cards.attach`. */
  crashWhileAttaching(handle: JsonObject, nic: GuestNic, delayMs: number): Promise<void> {
    return this.#crash({ host: this.host, handle, nic }, delayMs);
  }

  async #crash(task: object, delayMs: number): Promise<void> {
    const script = new URL("./lxc-crash-child.ts", import.meta.url).pathname;
    const child = spawn(process.execPath, [script], { stdio: ["pipe", "pipe", "inherit"] });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    child.stdin.write(`${JSON.stringify(task)}\n`);
    await new Promise((resolve) => child.stdout.once("data", resolve));
    await systemClock.sleep(delayMs);
    child.kill("SIGKILL");
    await ended;
  }

  async forgetGuest(uid: Uid): Promise<void> {
    await rm(join(this.host.stateDir, "roots", uid), { recursive: true, force: true });
  }

  async leaks(): Promise<string[]> {
    const { namespace, stateDir } = this.host;
    const lxcPath = join(stateDir, "lxc");
    const groups = [
      ...(await this.cgroups.list(namespace)),
      ...(await this.cgroups.list(`${namespace}.monitors`)),
    ];
    const names = async (path: string) => readdir(path).catch((): string[] => []);
    // A recorder whose daemon was killed at once ends when it finds no cgroup to enter.
    await until(() => processesWith(lxcPath).length === 0, 2_000, "").catch(() => {});
    const links = await Promise.all(
      [this.netns, this.farNetns].map((netns) => run("ip", ["-n", netns, "-o", "link"])),
    );
    const mounts = (await readFile("/proc/mounts", "utf8"))
      .split("\n")
      .filter((line) => line.includes(this.dir));
    return [
      ...processesWith(lxcPath).map((process) => `process ${process}`),
      ...groups.map((group) => `cgroup ${group}`),
      ...mounts.map((mount) => `mount ${mount}`),
      ...links
        .flatMap(({ stdout }) => stdout.split("\n"))
        .filter((line) => line !== "" && !/^\d+: (lo|br0):/.test(line))
        .map((line) => `link ${line}`),
      ...(await names(lxcPath)).filter((name) => name !== ".tools").map((name) => `file ${name}`),
      ...(await names(join("/run/lxc/lock", lxcPath))).map((name) => `lock ${name}`),
    ];
  }

  async dispose(): Promise<void> {
    await this.volumes.dispose();
    const driver = this.driver();
    for (const guest of await driver.list()) await driver.destroy(guest.handle, new AbortController().signal);
    for (const group of [this.host.namespace, `${this.host.namespace}.monitors`]) {
      await this.cgroups.kill(group);
      await this.cgroups.remove(group);
    }
    for (const netns of [this.netns, this.farNetns]) {
      await run("ip", ["netns", "del", netns], { expected: [0, 1] });
    }
    await rm(join("/run/lxc/lock", this.host.stateDir), { recursive: true, force: true });
    await rm(this.dir, { recursive: true, force: true });
  }
}

function ipv6Of(range: string, number: number): string {
  return `fd${range.split(".").join("").slice(2, 4)}:77::${range.split(".")[2]}:${number}`;
}

/** A network as Strata makes it, as far as a guest's port needs one: a gateway, and somebody beyond it. */
async function makeNetwork(netns: string, range: string): Promise<void> {
  await run("ip", ["netns", "del", netns], { expected: [0, 1] });
  await run("ip", ["netns", "add", netns]);
  const commands = [
    "link set lo up",
    "address add 192.0.2.1/32 dev lo",
    "address add 2001:db8::1/128 dev lo",
    // Of its own: otherwise it changes with the ports, and guests go on sending to the one before.
    "link add br0 address 02:00:00:01:00:01 type bridge",
    `address add ${range}.1/24 dev br0`,
    `address add ${ipv6Of(range, 1)}/64 dev br0 nodad`,
    "link set br0 up",
  ];
  await run("ip", ["-n", netns, "-batch", "-"], { input: `${commands.join("\n")}\n` });
  const settings = ["ipv4.ip_forward", "ipv4.conf.br0.proxy_arp_pvlan", "ipv6.conf.all.forwarding"];
  const values = settings.map((name) => `net.${name}=1`);
  await run("nsenter", [
    `--net=/run/netns/${netns}`,
    "sysctl",
    "-qw",
    "net.ipv4.conf.all.send_redirects=0",
    ...values,
  ]);
}

function processesWith(text: string): string[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && Number(name) !== process.pid)
    .flatMap((pid) => {
      try {
        const line = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
        return line.includes(text) ? [`${pid} ${line}`] : [];
      } catch {
        return [];
      }
    });
}

/** A tree with busybox and nothing else, owned by the shifted root. */
async function makeTree(path: string, files: TreeFiles): Promise<void> {
  const made: string[] = [];
  const makeDir = async (dir: string) => {
    if (existsSync(dir)) return;
    await makeDir(dirname(dir));
    await mkdir(dir, { mode: 0o755 });
    if (dir.startsWith(path)) made.push(dir);
  };
  for (const name of ["bin", "sbin", "dev", "proc", "sys", "etc", "run", "tmp", "root", "var/lib"]) {
    await makeDir(join(path, name));
  }
  await copyFile(busybox, join(path, "bin/busybox"));
  made.push(join(path, "bin/busybox"));
  for (const name of [...applets.split(" "), "setsid"]) {
    await symlink("busybox", join(path, "bin", name));
    made.push(join(path, "bin", name));
  }
  for (const [name, text] of Object.entries(files)) {
    await makeDir(dirname(join(path, name)));
    await writeFile(join(path, name), text, { mode: 0o755 });
    made.push(join(path, name));
  }
  for (const entry of made) await lchown(entry, idBase, idBase);
}
