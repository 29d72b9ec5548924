/**
 * The cloud-init seed of a guest (NoCloud): who it is, whose keys it accepts, what its user wants. Pure. The metadata
 * service tells the same; stock cloud-init looks for a seed first.
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
  /** In their order: the first one has the guest's default route. */
  nics: readonly SeedNic[];
}

export interface SeedNic {
  macAddress: string;
  /** Present when the card has an IPv6 address. */
  ipv6?: unknown;
}

/**
 * Most images give root's copy of the keys a command that refuses the login (`disable_root: true`). As vendor data, this
 * stands beside the user's own data, whatever form that has, and yields to it where both speak of the same.
 */
const vendorData = "#cloud-config\ndisable_root: false\n";

const domainPattern = /^[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63})*$/;
const macPattern = /^[0-9a-f]{2}(?::[0-9a-f]{2}){5}$/;

/** @throws Invalid for a name, key or address that means more than itself. */
export function renderSeed(options: SeedOptions): Seed {
  const { uid, hostname, domain, publicKeys, userData = "", nics } = options;
  if (!namePattern.test(hostname)) throw invalid(hostname, "host name", hostname);
  if (!domainPattern.test(domain)) throw invalid(hostname, "domain", domain);
  for (const { macAddress } of nics) {
    if (!macPattern.test(macAddress)) throw invalid(hostname, "hardware address", macAddress);
  }
  // A second line would be a second key, which nobody was shown.
  const multiline = publicKeys.find((key) => /[\r\n]/.test(key.trim()));
  if (multiline !== undefined) throw invalid(hostname, "SSH key (more than one line)", multiline);
  return {
    metaData: yaml({
      "instance-id": uid,
      "local-hostname": `${hostname}.${domain}`,
      "public-keys": publicKeys.map((key) => key.trim()),
    }),
    userData,
    vendorData,
    networkConfig: yaml({
      version: 2,
      ethernets: Object.fromEntries(
        nics.map((nic, index) => [`nic${index}`, ethernet(nic, index, nics.length)]),
      ),
    }),
  };
}

/** As on EC2, each further card has a worse route; a guest does not wait for one that is taken away while it is off. */
function ethernet({ macAddress, ipv6 }: SeedNic, index: number, count: number) {
  const route = { "route-metric": 100 * (index + 1) };
  const hasIpv6 = ipv6 !== undefined;
  return {
    match: { macaddress: macAddress },
    dhcp4: true,
    dhcp6: hasIpv6,
    ...(count > 1 ? { "dhcp4-overrides": route } : {}),
    ...(count > 1 && hasIpv6 ? { "dhcp6-overrides": route } : {}),
    ...(index > 0 ? { optional: true } : {}),
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
