/** A host of its own for tests of the docker driver: an Engine, two networks, an image of busybox. */
import { spawn } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
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
import { silentLogger } from "../src/core/logger.ts";
import { systemRandom } from "../src/core/random.ts";
import { until } from "../src/drivers/conformance-bench.ts";
import { dockerConfigSchema } from "../src/drivers/docker/docker-config.ts";
import { createDockerDriver } from "../src/drivers/docker/docker-driver.ts";
import type { GuestDriver, GuestNic, GuestRoot, GuestSpec } from "../src/drivers/driver.ts";
import { run } from "../src/host/run.ts";
import { TestEngine } from "./docker-engine.ts";

export const idBase = 1_000_000;
const idCount = 65_536;
const busybox = "/bin/busybox";
const applets =
  "sh sleep cat echo env false true stty kill ls id ip ping mount dd rm mkdir touch stat hostname seq yes head tty printf nproc ps wc tr nc wget httpd";

/** Files of the image's tree beside busybox. */
export type TreeFiles = Record<string, string>;

export const tinyInit = `#!/bin/sh
trap 'exit 0' TERM
echo "guest is up"
: > /dev/ready
while :; do sleep 3600 & wait $!; done
`;

/** Hears the request to shut down and does nothing. */
const stubbornInit = tinyInit.replace("'exit 0'", "':'");

interface Network {
  netns: string;
  subnet: string;
  prefix: string;
}

export class DockerBench {
  readonly dir: string;
  readonly namespace: string;
  readonly engine: TestEngine;
  readonly #networks: Record<"same" | "another", Network>;
  readonly #roots = new Map<string, Promise<GuestRoot>>();
  #cards = 0;

  private constructor(dir: string, namespace: string, engine: TestEngine) {
    this.dir = dir;
    this.namespace = namespace;
    this.engine = engine;
    this.#networks = {
      same: { netns: namespace, subnet: "10.214.77", prefix: "fd00:214:77:1" },
      another: { netns: `${namespace}-far`, subnet: "10.214.78", prefix: "fd00:214:78:1" },
    };
  }

  static async open(namespace: string, engineOptions: readonly string[] = []): Promise<DockerBench> {
    const dir = await mkdtemp(`/var/tmp/${namespace}-`);
    await chmod(dir, 0o711);
    const engine = await TestEngine.start(join(dir, "engine"), engineOptions);
    const bench = new DockerBench(dir, namespace, engine);
    await mkdir(bench.stateDir, { mode: 0o700 });
    for (const network of Object.values(bench.#networks)) await makeNetwork(network);
    return bench;
  }

  get stateDir(): string {
    return join(this.dir, "state");
  }

  driver(): GuestDriver {
    return this.driverAt(this.engine.socketPath);
  }

  driverAt(socketPath: string): GuestDriver {
    return createDockerDriver({
      host: { namespace: this.namespace, stateDir: this.stateDir },
      socketPath,
      clock: systemClock,
      random: systemRandom,
      logger: silentLogger,
    });
  }

  /** A spec with a new uid; all guests with the same files share one image. */
  async makeGuest(overrides: Partial<GuestSpec> = {}, files: TreeFiles = {}): Promise<GuestSpec> {
    const uid = newUid(systemRandom);
    return {
      uid,
      title: `e2e/${uid}`,
      hostname: "tiny",
      type: "container",
      cpus: 1,
      memoryMib: 64,
      maxProcesses: 64,
      root: await this.root({ "sbin/init": tinyInit, ...files }),
      nics: [this.nic("same", "eth0")],
      seed: { metaData: "instance-id: e2e\n", userData: "#cloud-config\n", networkConfig: "version: 2\n" },
      ...overrides,
      config: dockerConfigSchema.parse(overrides.config ?? {}) as GuestSpec["config"],
    };
  }

  makeStubbornGuest(): Promise<GuestSpec> {
    return this.makeGuest({}, { "sbin/init": stubbornInit });
  }

  /** A guest that is made of a command instead of the image's init. */
  makeApplication(config: Record<string, unknown>, overrides: Partial<GuestSpec> = {}): Promise<GuestSpec> {
    return this.makeGuest({ ...overrides, config: config as GuestSpec["config"] });
  }

  root(files: TreeFiles): Promise<GuestRoot> {
    const digest = `sha256:${createHash("sha256").update(JSON.stringify(files)).digest("hex")}`;
    const found = this.#roots.get(digest);
    if (found) return found;
    const path = join(this.dir, "images", digest.slice(7, 23), "tree");
    const made = makeTree(path, files).then(
      (): GuestRoot => ({ type: "image", digest, path, idBase, idCount }),
    );
    this.#roots.set(digest, made);
    return made;
  }

  nic(network: "same" | "another", name?: string): GuestNic {
    this.#cards = (this.#cards + 1) % 200;
    const number = this.#cards + 10;
    const { netns, subnet, prefix } = this.#networks[network];
    return {
      name: name ?? `eth${number}`,
      macAddress: `02:00:00:00:00:${number.toString(16).padStart(2, "0")}`,
      ipAddress: `${subnet}.${number}`,
      prefixLength: 24,
      gateway: `${subnet}.1`,
      ipv6: { address: `${prefix}::${number.toString(16)}`, prefixLength: 64, gateway: `${prefix}::1` },
      mtu: 1450,
      netns: `/run/netns/${netns}`,
      bridge: "br0",
      port: `p${number}`,
    };
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

  async tryExec(uid: Uid, ...command: string[]): Promise<{ stdout: string; stderr: string; status: number }> {
    const driver = this.driver();
    const handle = { version: driver.handleVersion, uid };
    const session = await driver.exec?.run(handle, { command, env: {} }, AbortSignal.timeout(60_000));
    if (!session) throw new Error("no exec");
    session.stdin.end();
    const [stdout, stderr, status] = await Promise.all([
      textOf(session.stdout),
      textOf(session.stderr),
      session.exit,
    ]);
    return { stdout, stderr, status };
  }

  /** A command's output in the guest; fails on another status than 0. */
  async exec(uid: Uid, ...command: string[]): Promise<string> {
    const { stdout, stderr, status } = await this.tryExec(uid, ...command);
    if (status !== 0) throw new Error(`${command.join(" ")} ended with ${status}: ${stdout}${stderr}`);
    return stdout;
  }

  async observeSpec(uid: Uid): Promise<{ memoryMib: number; hostname: string }> {
    const pid = await this.pidOf(uid);
    const hostname = await run("nsenter", [`--uts=/proc/${pid}/ns/uts`, "hostname"]);
    const bytes = await this.limit(pid, "memory", "memory.limit_in_bytes", "memory.max");
    return { memoryMib: Number(bytes) / 1024 ** 2, hostname: hostname.stdout.trim() };
  }

  async observeSize(uid: Uid): Promise<{ cpus: number; memoryMib: number }> {
    const pid = await this.pidOf(uid);
    const { memoryMib } = await this.observeSpec(uid);
    const max = (await this.limit(pid, "cpu", "cpu.cfs_quota_us", "cpu.max")).split(" ");
    const period = max[1] ?? (await this.limit(pid, "cpu", "cpu.cfs_period_us", "cpu.max"));
    return { cpus: Number(max[0]) / Number(period), memoryMib };
  }

  /** A file of the process's control group, on both versions. */
  async limit(pid: number, controller: string, v1: string, v2: string): Promise<string> {
    const groups = await readFile(`/proc/${pid}/cgroup`, "utf8");
    const old = new RegExp(`^\\d+:(?:[^:]*,)?${controller}(?:,[^:]*)?:(.*)$`, "m").exec(groups)?.[1];
    const unified = /^0::(.*)$/m.exec(groups)?.[1] ?? "";
    const path = old === undefined ? join(unified, v2) : join(controller, old, v1);
    return (await readFile(join("/sys/fs/cgroup", path), "utf8")).trim();
  }

  async observeCards(uid: Uid): Promise<string[]> {
    const { stdout } = await run("nsenter", [
      `--net=/proc/${await this.pidOf(uid)}/ns/net`,
      ...["ip", "-o", "link"],
    ]);
    return [...stdout.matchAll(/link\/ether (\S+)/g)].map(([, address]) => address ?? "");
  }

  async reachesCard(_uid: Uid, nic: GuestNic): Promise<boolean> {
    for (const address of [nic.ipAddress, nic.ipv6?.address ?? nic.ipAddress]) {
      const ping = ["busybox", "ping", "-c", "1", "-W", "1", address];
      const { status } = await run("nsenter", [`--net=${nic.netns}`, ...ping], { expected: [0, 1] });
      if (status !== 0) return false;
    }
    return true;
  }

  /** Calls a driver in another process, which is killed `delayMs` after it began. */
  async crash(order: Record<string, unknown>, delayMs: number): Promise<void> {
    const script = new URL("./docker-crash-child.ts", import.meta.url).pathname;
    const child = spawn(process.execPath, [script], { stdio: ["pipe", "pipe", "inherit"] });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    const { namespace, stateDir } = this;
    const host = { namespace, stateDir, socketPath: this.engine.socketPath };
    child.stdin.write(`${JSON.stringify({ host, ...order })}\n`);
    await new Promise((resolve) => child.stdout.once("data", resolve));
    await systemClock.sleep(delayMs);
    child.kill("SIGKILL");
    await ended;
  }

  async leaks(): Promise<string[]> {
    const filter = (label: string) => `filters=${encodeURIComponent(JSON.stringify({ label: [label] }))}`;
    const found: string[] = [];
    for (const label of [`strata.namespace=${this.namespace}`, `strata.probe=${this.namespace}`]) {
      const containers = (await this.engine.get(`/containers/json?all=1&${filter(label)}`)).body;
      const images = (await this.engine.get(`/images/json?${filter(label)}`)).body;
      const volumes = (await this.engine.get(`/volumes?${filter(label)}`)).body;
      found.push(
        ...(containers as { Names: string[] }[]).map(({ Names }) => `container ${Names}`),
        ...(images as { RepoTags: string[] }[]).map(({ RepoTags }) => `image ${RepoTags}`),
        ...((volumes as { Volumes?: { Name: string }[] }).Volumes ?? []).map(({ Name }) => `volume ${Name}`),
      );
    }
    const files = await readdir(join(this.stateDir, "docker")).catch((): string[] => []);
    found.push(...files.map((name) => `file ${name}`));
    for (const { netns } of Object.values(this.#networks)) {
      const links = async () => {
        const { stdout } = await run("ip", ["-n", netns, "-o", "link"]);
        return stdout.split("\n").filter((line) => line !== "" && !/^\d+: (lo|br0):/.test(line));
      };
      // The kernel removes a dead container's cards in its own time.
      await until(async () => (await links()).length === 0, 3_000, "").catch(() => {});
      found.push(...(await links()).map((link) => `link ${link}`));
    }
    return found;
  }

  async dispose(): Promise<void> {
    const driver = this.driver();
    for (const guest of await driver.list()) await driver.destroy(guest.handle, new AbortController().signal);
    await this.engine.stop();
    for (const { netns } of Object.values(this.#networks)) {
      await run("ip", ["netns", "del", netns], { expected: [0, 1] });
    }
    await rm(this.dir, { recursive: true, force: true });
  }
}

async function textOf(stream: AsyncIterable<Buffer>): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function makeNetwork({ netns, subnet, prefix }: Network): Promise<void> {
  await run("ip", ["netns", "del", netns], { expected: [0, 1] });
  await run("ip", ["netns", "add", netns]);
  const commands = [
    "link set dev lo up",
    "link add br0 type bridge",
    `address add ${subnet}.1/24 dev br0`,
    `address add ${prefix}::1/64 dev br0 nodad`,
    "link set br0 up",
  ];
  await run("ip", ["-n", netns, "-batch", "-"], { input: `${commands.join("\n")}\n` });
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
  for (const name of ["bin", "sbin", "dev", "proc", "sys", "etc", "run", "tmp", "root", "data"]) {
    await makeDir(join(path, name));
  }
  await writeFile(
    join(path, "etc/passwd"),
    "root:x:0:0:root:/root:/bin/sh\nworker:x:1234:1234::/data:/bin/sh\n",
    { mode: 0o644 },
  );
  made.push(join(path, "etc/passwd"));
  await copyFile(busybox, join(path, "bin/busybox"));
  made.push(join(path, "bin/busybox"));
  for (const name of applets.split(" ")) {
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
