/**
 * The cloud-init seed of a guest (NoCloud): who it is, whose keys it accepts, what its user wants. Pure.
 *
 * Every text is quoted and plain ASCII, because cloud-init reads YAML 1.1, where `0123` is a number, `no` is false and
 * a MAC address can be a time of day, and where one unprintable character makes the whole file unreadable.
 *
 * @see https://cloudinit.readthedocs.io/en/latest/reference/datasources/nocloud.html
 */
import { stringify } from "yaml";
import { StrataError } from "../core/errors.ts";
import { namePattern } from "../core/ids.ts";
import type { Seed } from "../drivers/driver.ts";

export interface SeedOptions {
  uid: string;
  hostname: string;
  /** DNS domain of the guest's network. */
  domain: string;
  /** Lines as in authorized_keys, for the image's default user and root. */
  publicKeys: readonly string[];
  /** Handed over as it is. */
  userData: string | undefined;
  nic: { macAddress: string };
}

/**
 * Debian's cloud-init gives root's copy of the keys a command that refuses the login (`disable_root: true`). Images
 * built by Strata turn that off themselves; others are told here, unless their user says something.
 */
const defaultUserData = "#cloud-config\ndisable_root: false\n";

const domainPattern = /^[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*$/;
const macPattern = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

/** @throws Invalid for a name, key or address that means more than itself. */
export function renderSeed(options: SeedOptions): Seed {
  const { uid, hostname, domain, publicKeys, userData, nic } = options;
  if (!namePattern.test(hostname)) throw invalid(hostname, "host name", hostname);
  if (!domainPattern.test(domain)) throw invalid(hostname, "domain", domain);
  if (!macPattern.test(nic.macAddress)) throw invalid(hostname, "hardware address", nic.macAddress);
  // A second line would be a second key, which nobody was shown.
  const multiline = publicKeys.find((key) => /[\r\n]/.test(key.trim()));
  if (multiline !== undefined) throw invalid(hostname, "SSH key (more than one line)", multiline);
  return {
    metaData: yaml({
      "instance-id": uid,
      "local-hostname": `${hostname}.${domain}`,
      "public-keys": publicKeys.map((key) => key.trim()),
    }),
    userData: userData === undefined || userData === "" ? defaultUserData : userData,
    networkConfig: yaml({
      version: 2,
      ethernets: { nic0: { match: { macaddress: nic.macAddress }, dhcp4: true, dhcp6: false } },
    }),
  };
}

function yaml(value: unknown): string {
  const text = stringify(value, {
    defaultStringType: "QUOTE_DOUBLE",
    defaultKeyType: "PLAIN",
    lineWidth: 0,
  });
  // Whatever is not ASCII stands in a quoted text.
  return text.replace(/[^\x20-\x7e\n]/gu, (character) => {
    const code = character.codePointAt(0) ?? 0;
    return `\\U${code.toString(16).padStart(8, "0")}`;
  });
}

function invalid(hostname: string, what: string, value: string): StrataError {
  return new StrataError(
    "Invalid",
    `the seed of guest ${JSON.stringify(hostname)} cannot be made: its ${what} is ${JSON.stringify(value.slice(0, 100))}`,
  );
}
