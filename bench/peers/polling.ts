/**
 * What people build by hand: containers of a Docker Engine behind HAProxy, and a loop that looks at HAProxy's statistics
 * every 15 seconds (as Kubernetes' HPA does by default) and adds or takes away a container.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { systemClock } from "../../src/core/clock.ts";
import { run } from "../../src/host/run.ts";
import { Background } from "./background.ts";
import { keepFirewall } from "./host-firewall.ts";

export interface PollingOptions {
  directory: string;
  /** Plain tar of the root tree; its init serves HTTP on port 80. */
  tar: string;
  port: number;
  /** Requests per second and container. */
  target: number;
  max: number;
  pollMs?: number;
}

const subnet = "10.214.7";
const slots = 10;

export class PollingLoop {
  readonly #options: PollingOptions;
  readonly #abort = new AbortController();
  #engine: Background | undefined;
  #balancer: Background | undefined;
  #restoreFirewall = async () => {};
  #containers: number[] = [];
  #loop: Promise<void> | undefined;
  #lastTotal = 0;

  constructor(options: PollingOptions) {
    this.#options = options;
  }

  async start(): Promise<void> {
    const { directory, tar } = this.#options;
    mkdirSync(directory, { recursive: true });
    this.#restoreFirewall = await keepFirewall();
    const path = (name: string) => `${directory}/${name}`;
    this.#engine = new Background(
      "/usr/sbin/dockerd",
      [
        ...["-H", `unix://${path("docker.sock")}`, "--data-root", path("data"), "--exec-root", path("exec")],
        ...["--pidfile", path("dockerd.pid"), "--bip", "10.214.2.1/24"],
      ],
      path("dockerd.log"),
      { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" },
    );
    await this.#engine.ready(() => this.#docker("version"), 30_000);
    await this.#docker("import", tar, "bench");
    await this.#docker("network", "create", "--subnet", `${subnet}.0/24`, "polling");
    writeFileSync(path("haproxy.cfg"), this.#config());
    this.#balancer = new Background(
      "/usr/sbin/haproxy",
      ["-db", "-f", path("haproxy.cfg")],
      path("haproxy.log"),
    );
    await this.#balancer.ready(() => this.#ask("show info"), 10_000);
    await this.#add();
    this.#loop = this.#poll().catch((error) => {
      if (!this.#abort.signal.aborted) console.error(error);
    });
  }

  get size(): number {
    return this.#containers.length;
  }

  async dispose(): Promise<void> {
    this.#abort.abort();
    await this.#loop;
    for (const slot of this.#containers) await this.#docker("rm", "-f", `polling-${slot}`).catch(() => {});
    await this.#balancer?.stop();
    await this.#docker("network", "rm", "polling").catch(() => {});
    await this.#engine?.stop();
    await run("ip", ["link", "del", "docker0"]).catch(() => {});
    await this.#restoreFirewall();
  }

  async #poll(): Promise<void> {
    const { pollMs = 15_000, target, max } = this.#options;
    let before = systemClock.monotonicMs();
    for (;;) {
      await systemClock.sleep(pollMs, this.#abort.signal);
      const now = systemClock.monotonicMs();
      const total = await this.#requests();
      const perSecond = ((total - this.#lastTotal) * 1_000) / (now - before);
      this.#lastTotal = total;
      before = now;
      const wanted = Math.min(max, Math.max(1, Math.ceil(perSecond / target)));
      while (this.#containers.length < wanted) await this.#add();
      while (this.#containers.length > wanted) await this.#remove();
    }
  }

  async #add(): Promise<void> {
    const slot = Array.from({ length: slots }, (_, index) => index).find(
      (index) => !this.#containers.includes(index),
    );
    if (slot === undefined) throw new Error("no slot is free");
    await this.#docker(
      ...["run", "-d", "--name", `polling-${slot}`, "--hostname", `polling-${slot}`, "--network", "polling"],
      ...["--ip", `${subnet}.${10 + slot}`, "--cpus", "1", "--memory", "128m", "bench", "/sbin/init"],
    );
    await this.#ask(`set server members/s${slot} state ready`);
    this.#containers.push(slot);
  }

  async #remove(): Promise<void> {
    const slot = this.#containers.pop();
    await this.#ask(`set server members/s${slot} state drain`);
    await systemClock.sleep(1_000);
    await this.#ask(`set server members/s${slot} state maint`);
    await this.#docker("rm", "-f", `polling-${slot}`);
  }

  async #requests(): Promise<number> {
    const lines = (await this.#ask("show stat")).split("\n");
    const names = lines[0]?.replace("# ", "").split(",") ?? [];
    const row = lines.find((line) => line.startsWith("clients,FRONTEND"))?.split(",") ?? [];
    return Number(row[names.indexOf("req_tot")]);
  }

  #docker(...args: string[]) {
    return run("/usr/bin/docker", ["-H", `unix://${this.#options.directory}/docker.sock`, ...args]);
  }

  #ask(command: string): Promise<string> {
    return new Promise((resolve, reject) => {
      const socket = connect(`${this.#options.directory}/haproxy.sock`);
      let text = "";
      socket.on("connect", () => socket.write(`${command}\n`));
      socket.on("data", (data) => {
        text += data.toString();
      });
      socket.on("end", () => resolve(text));
      socket.on("error", reject);
    });
  }

  #config(): string {
    const { directory, port } = this.#options;
    const servers = Array.from(
      { length: slots },
      (_, slot) => `  server s${slot} ${subnet}.${10 + slot}:80 check inter 100ms disabled`,
    );
    return [
      "global",
      `  stats socket ${directory}/haproxy.sock mode 600 level admin`,
      "defaults",
      "  mode http",
      "  timeout connect 5s",
      "  timeout client 60s",
      "  timeout server 60s",
      "frontend clients",
      `  bind 127.0.0.1:${port}`,
      "  default_backend members",
      "backend members",
      "  balance leastconn",
      ...servers,
      "",
    ].join("\n");
  }
}
