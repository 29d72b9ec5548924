/**
 * Cards' addresses and names as files, one each a card, in directories that dnsmasq watches. A file appears by a
 * rename from outside (dnsmasq would read a half-written one). A DHCP file is not removed but moved to `forgotten/`
 * until the DHCP process, which still remembers its lease, has been restarted: so a crash in between is noticed.
 */
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { StrataError } from "../../core/errors.ts";
import { isUid, namePattern } from "../../core/ids.ts";
import { parseIp } from "../../core/ip-range.ts";
import { dhcpDirectory, hostsDirectory } from "./dnsmasq-config.ts";
import type { CardPolicy } from "./networks.ts";

const macPattern = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

/** What is reserved for a card. */
export type Reservation = Pick<CardPolicy, "uid" | "hostname" | "macAddress" | "ipAddress" | "ipv6Address">;

/** Texts of a card's files; without a name of its own it has none for DNS. */
export interface ReservationTexts {
  dhcp: string;
  hosts?: string;
}

export class Reservations {
  readonly #directory: string;
  /** Leases that are forgotten by us, but not by the DHCP process. Read once. */
  #remembered: string[][] | undefined;

  /** `directory`: the network's. For one change: what others do to the files meanwhile goes unnoticed. */
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
   * Writes a card's reservation. Returns true when the DHCP process has to be restarted before it can serve it: the
   * card had another one, or the address still belongs to a lease of somebody else.
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
    if (hosts === undefined) await rm(hostsFile, { force: true });
    else if ((await readIfThere(hostsFile)) !== hosts) await this.#write(hostsFile, hosts);
    return await this.#isRemembered(dhcp);
  }

  /** Takes a card's reservation away; absent is success. */
  async remove(cardUid: string): Promise<void> {
    if (!isUid(cardUid)) throw new StrataError("Invalid", `"${cardUid}" is not the uid of a network card`);
    await rm(join(hostsDirectory(this.#directory), cardUid), { force: true });
    await this.#forget(cardUid);
  }

  /** Of all cards, as an earlier process left them. */
  async read(): Promise<Map<string, ReservationTexts>> {
    const found = new Map<string, ReservationTexts>();
    const list = async (path: string) => (await readdir(path).catch(ignoreMissing([]))).filter(isUid);
    for (const uid of await list(dhcpDirectory(this.#directory))) {
      const dhcp = await readIfThere(join(dhcpDirectory(this.#directory), uid));
      if (dhcp !== undefined) found.set(uid, { dhcp });
    }
    for (const uid of await list(hostsDirectory(this.#directory))) {
      const hosts = await readIfThere(join(hostsDirectory(this.#directory), uid));
      // A name without an address to hand out was left by a removal that did not get to its end.
      if (hosts !== undefined) found.set(uid, { dhcp: "", ...found.get(uid), hosts });
    }
    return found;
  }

  /** Names of the files of reservations that are gone, and that the DHCP process may still remember. */
  async forgotten(): Promise<string[]> {
    return await readdir(this.#forgottenDirectory()).catch(ignoreMissing([]));
  }

  /** The DHCP process was restarted after `names` had been read: it remembers none of them. */
  async clearForgotten(names: readonly string[]): Promise<void> {
    this.#remembered = undefined;
    for (const name of names) await rm(join(this.#forgottenDirectory(), name), { force: true });
  }

  /** True when a forgotten lease of another hardware address holds an address of it, or the same hardware address others. */
  async #isRemembered(dhcp: string): Promise<boolean> {
    const [mac, ...addresses] = leaseOf(dhcp);
    this.#remembered ??= await this.#readForgotten();
    return this.#remembered.some(([oldMac, ...oldAddresses]) => {
      const shared = addresses.filter((address) => oldAddresses.includes(address)).length;
      if (oldMac !== mac) return shared > 0;
      return shared < addresses.length || shared < oldAddresses.length;
    });
  }

  async #readForgotten(): Promise<string[][]> {
    const leases: string[][] = [];
    for (const name of await this.forgotten()) {
      leases.push(leaseOf((await readIfThere(join(this.#forgottenDirectory(), name))) ?? ""));
    }
    return leases;
  }

  async #forget(cardUid: string): Promise<void> {
    this.#remembered = undefined;
    const from = join(dhcpDirectory(this.#directory), cardUid);
    await rename(from, join(this.#forgottenDirectory(), cardUid)).catch(ignoreMissing(undefined));
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
export function renderReservation(reservation: Reservation): ReservationTexts {
  const { uid, hostname, macAddress, ipAddress, ipv6Address } = reservation;
  const wrong = [
    isUid(uid) ? undefined : `uid "${uid}"`,
    hostname === undefined || namePattern.test(hostname) ? undefined : `host name "${hostname}"`,
    macPattern.test(macAddress) ? undefined : `hardware address "${macAddress}"`,
    parseIp(ipAddress)?.family === 4 ? undefined : `address "${ipAddress}"`,
    ipv6Address === undefined || parseIp(ipv6Address)?.family === 6 ? undefined : `address "${ipv6Address}"`,
  ].find((problem) => problem !== undefined);
  if (wrong)
    throw new StrataError("Invalid", `cannot reserve an address for a network card with the ${wrong}`);
  const addresses = [ipAddress, ...(ipv6Address === undefined ? [] : [ipv6Address])];
  const dhcp = [
    macAddress,
    ...addresses.map((address) => (address.includes(":") ? `[${address}]` : address)),
    ...(hostname === undefined ? [] : [hostname]),
  ];
  return {
    dhcp: `${dhcp.join(",")}\n`,
    ...(hostname !== undefined && { hosts: addresses.map((address) => `${address} ${hostname}\n`).join("") }),
  };
}

/** The hardware address and then the addresses of a DHCP file's line; what else is in it is a name. */
function leaseOf(dhcp: string): string[] {
  const [mac = "", ...rest] = dhcp.trim().split(",");
  return [mac, ...rest.filter((part) => part.startsWith("[") || parseIp(part) !== undefined)];
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
