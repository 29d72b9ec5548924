/**
 * Networks on a host whose firewall drops what it does not know, as Docker's does. Runs in a network and mount
 * namespace of its own, which plays the host, so that the real one's firewall is left alone. Arguments: the daemon's
 * namespace, a directory, where the control groups are mounted. Prints what it found as JSON.
 */
import { writeFile } from "node:fs/promises";
import { systemClock } from "../src/core/clock.ts";
import { createLogger } from "../src/core/logger.ts";
import { openCgroups } from "../src/host/kernel-cgroups.ts";
import { createNetworks } from "../src/host/networks/kernel-networks.ts";
import { run } from "../src/host/run.ts";
import { NetnsGuest } from "./netns-guest.ts";

const [namespace = "", directory = "", cgroupRoot = ""] = process.argv.slice(2);
const never = new AbortController().signal;
const request = {
  uid: "0123456789abcdef",
  cidr: "10.213.60.0/24",
  gateway: "10.213.60.1",
  domain: "demo.internal",
};

const foreignRules = `
table ip filter {
  chain DOCKER-USER { return; }
  chain FORWARD {
    type filter hook forward priority 0; policy drop;
    counter jump DOCKER-USER
    oifname "docker0" ct state related,established accept
  }
}
table inet other {
  chain forward { type filter hook forward priority 10; policy accept; counter reject; }
}
`;

const cgroups = await openCgroups({ clock: systemClock, root: cgroupRoot });
const networks = createNetworks({
  config: { namespace, runDir: directory },
  cgroups,
  clock: systemClock,
  logger: createLogger("warn"),
  hostRecheckMs: 0,
});
const ip = (...args: string[]) => run("ip", args);
const listForeign = async () => {
  const chains = [
    ["ip", "filter", "FORWARD"],
    ["inet", "other", "forward"],
  ];
  const texts = chains.map(async (chain) => (await run("nft", ["-s", "list", "chain", ...chain])).stdout);
  return (await Promise.all(texts)).join("");
};
const forwarding = async () => (await run("cat", ["/proc/sys/net/ipv4/ip_forward"])).stdout.trim();

await writeFile("/proc/sys/net/ipv4/ip_forward", "0"); // a new namespace takes after the real host's
await ip("link", "set", "dev", "lo", "up");
await ip("netns", "add", "outside");
for (const [link, address] of [
  ["eth0", "10.213.61"],
  ["docker0", "10.213.62"],
]) {
  await ip("link", "add", `${link}`, "type", "veth", "peer", "name", `${link}`, "netns", "outside");
  await ip("address", "add", `${address}.1/24`, "dev", `${link}`);
  await ip("link", "set", "dev", `${link}`, "up");
  await ip("-n", "outside", "address", "add", `${address}.2/24`, "dev", `${link}`);
  await ip("-n", "outside", "link", "set", "dev", `${link}`, "up");
}
await run("nft", ["-f", "-"], { input: foreignRules });
const foreignBefore = await listForeign();
const forwardingBefore = await forwarding();

const network = await networks.ensure(request, never);
const macAddress = "02:13:00:00:00:01";
const ipAddress = "10.213.60.10";
await networks.reserve(request.uid, { uid: "0123456789abcdeg", hostname: "guest", macAddress, ipAddress });
const guest = await NetnsGuest.join("guest", network, macAddress, directory);
const answer = await guest.dhcp();
const foreignWith = await listForeign();
const outside = await guest.pings("10.213.61.2");
const neighbour = await guest.pings("10.213.62.2");
await run("nft", ["flush", "ruleset"]);
await run("nft", ["-f", "-"], { input: foreignRules });
const afterRestart = await guest.pings("10.213.61.2");
await networks.ensure(request, never);
const afterEnsure = await guest.pings("10.213.61.2");
const forwardingWith = await forwarding();
await guest.leave();
await networks.removeEverything(never);
networks.close();
await cgroups.remove(namespace);
console.log(
  JSON.stringify({
    address: answer?.ip,
    outside,
    neighbour,
    acceptances: foreignWith.match(/ accept$/gm)?.length,
    afterRestart,
    afterEnsure,
    foreignRestored: (await listForeign()) === foreignBefore,
    forwarding: [forwardingBefore, forwardingWith, await forwarding()],
    tables: (await run("nft", ["list", "tables"])).stdout,
  }),
);
