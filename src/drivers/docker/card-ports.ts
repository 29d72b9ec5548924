/**
 * A guest's network cards: pairs of interfaces, one end a port of the network's bridge, the other end in the
 * container's own network namespace. Both namespaces are entered from here; nothing inside the container takes part.
 *
 * The container's namespaces are held open as files from before the container is found to be the right one until all is
 * done, so a process id that is used again meanwhile leads nowhere else. Programs that change something die with us: one
 * that was under way when a daemon was killed would undo what the next one does.
 */
import { constants } from "node:fs";
import { access, type FileHandle, open, stat } from "node:fs/promises";
import { StrataError } from "../../core/errors.ts";
import { joinBridge } from "../../host/networks/bridge-port.ts";
import { runWithUs } from "../../host/networks/run-with-us.ts";
import { run } from "../../host/run.ts";
import type { GuestNic } from "../driver.ts";

const firstMetric = 256;
const otherMetric = 1_024;

/** Paths of a container's namespaces, valid until disposed. */
export interface HeldNamespaces extends AsyncDisposable {
  net: string;
  uts: string;
}

/** @throws Unavailable when the process is gone, Internal when it shares the host's network. */
export async function holdNamespaces(pid: number): Promise<HeldNamespaces> {
  const files: FileHandle[] = [];
  const release = async () => {
    for (const file of files) await file.close();
  };
  try {
    for (const name of ["net", "uts"]) {
      files.push(await open(`/proc/${pid}/ns/${name}`, constants.O_RDONLY));
    }
    const [net, uts] = files.map((file) => `/proc/${process.pid}/fd/${file.fd}`);
    if (net === undefined || uts === undefined)
      throw new StrataError("Internal", "no namespaces were opened");
    const [guest, host] = await Promise.all([stat(net), stat("/proc/self/ns/net")]);
    if (guest.ino === host.ino && guest.dev === host.dev) {
      throw new StrataError("Internal", "the container has no network namespace of its own", {
        detail: `process ${pid}`,
      });
    }
    return { net, uts, [Symbol.asyncDispose]: release };
  } catch (cause) {
    await release();
    if (cause instanceof StrataError) throw cause;
    throw new StrataError("Unavailable", "the container has just ended", { cause });
  }
}

/**
 * Arguments: the commands for `ip -4` and `ip -6`. With several cards in one range, each answers for its own addresses
 * only. Docker switches IPv6 off in new namespaces; addresses and routes come from here, so advertisements are not
 * listened to.
 */
const insideScript = `set -e
net=/proc/sys/net
echo 1 > $net/ipv4/conf/all/arp_ignore
echo 2 > $net/ipv4/conf/all/arp_announce
printf %s "$1" | ip -4 -batch -
[ -n "$2" ] || exit 0
for name in all default; do
  echo 0 > $net/ipv6/conf/$name/accept_ra
  echo 0 > $net/ipv6/conf/$name/disable_ipv6
done
printf %s "$2" | ip -6 -batch -`;

/** Alias of a port whose card is complete. */
const complete = "complete";

export interface PlugOptions {
  /** The guest's own card, which has the default routes. */
  first: boolean;
  /** Nothing was ever done in the guest's namespace for this card. */
  fresh: boolean;
  signal: AbortSignal;
}

/**
 * Makes the card and joins it to its bridge; one with the same port is made anew. What fails leaves nothing.
 * @throws Unavailable when the network is not there.
 */
export async function plugCard(nic: GuestNic, guest: HeldNamespaces, options: PlugOptions): Promise<void> {
  const { first, fresh, signal } = options;
  await unplugCard(nic);
  if (!fresh) await forgetRules(nic, guest);
  const peer = `peer name ${nic.name} address ${nic.macAddress} mtu ${nic.mtu} netns ${guest.net}`;
  const pair = `link add name ${nic.port} mtu ${nic.mtu} type veth ${peer}\n`;
  const inside = insideCommands(nic, first);
  try {
    await joinBridge(nic.netns, [nic], { before: pair, signal });
    const batches = [inside.ipv4, inside.ipv6].map((lines) => lines.map((line) => `${line}\n`).join(""));
    await runWithUs("nsenter", [`--net=${guest.net}`, "--", "sh", "-c", insideScript, "sh", ...batches], {
      signal,
    });
    if (!first) {
      const mark = ["ip", "link", "set", "dev", nic.port, "alias", complete];
      await runWithUs("nsenter", [`--net=${nic.netns}`, "--", ...mark], { signal });
    }
  } catch (cause) {
    await unplugCard(nic);
    signal.throwIfAborted();
    throw new StrataError(
      "Unavailable",
      `cannot join the guest's network card ${nic.name} to bridge ${nic.bridge}; the network is probably not ready`,
      { cause },
    );
  }
}

/**
 * What the guest's side of the card is given, for `ip -4` and `ip -6`. IPv6 neighbours are reached through the gateway,
 * as the network's router advertisements tell others; so the address does not make its range a local one. What is sent
 * from a further card's address leaves by that card, whatever the other routes are: a port passes no other addresses
 * than its own.
 */
export function insideCommands(nic: GuestNic, first: boolean): { ipv4: string[]; ipv6: string[] } {
  const { name, gateway, ipAddress } = nic;
  const table = tableOf(nic);
  const ipv4 = [
    `address add ${ipAddress}/${nic.prefixLength} brd + dev ${name}`,
    `link set dev ${name} up`,
    ...(first
      ? [`route add default via ${gateway} dev ${name} onlink`]
      : [
          `route add default via ${gateway} dev ${name} onlink table ${table}`,
          `rule add from ${ipAddress} lookup ${table}`,
        ]),
  ];
  if (nic.ipv6 === undefined) return { ipv4, ipv6: [] };
  const { address, prefixLength, gateway: gateway6 } = nic.ipv6;
  const metric = first ? firstMetric : otherMetric + (table % 65_536);
  const onLink = gateway6.toLowerCase().startsWith("fe80:") ? [] : [`route add ${gateway6}/128 dev ${name}`];
  const ipv6 = [
    `address add ${address}/128 dev ${name} nodad`,
    ...onLink.map((command) => `${command} metric ${metric}`),
    `route add ${rangeOf(address, prefixLength)} via ${gateway6} dev ${name} metric ${metric}`,
    ...(first
      ? [`route add default via ${gateway6} dev ${name}`]
      : [
          ...onLink.map((command) => `${command} table ${table}`),
          `route add default via ${gateway6} dev ${name} table ${table}`,
          `rule add from ${address} lookup ${table}`,
        ]),
  ];
  return { ipv4, ipv6 };
}

/** Routing tables have 32 bits, and so has the address whose traffic a table is for. */
function tableOf({ ipAddress }: Pick<GuestNic, "ipAddress">): number {
  return ipAddress.split(".").reduce((number, part) => number * 256 + Number(part), 0);
}

/** Takes back the rules of a card that a running guest loses; its addresses and routes go with the interface. */
export async function forgetRules(nic: GuestNic, guest: HeldNamespaces): Promise<void> {
  const sources: [string, string | undefined][] = [
    ["-4", nic.ipAddress],
    ["-6", nic.ipv6?.address],
  ];
  for (const [family, address] of sources) {
    if (address === undefined) continue;
    const rule = ["rule", "delete", "from", address, "lookup", `${tableOf(nic)}`];
    // One that is gone already is no failure.
    await runWithUs("nsenter", [`--net=${guest.net}`, "--", "ip", family, ...rule], {
      expected: [0, 1, 2, 255],
    });
  }
}

/** The range that an address is in: `ip` wants the rest of it to be zero. */
export function rangeOf(address: string, prefixLength: number): string {
  const [head = "", tail] = address.split("::");
  const groups = (text: string) => (text === "" ? [] : text.split(":"));
  const before = groups(head);
  const after = tail === undefined ? [] : groups(tail);
  const zeros = Array.from({ length: 8 - before.length - after.length }, () => "0");
  const all = [...before, ...zeros, ...after].map((group, index) => {
    const bits = Math.max(0, Math.min(16, prefixLength - index * 16));
    return (Number.parseInt(group, 16) & (0xffff << (16 - bits))).toString(16);
  });
  return `${all.join(":")}/${prefixLength}`;
}

/** Is a further card there, complete, in this very container? */
export async function isPlugged(
  nic: Pick<GuestNic, "netns" | "port" | "macAddress">,
  guest: HeldNamespaces,
): Promise<boolean> {
  const inside = await run("nsenter", [`--net=${guest.net}`, "--", "ip", "-o", "link", "show"]);
  if (!inside.stdout.toLowerCase().includes(` ${nic.macAddress.toLowerCase()} `)) return false;
  const show = ["ip", "-j", "link", "show", "dev", nic.port];
  const { stdout, status } = await run("nsenter", [`--net=${nic.netns}`, "--", ...show], {
    expected: [0, 1],
  });
  if (status !== 0) return false;
  const [port] = JSON.parse(stdout) as { ifalias?: string }[];
  return port?.ifalias === complete;
}

/** Absent is success, and so is an absent namespace. */
export async function unplugCard({ netns, port }: Pick<GuestNic, "netns" | "port">): Promise<void> {
  const namespaceExists = await access(netns).then(
    () => true,
    () => false,
  );
  if (!namespaceExists) return;
  const args = [`--net=${netns}`, "--", "ip", "link", "delete", "dev", port];
  const { stderr, status } = await runWithUs("nsenter", args, { expected: [0, 1, 2] });
  // It goes with its other end as well, also between the moments at which `ip` looks for it and asks for its end.
  if (status === 0 || /Cannot find device|No such device/.test(stderr)) return;
  throw new StrataError("Internal", `cannot remove the guest's network card ${port}`, {
    detail: stderr.slice(-500),
  });
}

/** The kernel's own name of the machine, which the Engine fixes when it makes a container. */
export async function setHostname(guest: HeldNamespaces, hostname: string): Promise<void> {
  await run("nsenter", [`--uts=${guest.uts}`, "--", "hostname", hostname]);
}
