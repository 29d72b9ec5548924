/**
 * A guest's place on its network's bridge: a TAP interface in the network's namespace. It is made before QEMU starts,
 * owned by QEMU's user id (which may attach to it and do nothing else), and deleted when the run is over; without QEMU
 * it has no carrier, so one that waits for its deletion is of no harm.
 *
 * QEMU lives in the namespace of its guest's first card and finds interfaces only there. Further cards begin there as well
 * and, once QEMU has hold of them, are sent to the network that they belong to. A port's alias is its run's id, set last:
 * it says that the card is complete and of this run.
 */
import { access, chmod, stat } from "node:fs/promises";
import { hasCode, StrataError } from "../../core/errors.ts";
import { joinBridge, renderBridgePort } from "../../host/networks/bridge-port.ts";
import { run } from "../../host/run.ts";
import type { GuestNic } from "../driver.ts";

const tunDevice = "/dev/net/tun";

/** Makes the port and joins it to the bridge; one that is there is made anew. @throws Unavailable with what is missing. */
export async function makePort(nic: GuestNic, processUid: number, signal: AbortSignal): Promise<void> {
  await removePort(nic);
  try {
    await joinBridge(nic.netns, [nic], { before: makeTap(nic, processUid), signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw cannotJoin(nic, cause);
  }
}

/** Makes the port of a further card in QEMU's namespace, where QEMU takes hold of it. What is there is made anew. */
export async function makeLoosePort(
  nic: GuestNic,
  home: string,
  processUid: number,
  signal: AbortSignal,
): Promise<void> {
  renderBridgePort(nic); // as a check of its names
  await removeFurtherPort(nic, home);
  const args = [`--net=${home}`, "--", "ip", "-batch", "-"];
  await run("nsenter", args, { input: makeTap(nic, processUid), signal });
}

/** Sends a port that QEMU has hold of to its network and joins it to its bridge there. May be repeated. */
export async function joinFurtherPort(
  nic: GuestNic,
  home: string,
  mark: string,
  signal: AbortSignal,
): Promise<void> {
  try {
    if (nic.netns !== home) {
      const args = [`--net=${home}`, "--", "ip", "link", "set", "dev", nic.port, "netns", nic.netns];
      // Not there: it was sent before.
      await run("nsenter", args, { expected: [0, 1], signal });
    }
    await joinBridge(nic.netns, [nic], { signal });
    const args = [`--net=${nic.netns}`, "--", "ip", "link", "set", "dev", nic.port, "alias", mark];
    await run("nsenter", args, { signal });
  } catch (cause) {
    signal.throwIfAborted();
    throw cannotJoin(nic, cause);
  }
}

/** The run in which the port of a further card was completed. */
export async function markOfPort({
  netns,
  port,
}: Pick<GuestNic, "netns" | "port">): Promise<string | undefined> {
  const args = [`--net=${netns}`, "--", "ip", "-j", "link", "show", "dev", port];
  const { stdout, status } = await run("nsenter", args, { expected: [0, 1] });
  if (status !== 0) return undefined;
  const [link] = JSON.parse(stdout) as { ifalias?: string }[];
  return link?.ifalias;
}

/** Wherever it is. Absent is success. */
export async function removeFurtherPort(
  nic: Pick<GuestNic, "netns" | "port">,
  home: string | undefined,
): Promise<void> {
  await removePort(nic);
  if (home !== undefined && home !== nic.netns) await removePort({ netns: home, port: nic.port });
}

function makeTap(nic: GuestNic, processUid: number): string {
  return `tuntap add dev ${nic.port} mode tap user ${processUid} group ${processUid}\nlink set dev ${nic.port} mtu ${nic.mtu}\n`;
}

function cannotJoin(nic: GuestNic, cause: unknown): unknown {
  if (hasCode(cause, "Invalid")) return cause;
  return new StrataError(
    "Unavailable",
    `cannot join the guest's network card ${nic.port} to bridge ${nic.bridge}; the network is probably not ready`,
    { cause },
  );
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
