/**
 * Frames on interfaces of network namespaces: captured, and forged as an evil guest would. Both by a few lines of
 * Python, because Node.js has no packet sockets.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { systemClock } from "../src/core/clock.ts";
import { parseIp } from "../src/core/ip-range.ts";
import { run } from "../src/host/run.ts";
import type { Instance } from "../src/kinds/instance.ts";

export interface Frame {
  device: string;
  source: string;
  /** All of it. */
  hex: string;
}

const sniffer = `
import select, socket, sys
devices = {}
for name in sys.argv[1:]:
    s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    s.bind((name, 0))
    devices[s] = name
print("ready", flush=True)
while True:
    for s in select.select(list(devices) + [sys.stdin], [], [])[0]:
        if s is sys.stdin:
            sys.exit()
        data, where = s.recvfrom(65535)
        if where[2] != 4 or devices[s] != "uplink":
            print(devices[s], data.hex(), flush=True)
`;

/** What passes interfaces of a namespace, in both directions, until it is closed. */
export class FramesIn {
  readonly #child: ChildProcess;
  #text = "";

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.stdout?.setEncoding("utf8").on("data", (text: string) => {
      this.#text += text;
    });
  }

  static async open(netns: string, devices: readonly string[]): Promise<FramesIn> {
    const args = [`--net=${netns}`, "python3", "-c", sniffer, ...devices];
    const child = spawn("nsenter", args, { stdio: ["pipe", "pipe", "inherit"] });
    const capture = new FramesIn(child);
    const end = systemClock.monotonicMs() + 10_000;
    while (!capture.#text.includes("ready")) {
      if (child.exitCode !== null || systemClock.monotonicMs() > end)
        throw new Error(`cannot capture in ${netns}`);
      await systemClock.sleep(10);
    }
    return capture;
  }

  async close(): Promise<Frame[]> {
    const closed = once(this.#child, "close");
    this.#child.stdin?.end();
    await closed;
    return this.#text
      .split("\n")
      .filter((line) => line.includes(" "))
      .map((line) => {
        const [device = "", hex = ""] = line.split(" ");
        const source = (hex.slice(12, 24).match(/../g) ?? []).join(":");
        return { device, source, hex };
      });
  }
}

export type Forgery = "mac" | "ip" | "ipv6" | "arp" | "ra" | "na" | "dhcp";

/** In every forged frame; nothing else has it. */
export const marker = "f0f0f0f0f0f0f0f0";
const forgedMac = "02f0f0f0f0f0";
const everyone = "ffffffffffff";

const sender = `
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind(("eth0", 0))
for frame in sys.argv[1:]:
    for _ in range(3):
        s.send(bytes.fromhex(frame))
`;

/** Sends them from inside the namespace of a guest's process, as root of that guest could. */
export async function sendFrames(
  pid: number,
  kind: Forgery,
  scene: { from: Instance; to: Instance; gateway: string },
): Promise<void> {
  const netns = `--net=/proc/${pid}/ns/net`;
  await run("nsenter", [netns, "busybox", "ping", "-c", "1", "-W", "2", scene.gateway], { expected: [0, 1] });
  const { stdout } = await run("nsenter", [netns, "ip", "neigh", "show", scene.gateway]);
  const gatewayMac = /lladdr (\S+)/.exec(stdout)?.[1]?.replaceAll(":", "") ?? everyone;
  const frames = forge(kind, nicOf(scene.from), nicOf(scene.to), { ip: scene.gateway, mac: gatewayMac });
  await run("nsenter", [netns, "python3", "-c", sender, ...frames]);
}

interface Nic {
  mac: string;
  ip: string;
  ipv6: string;
}

function nicOf(instance: Instance): Nic {
  const nic = instance.status.nic;
  if (nic?.ipv6Address === undefined) throw new Error(`${instance.metadata.name} has no IPv6 address`);
  return { mac: nic.macAddress.replaceAll(":", ""), ip: nic.ipAddress, ipv6: nic.ipv6Address };
}

function forge(kind: Forgery, from: Nic, to: Nic, gateway: { ip: string; mac: string }): string[] {
  const allNodes = ["333300000001", "ff020000000000000000000000000001"] as const;
  const linkLocal = eui64LinkLocal(from.mac);
  const toGatewayAndPeer = (source: string, type: string, body: string) =>
    [gateway.mac, to.mac, everyone].map((target) => `${target}${source}${type}${body}`);
  switch (kind) {
    case "mac":
      return toGatewayAndPeer(forgedMac, "0800", ipv4(address(from.ip), address(to.ip), udp("1234", "1234")));
    case "ip":
      return toGatewayAndPeer(from.mac, "0800", ipv4("0a006363", address(to.ip), udp("1234", "1234")));
    case "ipv6": {
      const forged = `${address(from.ipv6).slice(0, 28)}dead`;
      return toGatewayAndPeer(
        from.mac,
        "86dd",
        ipv6(forged, address(to.ipv6), "3a", icmpv6("8000", "00000000", forged, address(to.ipv6))),
      );
    }
    case "arp": {
      const claim = `0001080006040002${forgedMac}${address(gateway.ip)}${to.mac}${address(to.ip)}`;
      return [everyone, to.mac].map(
        (target) => `${target}${from.mac}0806${claim}${marker}${"00".repeat(10)}`,
      );
    }
    case "ra": {
      const body = icmpv6("8600", `40080708${"00".repeat(8)}`, linkLocal, allNodes[1]);
      return [allNodes[0], to.mac].map(
        (target) => `${target}${from.mac}86dd${ipv6(linkLocal, allNodes[1], "3a", body)}`,
      );
    }
    case "na": {
      const target = address(from.ipv6).slice(0, 31).concat("1");
      const body = icmpv6("8800", `20000000${target}0201${forgedMac}`, linkLocal, allNodes[1]);
      return [allNodes[0], to.mac].map(
        (mac) => `${mac}${from.mac}86dd${ipv6(linkLocal, allNodes[1], "3a", body)}`,
      );
    }
    case "dhcp":
      return [everyone, to.mac].map(
        (target) => `${target}${from.mac}0800${ipv4(address(from.ip), "ffffffff", udp("0043", "0044"))}`,
      );
  }
}

function address(text: string): string {
  const parsed = parseIp(text);
  if (!parsed) throw new Error(`${text} is no address`);
  return parsed.value.toString(16).padStart(parsed.family === 4 ? 8 : 32, "0");
}

function udp(source: string, target: string): string {
  const length = (8 + marker.length / 2).toString(16).padStart(4, "0");
  return `${source}${target}${length}0000${marker}`;
}

function ipv4(source: string, target: string, body: string): string {
  const length = (20 + body.length / 2).toString(16).padStart(4, "0");
  const head = (checksumText: string) => `4500${length}00014000ff11${checksumText}${source}${target}`;
  return head(checksum(head("0000"))) + body;
}

function ipv6(source: string, target: string, next: string, body: string): string {
  return `60000000${(body.length / 2).toString(16).padStart(4, "0")}${next}ff${source}${target}${body}`;
}

/** `type`: type and code. The marker is an option that nobody knows, or data. */
function icmpv6(type: string, rest: string, source: string, target: string): string {
  const option = type === "8000" ? marker : `fd02${marker}${"f0".repeat(6)}`;
  const body = (sum: string) => `${type}${sum}${rest}${option}`;
  const length = (body("0000").length / 2).toString(16).padStart(8, "0");
  return body(checksum(`${source}${target}${length}0000003a${body("0000")}`));
}

/** RFC 1071. */
function checksum(hex: string): string {
  let sum = 0;
  for (const word of hex.padEnd(Math.ceil(hex.length / 4) * 4, "0").match(/.{4}/g) ?? [])
    sum += Number.parseInt(word, 16);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return (~sum & 0xffff).toString(16).padStart(4, "0");
}

function eui64LinkLocal(mac: string): string {
  const first = (Number.parseInt(mac.slice(0, 2), 16) ^ 2).toString(16).padStart(2, "0");
  return `fe80000000000000${first}${mac.slice(2, 6)}fffe${mac.slice(6)}`;
}
