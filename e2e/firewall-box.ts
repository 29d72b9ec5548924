/**
 * A network's structure made by hand, as small as packet rules need it: a namespace with a bridge, an uplink pair, guests
 * that are namespaces, and an outside behind the host.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { systemClock } from "../src/core/clock.ts";
import { createLogger } from "../src/core/logger.ts";
import { uplinkPrefix } from "../src/host/networks/network-plan.ts";
import type { CardPolicy } from "../src/host/networks/networks.ts";
import {
  createNetworkFirewall,
  type FirewallNetwork,
  type NetworkFirewall,
} from "../src/host/networks/policy/firewall.ts";
import { uplinkPair } from "../src/host/networks/uplink-pair.ts";
import { run } from "../src/host/run.ts";

export const never = new AbortController().signal;
export const outsideAddress = "198.18.77.2";
export const hostLanAddress = "198.18.77.1";
export const floating = "198.18.77.50";
const peerScript = fileURLToPath(new URL("firewall-peer.ts", import.meta.url));

export interface Answer {
  ok: boolean;
  from?: string;
  why?: string;
  atMs?: number;
  count?: number;
  longestMs?: number;
}

/** A process in a namespace that talks and listens. */
export class Peer {
  readonly address: string;
  readonly address6: string;
  readonly #child: ChildProcess;
  readonly #waiting = new Map<string, (answer: Answer) => void>();
  #count = 0;
  readonly ready: Promise<Answer>;

  constructor(netns: string, address: string, address6: string, ports: readonly number[]) {
    this.address = address;
    this.address6 = address6;
    const args = [`--net=/run/netns/${netns}`, process.execPath, peerScript, ...ports.map(String)];
    this.#child = spawn("nsenter", args, { stdio: ["pipe", "pipe", "inherit"] });
    this.ready = new Promise((resolve) => this.#waiting.set("ready", resolve));
    if (!this.#child.stdout) throw new Error("no output");
    createInterface({ input: this.#child.stdout }).on("line", (line) => {
      const answer = JSON.parse(line) as Answer & { id: string };
      this.#waiting.get(answer.id)?.(answer);
      this.#waiting.delete(answer.id);
    });
  }

  ask(verb: string, request: Record<string, string | number>): Promise<Answer> {
    const id = String(++this.#count);
    this.#child.stdin?.write(`${JSON.stringify({ ...request, id, verb })}\n`);
    return new Promise((resolve) => this.#waiting.set(id, resolve));
  }

  /** One connection. Only a short time is waited for one that is to fail: `reaches` waits for one that is to come about. */
  tcp(address: string, port: number): Promise<Answer> {
    return this.ask("tcp", { address, port });
  }

  /** One connection that is allowed: a first packet that got lost is sent again, which takes the kernel a second or three. */
  reaches(address: string, port: number): Promise<Answer> {
    return this.ask("tcp", { address, port, timeoutMs: 10_000 });
  }

  async end(): Promise<void> {
    const gone = new Promise((resolve) => this.#child.once("close", resolve));
    this.#child.kill("SIGKILL");
    await gone;
  }
}

export class FirewallBox {
  readonly network: FirewallNetwork;
  readonly directory: string;
  firewall: NetworkFirewall;
  readonly name: string;
  readonly #peers: Peer[] = [];
  readonly #guests: string[] = [];
  readonly #subnet: number;

  private constructor(name: string, directory: string, index: number) {
    this.name = name;
    this.directory = directory;
    this.#subnet = index % 200;
    const pair = uplinkPair(1_000_000 + index);
    this.network = {
      uid: `fwb${"0".repeat(13)}`,
      netns: `/run/netns/${name}-net`,
      uplink: { inner: "uplink", host: `${uplinkPrefix(name)}0`, ...pair },
      ranges: [`10.231.${this.#subnet}.0/24`, `fd31:0:0:${this.#subnet}::/64`],
      subnets: [
        {
          bridge: "br0",
          cidr: `10.231.${this.#subnet}.0/24`,
          gateway: this.address(1),
          ipv6: { cidr: `fd31:0:0:${this.#subnet}::/64`, gateway: this.address6(1) },
        },
      ],
      metadata: { port: 8775 },
      peerings: [],
    };
    this.firewall = this.restart();
  }

  /** `name` is the test's own: at most 10 letters. */
  static async make(name: string, index: number): Promise<FirewallBox> {
    const box = new FirewallBox(name, await mkdtemp(join(tmpdir(), `${name}-`)), index);
    await box.#build();
    return box;
  }

  address(host: number): string {
    return `10.231.${this.#subnet}.${host}`;
  }

  address6(host: number): string {
    return `fd31:0:0:${this.#subnet}::${host.toString(16)}`;
  }

  /** A new process takes over: the old one's nft processes end, its rules stay. */
  restart(): NetworkFirewall {
    this.firewall?.close();
    this.firewall = createNetworkFirewall({
      namespace: this.name,
      directory: join(this.directory, "firewall"),
      clock: systemClock,
      logger: createLogger("error"),
    });
    return this.firewall;
  }

  card(host: number, groups: readonly string[], metadata = false): CardPolicy {
    return {
      uid: `card${String(host).padStart(12, "0")}`,
      subnet: "main",
      port: `g${host}`,
      macAddress: `02:31:00:00:00:${host.toString(16).padStart(2, "0")}`,
      ipAddress: this.address(host),
      ipv6Address: this.address6(host),
      groups,
      metadata,
    };
  }

  async guest(host: number, ports: readonly number[] = []): Promise<Peer> {
    const netns = `${this.name}-g${host}`;
    const { macAddress, port } = this.card(host, []);
    await run("ip", ["netns", "add", netns]);
    this.#guests.push(netns);
    await ipBatch([
      `-n ${this.name}-net link add name ${port} type veth peer name eth0 address ${macAddress} netns ${netns}`,
      `-n ${this.name}-net link set dev ${port} master br0`,
      `-n ${this.name}-net link set dev ${port} type bridge_slave isolated on learning off flood off mcast_flood off`,
      `-n ${this.name}-net link set dev ${port} up`,
      `-n ${this.name}-net neigh replace ${this.address(host)} lladdr ${macAddress} dev br0 nud permanent`,
      `-n ${this.name}-net neigh replace ${this.address6(host)} lladdr ${macAddress} dev br0 nud permanent`,
      `-n ${netns} link set dev lo up`,
      `-n ${netns} link set dev eth0 up`,
      `-n ${netns} address add ${this.address(host)}/24 dev eth0`,
      `-n ${netns} address add ${this.address6(host)}/128 dev eth0 nodad`,
      `-n ${netns} route add default via ${this.address(1)}`,
      `-n ${netns} route add default via ${this.address6(1)} dev eth0 onlink`,
    ]);
    const bridge = ["bridge", "fdb", "replace", macAddress, "dev", port, "master", "static"];
    await this.inNetwork(...bridge);
    return await this.peer(netns, this.address(host), this.address6(host), ports);
  }

  async peer(netns: string, address: string, address6: string, ports: readonly number[]): Promise<Peer> {
    const peer = new Peer(netns, address, address6, ports);
    this.#peers.push(peer);
    await peer.ready;
    return peer;
  }

  async inNetwork(...command: string[]): Promise<string> {
    return (await run("nsenter", [`--net=${this.network.netns}`, ...command])).stdout;
  }

  async inGuest(host: number, ...command: string[]): Promise<{ status: number; stdout: string }> {
    const args = [`--net=/run/netns/${this.name}-g${host}`, ...command];
    return await run("nsenter", args, { expected: [0, 1], timeoutMs: 10_000 });
  }

  async remove(): Promise<void> {
    await this.firewall.remove(this.network.uid, never);
    await this.firewall.removeHost(never);
    this.firewall.close();
    for (const peer of this.#peers) await peer.end();
    await run("ip", ["link", "del", "dev", this.network.uplink.host], { expected: [0, 1] });
    await run("ip", ["link", "del", "dev", `${this.name}o`], { expected: [0, 1] });
    for (const netns of [...this.#guests, `${this.name}-net`, `${this.name}-out`]) {
      await run("ip", ["netns", "del", netns], { expected: [0, 1] });
    }
    await rm(this.directory, { recursive: true, force: true });
  }

  async #build(): Promise<void> {
    const { host, hostAddress, innerAddress } = this.network.uplink;
    const net = `${this.name}-net`;
    const out = `${this.name}-out`;
    const device = `${this.name}o`;
    await run("ip", ["netns", "add", net]);
    await run("ip", ["netns", "add", out]);
    await ipBatch([
      `link add name ${host} type veth peer name uplink netns ${net}`,
      `address add ${hostAddress}/31 dev ${host}`,
      `link set dev ${host} up`,
      `route add ${this.network.subnets[0]?.cidr} via ${innerAddress} dev ${host} onlink src ${hostAddress}`,
      `-n ${net} link set dev lo up`,
      `-n ${net} address add ${innerAddress}/31 dev uplink`,
      `-n ${net} link set dev uplink up`,
      `-n ${net} link add name br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0`,
      `-n ${net} link set dev br0 up`,
      `-n ${net} address add ${this.address(1)}/24 dev br0`,
      `-n ${net} address add ${this.address6(1)}/64 dev br0 nodad`,
      `-n ${net} route add default via ${hostAddress} dev uplink`,
      `link add name ${device} type veth peer name eth0 netns ${out}`,
      `address add ${hostLanAddress}/24 dev ${device}`,
      `link set dev ${device} up`,
      `-n ${out} link set dev lo up`,
      `-n ${out} address add ${outsideAddress}/24 dev eth0`,
      `-n ${out} link set dev eth0 up`,
    ]);
    const settings = [
      "net.ipv4.ip_forward=1",
      "net.ipv6.conf.all.forwarding=1",
      "net.ipv4.conf.br0.proxy_arp_pvlan=1",
      "net.ipv4.neigh.br0.proxy_delay=0",
      "net.ipv6.neigh.br0.proxy_delay=0",
      "net.ipv4.conf.all.send_redirects=0",
      "net.ipv4.conf.br0.send_redirects=0",
    ];
    await this.inNetwork("sysctl", "-q", "-w", ...settings);
  }
}

async function ipBatch(lines: readonly string[]): Promise<void> {
  for (const line of lines) await run("ip", line.split(" "));
}
