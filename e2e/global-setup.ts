import { access } from "node:fs/promises";
import { StrataError } from "../src/core/errors.ts";

const programs = [
  "/usr/bin/lxc-start",
  "/usr/bin/qemu-img",
  "/usr/bin/mmdebstrap",
  "/usr/sbin/dnsmasq",
  "/usr/sbin/nft",
];

/** Real guests need root and real engines: missing ones fail the run instead of skipping tests. */
export default async function setup(): Promise<void> {
  if (process.getuid?.() !== 0)
    throw new StrataError("Forbidden", "end-to-end tests start real guests: run them as root");
  for (const program of programs) {
    await access(program).catch((cause) => {
      throw new StrataError("Unavailable", `${program} is missing; \`sudo ./strata test\` installs it`, {
        cause,
      });
    });
  }
}
