/**
 * A guest's place on its network's bridge: a TAP interface in the network's namespace. It is made before QEMU starts,
 * owned by QEMU's user id (which may attach to it and do nothing else), and deleted when the run is over; without QEMU
 * it has no carrier, so one that waits for its deletion is of no harm.
 */
import { access, chmod, stat } from "node:fs/promises";
import { hasCode, StrataError } from "../../core/errors.ts";
import { joinBridge } from "../../host/networks/bridge-port.ts";
import { run } from "../../host/run.ts";
import type { GuestNic } from "../driver.ts";

const tunDevice = "/dev/net/tun";

/** Makes the port and joins it to the bridge; one that is there is made anew. @throws Unavailable with what is missing. */
export async function makePort(nic: GuestNic, processUid: number, signal: AbortSignal): Promise<void> {
  const make = `tuntap add dev ${nic.port} mode tap user ${processUid} group ${processUid}\nlink set dev ${nic.port} mtu ${nic.mtu}\n`;
  await removePort(nic);
  try {
    await joinBridge(nic.netns, [nic], { before: make, signal });
  } catch (cause) {
    signal.throwIfAborted();
    if (hasCode(cause, "Invalid")) throw cause;
    throw new StrataError(
      "Unavailable",
      `cannot join the guest's network card ${nic.port} to bridge ${nic.bridge}; the network is probably not ready`,
      { cause },
    );
  }
}

/** Absent is success, and so is an absent namespace. */
export async function removePort(nic: Pick<GuestNic, "netns" | "port">): Promise<void> {
  const namespaceExists = await access(nic.netns).then(
    () => true,
    () => false,
  );
  if (!namespaceExists) return;
  const { stderr, status } = await run(
    "nsenter",
    [`--net=${nic.netns}`, "--", "ip", "link", "delete", "dev", nic.port],
    { expected: [0, 1] },
  );
  if (status === 0 || /Cannot find device/.test(stderr)) return;
  throw new StrataError("Internal", `cannot remove the guest's network card ${nic.port}`, {
    detail: stderr.slice(-500),
  });
}

/**
 * QEMU opens /dev/net/tun itself. Everyone may do so on a host with udev (mode 0666 in systemd's own rules): which
 * interfaces one may attach to is decided by their owner. Hosts without udev are brought to the same state.
 */
export async function ensureTunAccess(): Promise<void> {
  const found = await stat(tunDevice).catch((cause) => {
    throw new StrataError("Unavailable", `${tunDevice} is missing; load the kernel module tun`, { cause });
  });
  if ((found.mode & 0o006) !== 0o006) await chmod(tunDevice, 0o666);
}
