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
import { cardOf, placeOf, policyOf, requestOf } from "./networks-scene.ts";

const [namespace = "", directory = "", cgroupRoot = ""] = process.argv.slice(2);
const never = new AbortController().signal;
const request = requestOf(213);

const foreignRules = `
table ip filter {
  chain DOCKER-USER { return; }
  chain FORWARD {
    type filter hook forward priority 0; policy drop;
    counter jump DOCKER-USER
    oifname "docker0" ct state related,established accept
  }
}
table ip6 filter {
  chain FORWARD { type filter hook forward priority 0; policy drop; }
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
    ["ip6", "filter", "FORWARD"],
    ["inet", "other", "forward"],
  ];
  const texts = chains.map(async (chain) => (await run("nft", ["-s", "list", "chain", ...chain])).stdout);
  return (await Promise.all(texts)).join("");
};
const sysctls = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv6/conf/eth0/accept_ra"];
const settings = async () => {
  const { stdout } = await run(
    "cat",
    sysctls.map((path) => `/proc/sys/net/${path}`),
  );
  return stdout.trim().split("\n").join(" ");
};

await writeFile("/proc/sys/net/ipv4/ip_forward", "0"); // a new namespace takes after the real host's
await writeFile("/proc/sys/net/ipv6/conf/all/forwarding", "0");
await ip("link", "set", "dev", "lo", "up");
await ip("netns", "add", "outside");
for (const [link, net] of [
  ["eth0", "61"],
  ["docker0", "62"],
]) {
  const ends = (last: number) => [[`10.250.${net}.${last}/24`], [`fd00:${net}::${last}/64`, "nodad"]];
  await ip("link", "add", `${link}`, "type", "veth", "peer", "name", `${link}`, "netns", "outside");
  for (const [address = "", ...flags] of ends(1))
    await ip("address", "add", address, "dev", `${link}`, ...flags);
  await ip("link", "set", "dev", `${link}`, "up");
  for (const [address = "", ...flags] of ends(2)) {
    await ip("-n", "outside", "address", "add", address, "dev", `${link}`, ...flags);
  }
  await ip("-n", "outside", "link", "set", "dev", `${link}`, "up");
}
await ip("-6", "route", "add", "default", "via", "fd00:61::2");
await writeFile("/proc/sys/net/ipv6/conf/eth0/accept_ra", "1");
await run("nft", ["-f", "-"], { input: foreignRules });
const foreignBefore = await listForeign();
const settingsBefore = await settings();

const network = await networks.ensure(request, never);
const card = cardOf(request, "guest", 10);
await networks.apply(request.uid, policyOf([card]), never);
const guest = await NetnsGuest.join(card.port, placeOf(network, "front"), card.macAddress, directory);
const answer = await guest.dhcp();
const answer6 = await guest.dhcp6();
const foreignWith = await listForeign();
const outside = await guest.pings("10.250.61.2");
// The first one may be lost while the kernel makes sure that nobody else has its address.
const outside6 =
  (await guest.pings("fd00:61::2")) || (await guest.pings("fd00:61::2")) || (await guest.pings("fd00:61::2"));
const neighbour = await guest.pings("10.250.62.2");
await run("nft", ["flush", "ruleset"]);
await run("nft", ["-f", "-"], { input: foreignRules });
const afterRestart = await guest.pings("10.250.61.2");
await networks.ensure(request, never);
const afterEnsure = await guest.pings("10.250.61.2");
const settingsWith = await settings();
await guest.leave();
await networks.removeEverything(never);
networks.close();
await cgroups.remove(namespace);
console.log(
  JSON.stringify({
    addresses: [answer?.ip, answer6],
    outside,
    outside6,
    neighbour,
    acceptances: foreignWith.match(/ accept$/gm)?.length,
    afterRestart,
    afterEnsure,
    foreignRestored: (await listForeign()) === foreignBefore,
    settings: [settingsBefore, settingsWith, await settings()],
    tables: (await run("nft", ["list", "tables"])).stdout,
  }),
);
