/**
 * How a guest's port joins its subnet's bridge; the same for every driver.
 *
 * Ports are isolated: frames pass between a port and the gateway, never from port to port, so nothing that a guest sends
 * (forged ARP, router advertisements, DHCP offers) reaches another but through the gateway's rules. The bridge learns
 * nothing from a port: the one hardware address behind it is a static entry, and frames for unknown ones go nowhere. All of
 * that is in force before the port comes up. docs/rfd/0003-networks.md, decision 2.
 */
import { StrataError } from "../../core/errors.ts";
import { run } from "../run.ts";

export interface BridgePort {
  /** Name of the interface in the network's namespace; it exists. */
  port: string;
  bridge: string;
  /** The guest's. */
  macAddress: string;
}

const interfaceName = /^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$/;
const hardwareAddress = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/i;

/**
 * Lines for `ip -batch`, and then for `bridge -batch`, in the network's namespace; afterwards the port may be set up. They
 * may be repeated.
 * @throws Invalid for what is no name or hardware address: the lines are parsed.
 */
export function renderBridgePort({ port, bridge, macAddress }: BridgePort): { ip: string; bridge: string } {
  for (const name of [port, bridge]) {
    if (!interfaceName.test(name)) {
      throw new StrataError("Invalid", `"${name}" is no name for a network interface`);
    }
  }
  if (!hardwareAddress.test(macAddress)) {
    throw new StrataError("Invalid", `"${macAddress}" is no hardware address for the network port ${port}`);
  }
  return {
    // It speaks for nobody itself: without an address of its own it sends the guest nothing.
    ip: `link set dev ${port} addrgenmode none\nlink set dev ${port} master ${bridge}\nlink set dev ${port} type bridge_slave isolated on learning off flood off mcast_flood off\n`,
    bridge: `fdb replace ${macAddress} dev ${port} master static\n`,
  };
}

/** Arguments: the three texts, in the order in which they are to be carried out. */
const joinScript = `
set -e
printf %s "$1" | ip -batch -
printf %s "$2" | bridge -batch -
printf %s "$3" | ip -batch -`;

/**
 * Joins the ports to their bridges and sets them up, all by one process in the namespace at the path `netns`.
 * @param before lines for `ip -batch` that make the ports.
 */
export async function joinBridge(
  netns: string,
  ports: readonly BridgePort[],
  options: { before?: string; signal?: AbortSignal } = {},
): Promise<void> {
  const texts = ports.map(renderBridgePort);
  const up = ports.map(({ port }) => `link set dev ${port} up\n`);
  const ip = `${options.before ?? ""}${texts.map((text) => text.ip).join("")}`;
  const bridge = texts.map((text) => text.bridge).join("");
  await run(
    "nsenter",
    [`--net=${netns}`, "--", "sh", "-c", joinScript, "sh", ip, bridge, up.join("")],
    options.signal === undefined ? {} : { signal: options.signal },
  );
}
