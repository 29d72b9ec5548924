/**
 * A guest that is nothing but a network namespace with a port in a network: enough to prove that addresses, names,
 * routes and rules work, in milliseconds.
 */
import { chmod, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { NetworkAttachment } from "../src/host/networks/networks.ts";
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

export class NetnsGuest {
  readonly name: string;
  readonly #script: string;

  private constructor(name: string, script: string) {
    this.name = name;
    this.#script = script;
  }

  /** `name` names namespace and port (at most 15 characters); `directory` is the test's own. */
  static async join(
    name: string,
    network: NetworkAttachment,
    macAddress: string,
    directory: string,
  ): Promise<NetnsGuest> {
    const script = join(directory, "udhcpc.sh");
    await writeFile(script, udhcpcScript);
    await chmod(script, 0o755);
    await run("ip", ["netns", "add", name]);
    const inNetwork = (...args: string[]) => run("nsenter", [`--net=${network.netns}`, "ip", ...args]);
    const peer = ["peer", "name", "eth0", "address", macAddress, "netns", name];
    await inNetwork("link", "add", "name", name, "type", "veth", ...peer);
    await inNetwork("link", "set", "dev", name, "master", network.bridge, "up");
    const guest = new NetnsGuest(name, script);
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

  /** The address the network's DNS server gives for a name. */
  async resolve(name: string, server: string): Promise<string | undefined> {
    const { stdout } = await run(
      "nsenter",
      [...this.#inside(), "busybox", "nslookup", "-type=a", name, server],
      {
        expected: [0, 1],
      },
    );
    return /Name:.*\nAddress(?: 1)?: ([\d.]+)/.exec(stdout)?.[1];
  }

  async pings(address: string): Promise<boolean> {
    return await pings(address, this.#inside());
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
export async function pings(address: string, nsenter: readonly string[] = []): Promise<boolean> {
  const { status } = await run("nsenter", [...nsenter, "busybox", "ping", "-c", "1", "-W", "1", address], {
    expected: [0, 1],
  });
  return status === 0;
}
