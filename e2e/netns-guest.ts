/**
 * A guest that is nothing but a network namespace with a port in a network: enough to prove that addresses, names,
 * routes and rules work, in milliseconds.
 */
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../src/core/clock.ts";
import { joinBridge } from "../src/host/networks/bridge-port.ts";
import type { SubnetAttachment } from "../src/host/networks/networks.ts";
import { run } from "../src/host/run.ts";

export interface DhcpAnswer {
  ip: string;
  router: string;
  dns: string;
  domain: string;
  search: string;
  mtu: string;
}

const udhcpcScript = `#!/bin/sh
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev eth0
ip route replace default via "$router"
printf '{"ip":"%s","router":"%s","dns":"%s","domain":"%s","search":"%s","mtu":"%s"}\\n' \\
  "$ip" "$router" "$dns" "$domain" "$search" "$mtu"
`;

/** Arguments: hardware address, seconds. Asks for one address (RFC 8415: solicit, then request) and prints it. */
const dhcp6Client = `
import socket, struct, sys
mac = bytes.fromhex(sys.argv[1].replace(":", ""))
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
s.settimeout(float(sys.argv[2]))
s.bind(("::", 546))
def option(code, data):
    return struct.pack("!HH", code, len(data)) + data
def options(data):
    found = {}
    while len(data) >= 4:
        code, length = struct.unpack("!HH", data[:4])
        found[code] = data[4:4 + length]
        data = data[4 + length:]
    return found
client = option(1, b"\\0\\3\\0\\1" + mac) + option(8, b"\\0\\0") + option(6, struct.pack("!HH", 23, 24))
def ask(kind, more, inner=b""):
    message = bytes([kind]) + mac[3:6] + client + more + option(3, b"\\0" * 11 + b"\\1" + inner)
    s.sendto(message, ("ff02::1:2", 547, 0, socket.if_nametoindex("eth0")))
    answer, _ = s.recvfrom(2048)
    return options(answer[4:])
try:
    offer = ask(1, b"")
    offered = options(offer.get(3, b"")[12:]).get(5)
    if offered:
        answer = ask(3, option(2, offer[2]), option(5, offered))
        address = options(answer[3][12:])[5]
        print(socket.inet_ntop(socket.AF_INET6, address[:16]))
except socket.timeout:
    pass
`;

export class NetnsGuest {
  readonly name: string;
  readonly macAddress: string;
  readonly #script: string;

  private constructor(name: string, macAddress: string, script: string) {
    this.name = name;
    this.macAddress = macAddress;
    this.#script = script;
  }

  /** `name` names namespace and port (at most 15 characters); `directory` is the test's own. */
  static async join(
    name: string,
    place: { netns: string; mtu: number; subnet: SubnetAttachment | undefined },
    macAddress: string,
    directory: string,
  ): Promise<NetnsGuest> {
    const { netns, mtu, subnet } = place;
    if (!subnet) throw new Error("the network has no such subnet");
    const script = join(directory, "udhcpc.sh");
    await writeFile(script, udhcpcScript);
    await chmod(script, 0o755);
    await run("ip", ["netns", "add", name]);
    const guest = new NetnsGuest(name, macAddress, script);
    // Nobody waits for duplicates to be looked for.
    await guest.run("sh", "-c", "echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad");
    const peer = `peer name eth0 address ${macAddress} mtu ${mtu} netns ${name}`;
    const before = `link add name ${name} mtu ${mtu} type veth ${peer}\n`;
    await joinBridge(netns, [{ port: name, bridge: subnet.bridge, macAddress }], { before });
    await guest.run("ip", "link", "set", "dev", "lo", "up");
    await guest.run("ip", "link", "set", "dev", "eth0", "up");
    return guest;
  }

  /** Asks for an address, for at most `seconds`; undefined when there was no answer. */
  async dhcp(seconds = 3): Promise<DhcpAnswer | undefined> {
    const options = ["-O", "search", "-O", "mtu", "-i", "eth0", "-s", this.#script];
    const { stdout } = await run(
      "nsenter",
      [
        ...this.#inside(),
        "busybox",
        "udhcpc",
        "-n",
        "-q",
        "-f",
        "-t",
        String(seconds),
        "-T",
        "1",
        ...options,
      ],
      { expected: [0, 1] },
    );
    const line = stdout.split("\n").find((text) => text.startsWith("{"));
    return line === undefined ? undefined : (JSON.parse(line) as DhcpAnswer);
  }

  /** Asks for an IPv6 address and takes it, with the route that was advertised; undefined when there was no answer. */
  async dhcp6(seconds = 3): Promise<string | undefined> {
    const address = (await this.run("python3", "-c", dhcp6Client, this.macAddress, String(seconds))).trim();
    if (address === "") return undefined;
    await this.run("ip", "address", "replace", `${address}/128`, "dev", "eth0", "nodad");
    // The kernel asks for advertisements some time within a second after the link is up.
    for (let tries = 0; tries < 100; tries++) {
      if ((await this.run("ip", "-6", "route")).includes("default via fe80::1")) return address;
      await systemClock.sleep(50);
    }
    throw new Error(`${this.name} has an address and no route`);
  }

  /** The address the network's DNS server gives for a name, or the name for an address. */
  async resolve(name: string, server: string, type: "a" | "aaaa" | "ptr" = "a"): Promise<string | undefined> {
    const { stdout } = await run(
      "nsenter",
      [...this.#inside(), "busybox", "nslookup", ...(type === "ptr" ? [] : [`-type=${type}`]), name, server],
      { expected: [0, 1] },
    );
    if (type === "ptr") return /name = (\S+)/.exec(stdout)?.[1];
    return /Name:.*\nAddress(?: 1)?: ([\da-f.:]+)/.exec(stdout)?.[1];
  }

  async pings(address: string, ...options: string[]): Promise<boolean> {
    return await pings(address, this.#inside(), options);
  }

  async run(...command: string[]): Promise<string> {
    return (await run("nsenter", [...this.#inside(), ...command])).stdout;
  }

  async leave(): Promise<void> {
    await run("ip", ["netns", "del", this.name], { expected: [0, 1] });
  }

  #inside(): string[] {
    return [`--net=/run/netns/${this.name}`];
  }
}

/** One echo request answered within a second; from the host itself, or from the namespace that `nsenter` enters. */
export async function pings(
  address: string,
  nsenter: readonly string[] = [],
  more: readonly string[] = [],
): Promise<boolean> {
  const ping = ["busybox", "ping", "-c", "1", "-W", "1", ...more, address];
  const { status } = await run("nsenter", [...nsenter, ...ping], { expected: [0, 1] });
  return status === 0;
}

/** From the host, with one of its addresses. */
export async function pingsFrom(source: string, address: string): Promise<boolean> {
  return await pings(address, [], ["-I", source]);
}
