/** A host for virtual machines in tests: directories, a network namespace with a bridge, and the test image. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { basename, join } from "node:path";
import { text } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { systemClock } from "../src/core/clock.ts";
import { newUid, type Uid } from "../src/core/ids.ts";
import type { JsonObject } from "../src/core/json.ts";
import { randomInt, systemRandom } from "../src/core/random.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import type { GuestNic, GuestSpec, GuestVolume } from "../src/drivers/driver.ts";
import type { HostConfig } from "../src/host/host-config.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { run } from "../src/host/run.ts";
import { bootMarker, makeQemuGuest, type QemuGuestFiles } from "./qemu-guest.ts";
import { openTestDriver } from "./qemu-test-driver.ts";
import { TestVolumes } from "./test-volumes.ts";

export const imageDir = process.env.STRATA_TEST_IMAGE_DIR ?? "/var/tmp/strata-test-images";
const child = fileURLToPath(new URL("./qemu-child.ts", import.meta.url));
const firstProcessUid = 65_536;

export class QemuBench {
  readonly host: HostConfig;
  readonly netns: string;
  readonly farNetns: string;
  readonly volumes: TestVolumes;
  readonly #directory: string;
  readonly #guest: QemuGuestFiles;
  readonly #specs = new Map<Uid, GuestSpec>();
  readonly #runs = new Map<Uid, Set<string | undefined>>();
  #cards = 0;

  private constructor(directory: string, guest: QemuGuestFiles) {
    const name = `q${newUid(systemRandom).slice(0, 8)}`;
    this.#directory = directory;
    this.volumes = new TestVolumes(directory);
    this.#guest = guest;
    this.netns = `/run/netns/${name}`;
    this.farNetns = `/run/netns/${name}-far`;
    this.host = {
      namespace: name,
      stateDir: join(directory, "state"),
      runDir: join(directory, "run"),
      imageDir,
      networkPool: "10.99.0.0/16",
      // Apart from those of other tests that run meanwhile.
      idBase: 1_700_000_000 + randomInt(systemRandom, 1000) * 200_000,
    };
  }

  static async create(): Promise<QemuBench> {
    const bench = new QemuBench(await mkdtemp("/var/tmp/strata-qemu-"), await makeQemuGuest(imageDir));
    await mkdir(bench.host.stateDir, { mode: 0o700 });
    await run("qemu-img", ["create", "-q", "-f", "qcow2", join(bench.#directory, "base.qcow2"), "64M"]);
    await makeNetwork(bench.netns, "10.99.1.1");
    await makeNetwork(bench.farNetns, "10.99.2.1");
    return bench;
  }

  async makeGuest(overrides: Partial<GuestSpec> = {}, words = ""): Promise<GuestSpec> {
    const uid = newUid(systemRandom);
    const path = join(this.#directory, `${uid}.qcow2`);
    const base = join(this.#directory, "base.qcow2");
    await run("qemu-img", ["create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path]);
    const { kernel, initrd } = this.#guest;
    const number = this.#specs.size + 2;
    const spec: GuestSpec = {
      uid,
      title: `test/${uid}`,
      hostname: `guest${number}`,
      type: "vm",
      cpus: 1,
      memoryMib: 160,
      maxProcesses: 100,
      root: {
        type: "disk",
        path,
        format: "qcow2",
        boot: { kernel, initrd, commandLine: `panic=-1 quiet ${words}` },
      },
      nics: [
        {
          name: "eth0",
          macAddress: `52:54:00:00:00:${number.toString(16).padStart(2, "0")}`,
          ipAddress: `10.99.1.${number}`,
          prefixLength: 24,
          gateway: "10.99.1.1",
          mtu: 1450,
          netns: this.netns,
          bridge: "br0",
          port: `p${uid.slice(0, 10)}`,
        },
      ],
      seed: { metaData: `instance-id: ${uid}\n`, userData: "#cloud-config\n", networkConfig: "version: 2\n" },
      config: {},
      ...overrides,
    };
    this.#specs.set(uid, spec);
    return spec;
  }

  /** A further card, in the guests' network or in the other one. */
  card(network: "same" | "another"): GuestNic {
    this.#cards += 1;
    const number = 100 + this.#cards;
    const [range, netns] = network === "same" ? ["10.99.1", this.netns] : ["10.99.2", this.farNetns];
    return {
      name: `eth${this.#cards}`,
      macAddress: `52:54:00:00:01:${number.toString(16)}`,
      ipAddress: `${range}.${number}`,
      prefixLength: 24,
      gateway: `${range}.1`,
      mtu: 1450,
      netns,
      bridge: "br0",
      port: `c${number}${this.host.namespace}`,
    };
  }

  memoryPath(): string {
    return join(this.#directory, `${newUid(systemRandom)}.memory`);
  }

  /** What a shell script prints in the guest. */
  async ask(uid: Uid, script: string): Promise<string> {
    const driver = await openTestDriver(this.host);
    const handle = { version: driver.handleVersion, uid };
    const session = await driver.exec?.run(
      handle,
      { command: ["sh", "-c", script], env: {} },
      AbortSignal.timeout(60_000),
    );
    session?.stdin.end();
    return session === undefined ? "" : await text(session.stdout);
  }

  async writeVolume(uid: Uid, volume: GuestVolume, text: string): Promise<void> {
    const script = `${findDisk(volume)} && echo ${text} | dd of=$disk conv=fsync 2>/dev/null && echo written`;
    const said = await this.ask(uid, script);
    if (said !== "written\n") throw new Error(`the guest does not find the volume ${volume.id}: ${said}`);
  }

  async readVolume(uid: Uid, volume: GuestVolume): Promise<string | undefined> {
    return (await this.ask(uid, `${findDisk(volume)} && head -n 1 $disk`)).trim() || undefined;
  }

  async observeCards(uid: Uid): Promise<string[]> {
    const script = "for card in /sys/class/net/eth*; do cat $card/address; done";
    return (await this.ask(uid, script)).trim().split("\n");
  }

  /** Does the card answer its gateway? The guest has no software that would ask for its address, so it is given it. */
  async reachesCard(uid: Uid, nic: GuestNic): Promise<boolean> {
    const script = `for card in /sys/class/net/eth*; do
      [ "$(cat $card/address)" = ${nic.macAddress} ] || continue
      ip link set \${card##*/} up && ip address replace ${nic.ipAddress}/24 dev \${card##*/} && echo given
    done`;
    if ((await this.ask(uid, script)) !== "given\n") return false;
    const ping = ["busybox", "ping", "-c1", "-W5", nic.ipAddress];
    const { status } = await run("nsenter", [`--net=${nic.netns}`, ...ping], { expected: [0, 1] });
    return status === 0;
  }

  /** Of its control group. */
  async memoryLimitMib(uid: Uid): Promise<number> {
    const { layout } = await openCgroups({ clock: systemClock });
    const [hierarchy, file] = layout === "v2" ? ["", "memory.max"] : ["memory", "memory.limit_in_bytes"];
    const path = join("/sys/fs/cgroup", hierarchy, this.host.namespace, uid, file);
    return Number(await readFile(path, "utf8")) / 1024 ** 2;
  }

  async observeSize(uid: Uid): Promise<{ cpus: number; memoryMib: number }> {
    const seen = await this.ask(uid, "nproc; sed -n 's/MemTotal: *//p' /proc/meminfo");
    const [cpus, memoryKib] = seen.split("\n").map((line) => Number.parseInt(line, 10));
    return { cpus: cpus ?? 0, memoryMib: (memoryKib ?? 0) / 1024 };
  }

  async consoleText(uid: Uid): Promise<string> {
    return readFile(join(this.host.stateDir, "qemu", uid, "console.log"), "utf8").catch(() => "");
  }

  /** Each run of the guest says once that it is up. */
  async untilReady(uid: Uid, timeoutMs: number): Promise<void> {
    const runs = this.#runs.get(uid) ?? new Set();
    this.#runs.set(uid, runs.add((await (await openTestDriver(this.host)).inspect(uid))?.runId));
    await until(
      async () => (await this.consoleText(uid)).split(bootMarker).length > runs.size,
      timeoutMs,
      `the boot of guest ${uid}`,
    );
  }

  /** Types a line into the shell on the guest's console. */
  async type(uid: Uid, line: string): Promise<void> {
    const socket = connect({ path: join(this.host.runDir, "qemu", uid, "console.sock") });
    await once(socket, "connect");
    socket.end(`${line}\n`);
    socket.resume();
    await once(socket, "close");
  }

  async pidOf(uid: Uid): Promise<number> {
    return (await (await openTestDriver(this.host)).inspect(uid))?.pid ?? 0;
  }

  async observeSpec(uid: Uid): Promise<{ memoryMib: number; hostname: string }> {
    const words = (await readFile(`/proc/${await this.pidOf(uid)}/cmdline`, "utf8")).split("\0");
    const memory = (words[words.indexOf("-m") + 1] ?? "").replace("size=", "");
    const hostname = /\bhostname=(\S+)/.exec(words[words.indexOf("-append") + 1] ?? "")?.[1];
    return { memoryMib: Number.parseInt(memory, 10), hostname: hostname ?? "" };
  }

  crashWhileStarting(spec: GuestSpec, step: number): Promise<void> {
    return this.#crash({ host: this.host, spec }, step * 60);
  }

  crashWhileAttaching(handle: JsonObject, nic: GuestNic, step: number): Promise<void> {
    return this.#crash({ host: this.host, handle, nic }, step * 15);
  }

  async #crash(task: object, afterMs: number): Promise<void> {
    const started = this.#startChild(task);
    const closed = once(started, "close");
    await Promise.race([once(started.stdout, "data"), closed]);
    await Promise.race([systemClock.sleep(afterMs), closed]);
    started.kill("SIGKILL");
    await closed;
  }

  /** A process that makes and starts the guest. */
  startInChild(spec: GuestSpec) {
    return this.#startChild({ host: this.host, spec });
  }

  #startChild(task: object) {
    const argument = JSON.stringify(task);
    return spawn(process.execPath, [child, argument], { stdio: ["ignore", "pipe", "inherit"] });
  }

  async leaks(): Promise<string[]> {
    const cgroups = await openCgroups({ clock: systemClock });
    const links = await Promise.all(
      [this.netns, this.farNetns].map((netns) => run("nsenter", [`--net=${netns}`, "ip", "-o", "link"])),
    );
    const entries = async (directory: string) => readdir(directory).catch(() => []);
    return [
      ...(await cgroups.list(this.host.namespace)).map((name) => `cgroup ${name}`),
      ...links
        .flatMap(({ stdout }) => stdout.split("\n"))
        .map((line) => /^\d+: ([^:@]+)/.exec(line)?.[1] ?? "")
        .filter((name) => name !== "" && name !== "lo" && name !== "br0")
        .map((name) => `link ${name}`),
      ...(await entries(join(this.host.stateDir, "qemu"))).map((name) => `state ${name}`),
      ...(await entries(join(this.host.runDir, "qemu"))).map((name) => `run ${name}`),
      ...(await this.#processes()),
    ];
  }

  async dispose(): Promise<void> {
    await this.volumes.dispose();
    const cgroups = await openCgroups({ clock: systemClock });
    for (const group of await cgroups.list(this.host.namespace)) {
      await cgroups.kill(`${this.host.namespace}/${group}`);
    }
    await cgroups.remove(this.host.namespace);
    for (const netns of [this.netns, this.farNetns]) await run("ip", ["netns", "delete", basename(netns)]);
    await rm(this.#directory, { recursive: true });
  }

  async #processes(): Promise<string[]> {
    const first = this.host.idBase + firstProcessUid;
    const found: string[] = [];
    for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
      const status = await readFile(`/proc/${pid}/status`, "utf8").catch(() => "");
      if (/^State:\s+Z/m.test(status)) continue; // waits to be reaped
      const uid = Number(/^Uid:\s+(\d+)/m.exec(status)?.[1] ?? 0);
      if (uid >= first && uid < first + 65_536) found.push(`process ${pid}`);
    }
    return found;
  }
}

/** A network as far as a guest's port needs one: a gateway that answers for the neighbours, between whom it forwards. */
async function makeNetwork(netns: string, gateway: string): Promise<void> {
  await run("ip", ["netns", "add", basename(netns)]);
  await run("nsenter", [`--net=${netns}`, "ip", "-batch", "-"], {
    input: `link set lo up\nlink add br0 address 02:00:00:01:00:01 type bridge\naddress add ${gateway}/24 dev br0\nlink set br0 up\n`,
  });
  const settings = ["net.ipv4.ip_forward=1", "net.ipv4.conf.br0.proxy_arp_pvlan=1"];
  await run("nsenter", [
    `--net=${netns}`,
    "sysctl",
    "-qw",
    "net.ipv4.conf.all.send_redirects=0",
    ...settings,
  ]);
}

/** Sets $disk in a shell: the disk with the volume's serial number (SCSI page 0x80), which the kernel may still be finding. */
export function findDisk({ id }: GuestVolume): string {
  return `disk=; for try in 1 2 3 4 5 6 7 8 9 10; do
    for page in /sys/block/sd*/device/vpd_pg80; do
      grep -q ${id} $page 2>/dev/null && disk=/dev/$(echo $page | cut -d/ -f4)
    done
    [ -n "$disk" ] && break; [ $try -lt 4 ] && usleep 100000 || break
  done; [ -n "$disk" ]`;
}
