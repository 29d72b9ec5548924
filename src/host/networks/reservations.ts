/**
 * Guests' addresses and names as files, one each a guest, in directories that dnsmasq watches. A file appears by a
 * rename from outside (dnsmasq would read a half-written one). A DHCP file is not removed but moved to `forgotten/`
 * until the DHCP process, which still remembers its lease, has been restarted: so a crash in between is noticed.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { isUid, namePattern } from "../../core/ids.ts";
import { dhcpDirectory, hostsDirectory } from "./dnsmasq-config.ts";
import { parseIpv4 } from "./ipv4.ts";
import type { Reservation } from "./networks.ts";

const macPattern = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

export class Reservations {
  readonly #directory: string;

  /** `directory`: the network's. */
  constructor(directory: string) {
    this.#directory = directory;
  }

  async makeDirectories(): Promise<void> {
    for (const path of [
      dhcpDirectory(this.#directory),
      hostsDirectory(this.#directory),
      this.#forgottenDirectory(),
    ]) {
      await mkdir(path, { recursive: true, mode: 0o755 });
    }
  }

  /**
   * Writes a guest's reservation. Returns true when the DHCP process has to be restarted before it can serve it: the
   * guest had another one, or the address still belongs to a lease of somebody else.
   */
  async put(reservation: Reservation): Promise<boolean> {
    const { dhcp, hosts } = renderReservation(reservation);
    const dhcpFile = join(dhcpDirectory(this.#directory), reservation.uid);
    const hostsFile = join(hostsDirectory(this.#directory), reservation.uid);
    const before = await readIfThere(dhcpFile);
    if (before !== dhcp) {
      if (before !== undefined) await this.#forget(reservation.uid);
      await this.#write(dhcpFile, dhcp);
    }
    if ((await readIfThere(hostsFile)) !== hosts) await this.#write(hostsFile, hosts);
    return await this.#isRemembered(dhcp);
  }

  /** Takes a guest's reservation away; absent is success. */
  async remove(guestUid: string): Promise<void> {
    if (!isUid(guestUid)) throw new StrataError("Invalid", `"${guestUid}" is not the uid of a guest`);
    await rm(join(hostsDirectory(this.#directory), guestUid), { force: true });
    await this.#forget(guestUid);
  }

  /** Names of the files of reservations that are gone, and that the DHCP process may still remember. */
  async forgotten(): Promise<string[]> {
    return await readdir(this.#forgottenDirectory()).catch(ignoreMissing([]));
  }

  /** The DHCP process was restarted after `names` had been read: it remembers none of them. */
  async clearForgotten(names: readonly string[]): Promise<void> {
    for (const name of names) await rm(join(this.#forgottenDirectory(), name), { force: true });
  }

  /** True when a forgotten lease of another hardware address holds the same address, or the same hardware address another. */
  async #isRemembered(dhcp: string): Promise<boolean> {
    const [mac, address] = dhcp.trim().split(",");
    for (const name of await this.forgotten()) {
      const old = await readIfThere(join(this.#forgottenDirectory(), name));
      const [oldMac, oldAddress] = (old ?? "").trim().split(",");
      if ((oldAddress === address) !== (oldMac === mac)) return true;
    }
    return false;
  }

  async #forget(guestUid: string): Promise<void> {
    const from = join(dhcpDirectory(this.#directory), guestUid);
    await rename(from, join(this.#forgottenDirectory(), guestUid)).catch(ignoreMissing(undefined));
  }

  async #write(file: string, text: string): Promise<void> {
    const temporary = join(this.#directory, "reservation.new");
    await writeFile(temporary, text, { mode: 0o644 });
    await rename(temporary, file);
  }

  #forgottenDirectory(): string {
    return join(this.#directory, "forgotten");
  }
}

/** The lines for dnsmasq. @throws Invalid: nothing that means more than itself gets into its files. */
export function renderReservation(reservation: Reservation): { dhcp: string; hosts: string } {
  const { uid, hostname, macAddress, ipAddress } = reservation;
  const wrong = [
    isUid(uid) ? undefined : `uid "${uid}"`,
    namePattern.test(hostname) ? undefined : `host name "${hostname}"`,
    macPattern.test(macAddress) ? undefined : `hardware address "${macAddress}"`,
    parseIpv4(ipAddress) !== undefined ? undefined : `address "${ipAddress}"`,
  ].find((problem) => problem !== undefined);
  if (wrong) throw new StrataError("Invalid", `cannot reserve an address for a guest with the ${wrong}`);
  return { dhcp: `${macAddress},${ipAddress},${hostname}\n`, hosts: `${ipAddress} ${hostname}\n` };
}

async function readIfThere(file: string): Promise<string | undefined> {
  return await readFile(file, "utf8").catch(ignoreMissing(undefined));
}

function ignoreMissing<T>(value: T): (cause: NodeJS.ErrnoException) => T {
  return (cause) => {
    if (cause.code !== "ENOENT") throw cause;
    return value;
  };
}
