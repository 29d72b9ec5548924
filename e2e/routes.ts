import { readFileSync } from "node:fs";

/**
 * Does the host route this IPv4 address into a network of its own, not just by its default route? Until a network is
 * there, requests to its guests would leave the machine; tests never let them.
 */
export function isRouted(address: string): boolean {
  const value = address.split(".").reduceRight((number, byte) => number * 256 + Number(byte), 0); // as the kernel prints it
  return readFileSync("/proc/net/route", "utf8")
    .split("\n")
    .slice(1)
    .some((line) => {
      const fields = line.split("\t");
      const destination = Number.parseInt(fields[1] ?? "", 16);
      const mask = Number.parseInt(fields[7] ?? "", 16);
      return mask > 0 && (value & mask) >>> 0 === destination;
    });
}
