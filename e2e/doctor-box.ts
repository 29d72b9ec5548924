/**
 * The doctor's connectivity test on a host whose firewall is in the way. Runs in a network and mount namespace of its own,
 * which plays the host. Arguments: a directory, where the control groups are mounted, rules that are in the way (nft).
 * Prints what it found as JSON.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../src/core/clock.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { readConnectivity } from "../src/host/probes/connectivity.ts";
import { HostFiles } from "../src/host/probes/host-files.ts";
import { run } from "../src/host/run.ts";

const [directory = "", cgroupRoot = "", rules = ""] = process.argv.slice(2);
const server = "10.250.61.2";
const ip = (...args: string[]) => run("ip", args);

await ip("link", "set", "dev", "lo", "up");
await ip("netns", "add", "outside");
await ip("link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", "outside");
await ip("address", "add", "10.250.61.1/24", "dev", "eth0");
await ip("link", "set", "dev", "eth0", "up");
await ip("-n", "outside", "address", "add", `${server}/24`, "dev", "eth0");
await ip("-n", "outside", "link", "set", "dev", "eth0", "up");
await mkdir(join(directory, "etc"), { recursive: true });
await writeFile(join(directory, "etc/resolv.conf"), `nameserver ${server}\n`);
if (rules !== "") await run("nft", ["-f", "-"], { input: rules });

const dns = await listen();
try {
  const cgroups = () => openCgroups({ clock: systemClock, root: cgroupRoot });
  const facts = await readConnectivity(new HostFiles(directory), cgroups, AbortSignal.timeout(60_000));
  const { stdout } = await run("nft", ["list", "tables"]);
  console.log(JSON.stringify({ facts, tables: stdout.trim().split("\n").filter(Boolean) }));
} finally {
  dns.kill();
  await once(dns, "close");
}

/** Somebody who takes connections at the server's port 53. */
async function listen(): Promise<ChildProcess> {
  const script = `require("net").createServer((socket) => socket.on("error", () => {}).end()).listen(53, () => console.log())`;
  const child = spawn("ip", ["netns", "exec", "outside", process.execPath, "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  if (child.stdout) await once(child.stdout, "data");
  return child;
}
