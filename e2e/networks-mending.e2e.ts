import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";
import { systemClock } from "../src/core/clock.ts";
import { randomInt, seededRandom } from "../src/core/random.ts";
import { hostTable, type NetworkNames } from "../src/host/networks/network-plan.ts";
import { run } from "../src/host/run.ts";
import { pings, pingsFrom } from "./netns-guest.ts";
import { NetworksHost, never, waitFor } from "./networks-host.ts";
import { requestOf } from "./networks-scene.ts";

const host = NetworksHost.forTests();

describe("mending", () => {
  const breakages: Record<string, (of: NetworkNames) => Promise<unknown>> = {
    "the uplink is deleted": ({ uplink }) => run("ip", ["link", "del", "dev", uplink]),
    "the uplink is down": ({ uplink }) => run("ip", ["link", "set", "dev", uplink, "down"]),
    "the route is gone": () => run("ip", ["route", "del", "10.213.0.0/16"]),
    "the host's address is gone": ({ uplink }) => run("ip", ["address", "flush", "dev", uplink]),
    "the host's rule is gone": async ({ uplink }) => {
      const { stdout } = await run("ip", ["-o", "-4", "address", "show", "dev", uplink]);
      const address = /inet (\S+)\//.exec(stdout)?.[1] ?? "";
      await run("ip", ["rule", "del", "pref", "6464", "from", address]);
    },
    "the host's rules are flushed": () => run("nft", ["delete", "table", "inet", hostTable(host.namespace)]),
    "a chain of the host's rules is flushed": () =>
      run("nft", ["flush", "chain", "inet", hostTable(host.namespace), "postrouting"]),
    "the inner rules are flushed": ({ netnsPath }) =>
      run("nsenter", [`--net=${netnsPath}`, "nft", "flush", "ruleset"]),
    "the bridge is deleted": ({ netns }) => run("ip", ["-n", netns, "link", "del", "dev", "br0"]),
    "the bridge is down": ({ netns }) => run("ip", ["-n", netns, "link", "set", "dev", "br0", "down"]),
    "the inner routes are gone": ({ netns }) => run("ip", ["-n", netns, "route", "flush", "table", "900"]),
    "the inner rules of routing are gone": ({ netns }) => run("ip", ["-n", netns, "rule", "flush"]),
    "neighbours are no longer answered for": ({ netnsPath }) =>
      run("nsenter", [
        `--net=${netnsPath}`,
        ...[
          "sh",
          "-c",
          "echo 0 >/proc/sys/net/ipv4/conf/br0/proxy_arp_pvlan; echo 0 >/proc/sys/net/ipv4/ip_forward",
        ],
      ]),
    "the inner uplink is renamed": async ({ netns }) => {
      await run("ip", ["-n", netns, "link", "set", "dev", "uplink", "down"]);
      await run("ip", ["-n", netns, "link", "set", "dev", "uplink", "name", "other"]);
    },
    "the namespace lost its name": ({ netns }) => run("ip", ["netns", "del", netns]),
    "the namespace was replaced": async ({ netns }) => {
      await run("ip", ["netns", "del", netns]);
      await run("ip", ["netns", "add", netns]);
    },
    "both processes are killed": async ({ dnsGroup, dhcpGroup }) => {
      await host.cgroups.kill(dnsGroup);
      await host.cgroups.kill(dhcpGroup);
    },
  };

  it.each(Object.keys(breakages))("when %s", async (breakage) => {
    const wanted = requestOf(213, { hostRoute: true });
    const { hostAddress } = await host.ensure(wanted);
    await breakages[breakage]?.(host.names(wanted));
    const network = await host.ensure(wanted);
    expect(network.hostAddress).toBe(hostAddress);
    const guest = await host.start(wanted, network, "guest", 10);
    const other = await host.start(wanted, network, "other", 11);
    expect(await guest.resolve("guest", "10.213.0.1")).toBe(guest.ip);
    expect(await guest.pings(other.ip)).toBe(true);
    expect(await guest.pings(other.ipv6)).toBe(true);
    expect(await pings(guest.ip)).toBe(true);
    expect(await pingsFrom(hostAddress, guest.ip)).toBe(true);
    const rules = await run("nft", ["list", "table", "inet", hostTable(host.namespace)]);
    expect(rules.stdout).toContain("masquerade");
    const inner = await run("nsenter", [`--net=${host.names(wanted).netnsPath}`, "nft", "list", "ruleset"]);
    expect(inner.stdout).toContain("hook forward");
  });

  it("when a name without a namespace is left", async () => {
    const wanted = requestOf(213);
    await host.ensure(wanted);
    const { netns, netnsPath, uplink, dnsGroup, dhcpGroup } = host.names(wanted);
    host.reopen(); // with it end the processes that look after the rules
    await host.cgroups.kill(dnsGroup);
    await host.cgroups.kill(dhcpGroup);
    await run("ip", ["netns", "del", netns]);
    // The kernel takes a namespace apart in the background; half of one would be another breakage.
    await waitFor("the uplink is gone", async () => !existsSync(`/sys/class/net/${uplink}`));
    await writeFile(netnsPath, "");
    const network = await host.ensure(wanted);
    await host.start(wanted, network, "guest", 10);
  });

  it.each(["same", "another"])(
    "gives guests back their bridge and neighbours, by the %s daemon",
    async (daemon) => {
      const wanted = requestOf(213);
      const network = await host.ensure(wanted);
      const guest = await host.start(wanted, network, "guest", 10);
      await run("ip", ["-n", host.names(wanted).netns, "link", "del", "dev", "br0"]);
      if (daemon === "another") {
        host.reopen();
      }
      await host.ensure(wanted);
      await host.apply(wanted, [guest.card]);
      const { stdout } = await run("ip", [
        "-n",
        host.names(wanted).netns,
        "-d",
        "link",
        "show",
        "dev",
        guest.name,
      ]);
      expect(stdout).toContain("master br0");
      expect(stdout).toContain("isolated on");
      expect((await guest.dhcp())?.ip).toBe(guest.ip);
      expect(await pingsFrom(network.hostAddress, guest.ip)).toBe(true);
      expect(await guest.pings("fd00:213::1")).toBe(true);
    },
  );

  it.each(["dns", "dhcp"] as const)("is asked for by an event when the %s process dies", async (role) => {
    const wanted = requestOf(213);
    await host.ensure(wanted);
    host.reopen(); // as after a restart of the daemon: the process is no child of this one
    await host.ensure(wanted);
    const ending = new AbortController();
    const events = host.networks.events(ending.signal)[Symbol.asyncIterator]();
    const event = events.next();
    const { directory } = host.names(wanted);
    process.kill(Number(await readFile(join(directory, `${role}.pid`), "utf8")), "SIGKILL");
    expect(await event).toEqual({ done: false, value: { uid: wanted.uid } });
    ending.abort();
    const network = await host.ensure(wanted);
    const guest = await host.start(wanted, network, "guest", 10);
    expect(await guest.resolve("guest", "10.213.0.1")).toBe(guest.ip);
  });

  it("is asked for by an event when the namespace loses its name", async () => {
    const wanted = requestOf(213);
    await host.ensure(wanted);
    const ending = new AbortController();
    const event = host.networks.events(ending.signal)[Symbol.asyncIterator]().next();
    await run("ip", ["netns", "del", host.names(wanted).netns]);
    expect(await event).toEqual({ done: false, value: { uid: wanted.uid } });
    ending.abort();
  });

  it("touches nothing in a network that is in order", async () => {
    const wanted = requestOf(213);
    await host.ensure(wanted);
    const { directory, uplink, netns } = host.names(wanted);
    const state = async () => [
      await readFile(join(directory, "dns.pid"), "utf8"),
      await readFile(join(directory, "dhcp.pid"), "utf8"),
      await readFile(`/sys/class/net/${uplink}/ifindex`, "utf8"),
      (await run("ip", ["-n", netns, "-o", "link"])).stdout,
    ];
    const first = await state();
    await host.ensure(wanted);
    host.reopen();
    await host.ensure(wanted);
    expect(await state()).toEqual(first);
  });
});

describe("kill -9", () => {
  const seed = Number(process.env.STRATA_SEED ?? 1);

  it(`at 20 moments leaves nothing once completed (seed ${seed})`, { timeout: 180_000 }, async () => {
    const random = seededRandom(seed);
    await chmod(host.runDir, 0o711);
    for (let moment = 0; moment < 20; moment++) {
      const wanted = requestOf(213, { hostRoute: true });
      const child = spawn(
        process.execPath,
        [
          fileURLToPath(new URL("./networks-child.ts", import.meta.url)),
          host.namespace,
          host.runDir,
          JSON.stringify(wanted),
        ],
        { stdio: ["ignore", "pipe", "inherit"] },
      );
      await once(createInterface(child.stdout), "line");
      await systemClock.sleep(randomInt(random, 700));
      child.kill("SIGKILL");
      await once(child, "exit");
      if (moment % 2 === 0) {
        const network = await host.ensure(wanted);
        const guest = await host.join(wanted, network, "guest", 9);
        expect((await guest.dhcp())?.ip, `after moment ${moment}`).toBe(guest.ip);
        await guest.leave();
      }
      await host.networks.remove(wanted.uid, never);
      expect(await host.networks.list(), `after moment ${moment}`).toEqual([]);
      expect(await host.hostRules(), `after moment ${moment}`).toEqual([]);
    }
    await host.networks.removeEverything(never);
    await host.cgroups.remove(host.namespace);
    await waitFor("nothing is left", async () => (await host.leaks()).length === 0);
  });
});
